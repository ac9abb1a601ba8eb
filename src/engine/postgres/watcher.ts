/**
 * One watch: what its reader has not taken yet, and from where to go on.
 *
 * The follower hands events over as they come. A reader that is slow costs only so much memory:
 * then its watch falls behind, and is fed from the log again when the reader has caught up with
 * what is queued. Only compaction can part them, and that is an error.
 */
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import { contains, type Interval, interval } from '../../model/range.ts';
import type { Header, Revision } from '../../model/transaction.ts';
import type { Event, Watch, WatchBatch, WatchRequest } from '../../model/watch.ts';

/** What a watcher asks of the follower that feeds it. */
export interface WatchFeed {
  /** There is something to do: a new watch, a reader that wants more, progress asked for. */
  wake(): void;
  leave(watcher: Watcher): void;
}

const QUEUED_BYTES_MAX = 4 * 2 ** 20;
const EVENT_BYTES = 200;

export class Watcher implements Watch {
  readonly created: Promise<Header>;
  readonly range: Interval;
  readonly request: WatchRequest;
  readonly #feed: WatchFeed;
  readonly #created: Deferred<Header> = deferred();
  /** First revision not yet handed over; `undefined` until the watch stands. */
  next: Revision | undefined;
  progressWanted = false;
  /** Nothing was told since the last tick. */
  quiet = true;
  #queue: WatchBatch[] = [];
  #queuedBytes = 0;
  #waiter: Deferred<IteratorResult<WatchBatch>> | undefined;
  #ended: { readonly error: HoldfastError | undefined } | undefined;
  #onEnd: () => void = () => {};

  constructor(request: WatchRequest, feed: WatchFeed) {
    this.request = request;
    this.#feed = feed;
    const key = request.key.length === 0 ? Uint8Array.of(0) : request.key;
    this.range = interval({ ...request, key });
    this.created = this.#created.promise;
    this.created.catch(() => {});
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  get empty(): boolean {
    return this.#queue.length === 0;
  }

  /** The reader has so much waiting that nothing more is read for it. */
  get full(): boolean {
    return this.#queuedBytes >= QUEUED_BYTES_MAX;
  }

  stand(header: Header, next: Revision): void {
    this.next = next;
    this.#created.resolve(header);
  }

  /** Takes what happened up to `header.revision`. Answers false when it must wait: it is behind. */
  offer(header: Header, events: readonly Event[]): boolean {
    if (this.full) return false;
    const wanted = events.filter((event) => this.#wants(event)).map((event) => this.#trim(event));
    this.next = Math.max(this.next ?? 0, header.revision + 1);
    if (wanted.length > 0) this.deliver({ header, events: wanted });
    return true;
  }

  deliver(batch: WatchBatch): void {
    if (this.#ended) return;
    this.quiet = false;
    if (batch.events.length === 0) this.progressWanted = false;
    const waiter = this.#waiter;
    if (waiter) {
      this.#waiter = undefined;
      waiter.resolve({ done: false, value: batch });
      return;
    }
    this.#queue.push(batch);
    this.#queuedBytes += weigh(batch);
  }

  requestProgress(): void {
    if (this.#ended) return;
    this.progressWanted = true;
    this.#feed.wake();
  }

  onEnd(callback: () => void): void {
    if (this.#ended) callback();
    else this.#onEnd = callback;
  }

  fail(error: HoldfastError): void {
    this.#end(error);
  }

  async close(): Promise<void> {
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#end(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<WatchBatch> {
    return {
      next: () => this.#next(),
      return: async () => {
        await this.close();
        return { done: true, value: undefined };
      },
    };
  }

  #wants(event: Event): boolean {
    const { noPut, noDelete } = this.request;
    if (event.kv.modRevision < (this.next ?? 0)) return false;
    return !(event.type === 'put' ? noPut : noDelete) && contains(this.range, event.kv.key);
  }

  #trim(event: Event): Event {
    return this.request.prevKv ? event : { type: event.type, kv: event.kv };
  }

  #next(): Promise<IteratorResult<WatchBatch>> {
    if (this.#waiter) return Promise.reject(new Error('a watch has one reader at a time'));
    const wasFull = this.full;
    const queued = this.#queue.shift();
    if (queued) {
      this.#queuedBytes -= weigh(queued);
      if (wasFull && !this.full) this.#feed.wake();
      return Promise.resolve({ done: false, value: queued });
    }
    if (this.#ended) {
      const { error } = this.#ended;
      return error ? Promise.reject(error) : Promise.resolve({ done: true, value: undefined });
    }
    this.#waiter = deferred();
    return this.#waiter.promise;
  }

  #end(error: HoldfastError | undefined): void {
    if (this.#ended) return;
    this.#ended = { error };
    this.#feed.leave(this);
    this.#onEnd();
    this.#created.reject(error ?? new HoldfastError('closed', 'the watch was closed'));
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (!waiter) return;
    if (error) waiter.reject(error);
    else waiter.resolve({ done: true, value: undefined });
  }
}

function weigh(batch: WatchBatch): number {
  let bytes = EVENT_BYTES;
  for (const { kv, prevKv } of batch.events) {
    bytes += EVENT_BYTES + kv.key.length + kv.value.length + (prevKv?.value.length ?? 0);
  }
  return bytes;
}
