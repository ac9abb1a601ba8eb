/** One watch of an etcd engine: what its reader has been told, and where it would go on. */
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import { interval, isEmptyInterval } from '../../model/range.ts';
import type { Header, Revision } from '../../model/transaction.ts';
import { type Watch, type WatchBatch, type WatchRequest, weighEvents } from '../../model/watch.ts';

export interface WatchOwner {
  readonly bytesMax: number;
  create(watch: EtcdWatch): void;
  /** At the server only; the watch may be created again. */
  cancel(watch: EtcdWatch): void;
  gone(watch: EtcdWatch): void;
  progress(): void;
}

export class EtcdWatch implements Watch {
  readonly created: Promise<Header>;
  /** The id on the stream it stands on now. */
  id = 0;
  readonly #owner: WatchOwner;
  readonly #request: WatchRequest;
  readonly #created: Deferred<Header> = deferred();
  /** The first revision not told yet; 0 until the server has said where "now" is. */
  #next: Revision;
  #queue: WatchBatch[] = [];
  #queuedBytes = 0;
  #paused = false;
  #progressWanted = false;
  #waiter: Deferred<IteratorResult<WatchBatch>> | undefined;
  #ended: { readonly error: HoldfastError | undefined } | undefined;
  #onEnd: () => void = () => {};

  constructor(request: WatchRequest, owner: WatchOwner) {
    this.#request = request;
    this.#owner = owner;
    this.#next = Math.max(0, request.startRevision ?? 0);
    this.created = this.#created.promise;
    this.created.catch(() => {});
    const range = interval(request.key.length === 0 ? { ...request, key: ZERO } : request);
    if (isEmptyInterval(range)) {
      this.refused(new HoldfastError('invalid-argument', 'the range to watch is empty'));
    } else if ((request.startRevision ?? 0) < 0) {
      this.refused(new HoldfastError('compacted', 'a watch cannot start before the beginning'));
    }
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Its reader is far behind; it is not at the server for now. */
  get paused(): boolean {
    return this.#paused;
  }

  get progressWanted(): boolean {
    return this.#progressWanted;
  }

  /** The request that goes on where this watch has come to. */
  requestFromHere(): WatchRequest {
    return { ...this.#request, startRevision: this.#next };
  }

  stands(header: Header): void {
    // From "now" on means from the first time it stood, also when it has to be created again.
    if (this.#next === 0) this.#next = header.revision + 1;
    this.#created.resolve(header);
  }

  refused(error: HoldfastError): void {
    this.#created.reject(error);
    this.fail(error);
  }

  told(batch: WatchBatch): void {
    if (this.#ended || this.#paused) return;
    const events = batch.events.filter((event) => event.kv.modRevision >= this.#next);
    const last = events[events.length - 1];
    if (batch.events.length > 0 && !last) return;
    if (last) this.#next = last.kv.modRevision + 1;
    this.#deliver({ header: batch.header, events });
    if (this.#queuedBytes > this.#owner.bytesMax) {
      this.#paused = true;
      this.#owner.cancel(this);
    }
  }

  progressed(header: Header): void {
    if (!this.#progressWanted || this.#paused || header.revision < this.#next - 1) return;
    this.#progressWanted = false;
    this.#deliver({ header, events: [] });
  }

  requestProgress(): void {
    if (this.#ended) return;
    this.#progressWanted = true;
    this.#owner.progress();
  }

  fail(error: HoldfastError): void {
    this.#created.reject(error);
    this.#end(error);
  }

  /** Calls back once when the watch is over, for whatever reason. */
  onEnd(callback: () => void): void {
    if (this.#ended) callback();
    else this.#onEnd = callback;
  }

  async close(): Promise<void> {
    this.#queue = [];
    this.#created.reject(new HoldfastError('closed', 'the watch was closed'));
    this.#end(undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<WatchBatch> {
    return {
      next: () => this.#step(),
      return: async () => {
        await this.close();
        return { done: true, value: undefined };
      },
    };
  }

  #step(): Promise<IteratorResult<WatchBatch>> {
    if (this.#waiter) return Promise.reject(new Error('a watch has one reader at a time'));
    const queued = this.#queue.shift();
    if (queued) {
      this.#queuedBytes -= weighEvents(queued.events);
      return Promise.resolve({ done: false, value: queued });
    }
    if (this.#ended) {
      const { error } = this.#ended;
      return error ? Promise.reject(error) : Promise.resolve({ done: true, value: undefined });
    }
    if (this.#paused) {
      this.#paused = false;
      this.#owner.create(this);
    }
    this.#waiter = deferred();
    return this.#waiter.promise;
  }

  #deliver(batch: WatchBatch): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (waiter) {
      waiter.resolve({ done: false, value: batch });
      return;
    }
    this.#queue.push(batch);
    this.#queuedBytes += weighEvents(batch.events);
  }

  #end(error: HoldfastError | undefined): void {
    if (this.#ended) return;
    this.#ended = { error };
    this.#owner.gone(this);
    this.#onEnd();
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (!waiter) return;
    if (error) waiter.reject(error);
    else waiter.resolve({ done: true, value: undefined });
  }
}

/** A watch that never stood: its reader hears why. */
export function refusedWatch(error: HoldfastError): Watch {
  const watch = new EtcdWatch({ key: ZERO }, NOBODY);
  watch.fail(error);
  return watch;
}

const ZERO = Uint8Array.of(0);
const NOBODY: WatchOwner = {
  bytesMax: 0,
  create() {},
  cancel() {},
  gone() {},
  progress() {},
};
