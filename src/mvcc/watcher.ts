/**
 * One watch: live, or catching up from the history.
 *
 * A live watcher is handed each commit's events and queues them up to a bound. A reader that falls
 * behind costs no more memory than that: its watcher drops out of the live stream, remembers where,
 * and reads the rest from the history when the reader comes back. Only compaction can then part
 * them, and that is an error with the revision to start again from.
 */
import { type Deferred, deferred } from '../base/deferred.ts';
import { HoldfastError } from '../model/errors.ts';
import { contains, type Interval, interval, isEmptyInterval } from '../model/range.ts';
import type { Header, Revision } from '../model/transaction.ts';
import {
  type ListenedWatch,
  type Watch,
  type WatchBatch,
  type WatchListener,
  type WatchRequest,
  weighEvents,
} from '../model/watch.ts';
import { readHistory } from './history.ts';
import type { State } from './layout.ts';
import { compactedError } from './read.ts';
import type { TableReader } from './table.ts';
import type { Tidings } from './tidings.ts';

/** What a watcher needs of the hub that feeds it. */
export interface WatchSource {
  readonly table: TableReader;
  /** What has been published: nothing beyond it may be told. */
  readonly state: State;
  leave(watcher: Watcher): void;
}

/** Memory a slow reader may cost before its watcher goes back to the history. */
const QUEUED_BYTES_MAX = 8 * 1024 * 1024;
const CATCH_UP_EVENTS = 1_000;
const CATCH_UP_BYTES = 16 * 1024 * 1024;
const CATCH_UP_REVISIONS = 10_000;

export class Watcher implements ListenedWatch {
  readonly created: Promise<Header>;
  readonly range: Interval;
  readonly request: WatchRequest;
  readonly #source: WatchSource;
  #queue: WatchBatch[] = [];
  #queuedBytes = 0;
  /** Next revision to read from the history; `undefined` while live. */
  #behindFrom: Revision | undefined;
  /** No revision before this is told; it may lie in the future. */
  readonly #start: Revision;
  #progressWanted = false;
  #quiet = true;
  #listener: WatchListener | undefined;
  #waiter: Deferred<IteratorResult<WatchBatch>> | undefined;
  #ended: { readonly error: HoldfastError | undefined } | undefined;
  #onEnd: () => void = () => {};

