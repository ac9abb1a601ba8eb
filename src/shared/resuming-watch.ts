/**
 * A watch that outlives the engine below it: when that is replaced, the watch is created again on
 * the next one, from the first revision it has not told.
 */
import { type Deferred, deferred } from '../base/deferred.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Header, Revision } from '../model/transaction.ts';
import {
  isListened,
  type ListenedWatch,
  type Watch,
  type WatchBatch,
  type WatchListener,
  type WatchRequest,
} from '../model/watch.ts';

export interface WatchPlace {
  /** Opens the request on the engine of the moment, waiting for one if there is none. */
  open(request: WatchRequest): Promise<Watch>;
  /** Whether the error means that the engine is gone, and not that the watch is refused. */
  gone(error: HoldfastError): boolean;
}

export class ResumingWatch implements ListenedWatch {
  readonly created: Promise<Header>;
  readonly #created: Deferred<Header> = deferred();
  readonly #place: WatchPlace;
  readonly #request: WatchRequest;
  #next: Revision;
  #inner: Promise<Watch>;
  #iterator: AsyncIterator<WatchBatch> | undefined;
  #listened: ListenedWatch | undefined;
  /** A watch below that can only be iterated waits here for room. */
  #room: Deferred<void> | undefined;
  #progressWanted = false;
  #closed = false;

  constructor(request: WatchRequest, place: WatchPlace) {
    this.#request = request;
    this.#place = place;
    this.#next = Math.max(0, request.startRevision ?? 0);
    this.created = this.#created.promise;
    this.created.catch(() => {});
    this.#inner = this.#open();
    this.#inner.catch(() => {});
  }

  requestProgress(): void {
    this.#progressWanted = true;
    this.#inner.then((watch) => watch.requestProgress()).catch(() => {});
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#room?.resolve();
    this.#created.reject(new HoldfastError('closed', 'the watch was closed'));
    await this.#inner.then((watch) => watch.close()).catch(() => {});
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

  listen(listener: WatchListener): void {
    void this.#relay(listener);
  }

  resume(): void {
    this.#listened?.resume();
    this.#room?.resolve();
    this.#room = undefined;
  }

  /** Passes the watch of the moment on to the listener: directly where that can be. */
  async #relay(listener: WatchListener): Promise<void> {
    try {
      const watch = await this.#inner;
      if (this.#closed) return;
      if (isListened(watch)) this.#pass(watch, listener);
      else await this.#iterate(listener);
    } catch (error) {
      if (!this.#closed) listener.onEnd(HoldfastError.from(error));
    }
  }

  #pass(watch: ListenedWatch, listener: WatchListener): void {
    this.#listened = watch;
    watch.listen({
      get full() {
        return listener.full;
      },
      onBatch: (batch) => {
        const fresh = this.#fresh(batch);
        if (fresh && !this.#closed) listener.onBatch(fresh);
      },
      onEnd: (error) => {
        this.#listened = undefined;
        if (this.#closed) return;
        if (!this.#place.gone(error)) listener.onEnd(error);
        else {
          this.#reopen();
          void this.#relay(listener);
        }
      },
    });
  }

  async #iterate(listener: WatchListener): Promise<void> {
    for (;;) {
      const step = await this.#step();
      if (step.done) return;
      while (listener.full && !this.#closed) {
        this.#room ??= deferred();
        await this.#room.promise;
      }
      if (this.#closed) return;
      listener.onBatch(step.value);
    }
  }

  #reopen(): void {
    this.#iterator = undefined;
    this.#inner = this.#open();
    this.#inner.catch(() => {});
  }

  async #open(): Promise<Watch> {
    for (;;) {
      const negative = (this.#request.startRevision ?? 0) < 0;
      const from = negative ? this.#request : { ...this.#request, startRevision: this.#next };
      try {
        const watch = await this.#place.open(from);
        const header = await watch.created;
        // From "now" on means from the first time it stood.
        if (this.#next === 0) this.#next = header.revision + 1;
        this.#created.resolve(header);
        if (this.#progressWanted) watch.requestProgress();
        return watch;
      } catch (error) {
        const failure = HoldfastError.from(error);
        if (!this.#closed && this.#place.gone(failure)) continue;
        this.#created.reject(failure);
        throw failure;
      }
    }
  }

  async #step(): Promise<IteratorResult<WatchBatch>> {
    for (;;) {
      try {
        const watch = await this.#inner;
        this.#iterator ??= watch[Symbol.asyncIterator]();
        const step = await this.#iterator.next();
        if (step.done || this.#closed) return { done: true, value: undefined };
        const batch = this.#fresh(step.value);
        if (batch) return { done: false, value: batch };
      } catch (error) {
        if (this.#closed) return { done: true, value: undefined };
        const failure = HoldfastError.from(error);
        if (!this.#place.gone(failure)) throw failure;
        this.#reopen();
      }
    }
  }

  /** What of a batch has not been told yet; a batch of old events alone says nothing. */
  #fresh(batch: WatchBatch): WatchBatch | undefined {
    const [first] = batch.events;
    if (first === undefined) {
      this.#progressWanted = false;
      return batch;
    }
    if (first.kv.modRevision >= this.#next) {
      this.#next = batch.events[batch.events.length - 1]!.kv.modRevision + 1;
      return batch;
    }
    const events = batch.events.filter((event) => event.kv.modRevision >= this.#next);
    const last = events[events.length - 1];
    if (!last) return undefined;
    this.#next = last.kv.modRevision + 1;
    return { header: batch.header, events };
  }
}