  constructor(request: WatchRequest, source: WatchSource) {
    const { state } = source;
    this.request = request;
    this.#source = source;
    this.range = interval(
      request.key.length === 0 ? { ...request, key: Uint8Array.of(0) } : request,
    );
    const start = request.startRevision ?? 0;
    this.#start = start > 0 ? start : state.revision + 1;
    if (this.#start <= state.revision) this.#behindFrom = this.#start;
    const refusal = this.#refusal(start, state);
    if (refusal) this.fail(refusal);
    this.created = refusal ? Promise.reject(refusal) : Promise.resolve(headerOf(state));
    this.created.catch(() => {});
    if (!refusal && this.#start < state.compactRevision) {
      this.fail(compactedError(this.#start, state));
    }
  }

  get behindFrom(): Revision | undefined {
    return this.#behindFrom;
  }

  get live(): boolean {
    return this.#behindFrom === undefined && !this.#ended;
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Takes what a commit means to this watch. */
  offer(tidings: Tidings): void {
    const batch = tidings.batch(this.request, this.#start);
    if (batch === undefined) {
      if (this.#progressWanted) this.#sendProgress();
      return;
    }
    if (this.#queuedBytes > 0 && this.#queuedBytes + weighEvents(batch.events) > QUEUED_BYTES_MAX) {
      this.#behindFrom = tidings.firstRevision;
      return;
    }
    this.#quiet = false;
    this.#deliver(batch);
  }

  listen(listener: WatchListener): void {
    this.#listener = listener;
    this.resume();
  }

  /** Tells what has gathered, as far as the listener has room. */
  resume(): void {
    for (let listener = this.#listener; listener && !listener.full; listener = this.#listener) {
      const batch = this.#take();
      if (batch) this.#tell(listener, batch);
      else {
        if (this.#ended) this.#bidFarewell(listener, this.#ended.error);
        return;
      }
    }
  }

  requestProgress(): void {
    if (this.#ended) return;
    this.#progressWanted = true;
    if (this.live) this.#sendProgress();
  }

  /** Called from time to time by the hub for watches that asked for it. */
  tick(): void {
    if (this.live && this.#quiet && this.#queue.length === 0) this.#sendProgress();
    this.#quiet = true;
  }

  /** Calls back once when the watch is over, for whatever reason. */
  onEnd(callback: () => void): void {
    if (this.#ended) callback();
    else this.#onEnd = callback;
  }

  fail(error: HoldfastError): void {
    this.#end(error);
  }

  async close(): Promise<void> {
    this.#queue = [];
    this.#listener = undefined;
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

  #refusal(start: number, state: State): HoldfastError | undefined {
    if (isEmptyInterval(this.range)) {
      return new HoldfastError('invalid-argument', 'the range to watch is empty');
    }
    if (start < 0) return compactedError(start, state);
    return undefined;
  }

  /** A promise that everything up to now was told; never one about a time before the start. */
  #sendProgress(): void {
    if (this.#source.state.revision < this.#start - 1) return;
    this.#deliver({ header: headerOf(this.#source.state), events: [] });
  }

  #deliver(batch: WatchBatch): void {
    this.#progressWanted = false;
    if (this.#waiter) {
      const waiter = this.#waiter;
      this.#waiter = undefined;
      waiter.resolve({ done: false, value: batch });
      return;
    }
    if (this.#listener && !this.#listener.full && this.#queue.length === 0) {
      this.#tell(this.#listener, batch);
      return;
    }
    this.#queue.push(batch);
    this.#queuedBytes += weighEvents(batch.events);
  }

  /** A listener that throws has a fault of its own; neither the commit nor other watches suffer. */
  #tell(listener: WatchListener, batch: WatchBatch): void {
    try {
      listener.onBatch(batch);
    } catch (error) {
      this.fail(HoldfastError.from(error, 'rejected'));
    }
  }

  #bidFarewell(listener: WatchListener, error: HoldfastError | undefined): void {
    this.#listener = undefined;
    if (error) listener.onEnd(error);
  }

  /** The next batch that can be told without waiting. */
  #take(): WatchBatch | undefined {
    const queued = this.#queue.shift();
    if (queued) {
      this.#queuedBytes -= weighEvents(queued.events);
      return queued;
    }
    return this.live || this.#ended ? undefined : this.#catchUp();
  }

  #next(): Promise<IteratorResult<WatchBatch>> {
    if (this.#waiter) return Promise.reject(new Error('a watch has one reader at a time'));
    const batch = this.#take();
    if (batch) return Promise.resolve({ done: false, value: batch });
    if (this.#ended) return this.#ending();
    this.#waiter = deferred();
    return this.#waiter.promise;
  }

  /** Reads on in the history; answers a batch, or nothing when it came to the present or failed. */
  #catchUp(): WatchBatch | undefined {
    try {
      while (this.#behindFrom !== undefined) {
        const { table, state } = this.#source;
        if (this.#behindFrom < state.compactRevision) throw compactedError(this.#behindFrom, state);
        const part = readHistory(table, {
          from: this.#behindFrom,
          to: state.revision,
          eventsMax: CATCH_UP_EVENTS,
          bytesMax: CATCH_UP_BYTES,
          revisionsMax: CATCH_UP_REVISIONS,
          prevKvAfter: this.request.prevKv ? state.compactRevision : undefined,
          wants: ({ after, key }) =>
            !(after ? this.request.noPut : this.request.noDelete) && contains(this.range, key),
        });
        this.#behindFrom = part.upTo < state.revision ? part.upTo + 1 : undefined;
        const events = part.revisions.flatMap((revision) => revision.events);
        if (events.length > 0) {
          this.#quiet = false;
          return { header: { revision: part.upTo, era: state.era }, events };
        }
      }
      if (this.#progressWanted) {
        this.#progressWanted = false;
        return { header: headerOf(this.#source.state), events: [] };
      }
    } catch (error) {
      this.fail(HoldfastError.from(error, 'rejected'));
    }
    return undefined;
  }

  #end(error: HoldfastError | undefined): void {
    if (this.#ended) return;
    this.#ended = { error };
    this.#source.leave(this);
    this.#onEnd();
    this.resume();
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (!waiter) return;
    if (error) waiter.reject(error);
    else waiter.resolve({ done: true, value: undefined });
  }

  #ending(): Promise<IteratorResult<WatchBatch>> {
    const error = this.#ended?.error;
    return error ? Promise.reject(error) : Promise.resolve({ done: true, value: undefined });
  }
}

export function headerOf(state: State): Header {
  return { revision: state.revision, era: state.era };
}

/** A watch that ends with `error` at once: refusals arrive like every other error of a watch. */
export function refusedWatch(error: HoldfastError): Watch {
  const created = Promise.reject(error);
  created.catch(() => {});
  const close = (): Promise<void> => Promise.resolve();
  return {
    created,
    requestProgress: () => {},
    close,
    [Symbol.asyncDispose]: close,
    [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }),
  };
}
