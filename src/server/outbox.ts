/**
 * Many producers, one stream of answers: each waits while the reader on the other side is slow, so
 * a slow client costs a bounded amount of memory and holds up nobody else.
 */
import { type Deferred, deferred } from '../base/deferred.ts';

export class Outbox<T> implements AsyncIterable<T> {
  readonly #capacity: number;
  readonly #weigh: (item: T) => number;
  #items: T[] = [];
  #weight = 0;
  #reader: Deferred<void> | undefined;
  #room: Deferred<void> | undefined;
  #ended = false;
  #error: unknown;

  /** So much may wait, and as much again be on its way to the reader. */
  constructor(capacity: number, weigh: (item: T) => number) {
    this.#capacity = capacity;
    this.#weigh = weigh;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Adds an answer; wait for what it returns, if it returns something, before the next one. */
  push(item: T): Promise<void> | undefined {
    if (this.#ended) return undefined;
    this.#items.push(item);
    this.#weight += this.#weigh(item);
    this.#wakeReader();
    if (this.#weight < this.#capacity) return undefined;
    this.#room ??= deferred();
    return this.#room.promise;
  }

  /** Ends the stream after what was pushed; with an error it throws there. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wakeReader();
    this.#room?.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    try {
      for (;;) {
        const items = this.#items;
        this.#items = [];
        this.#weight = 0;
        this.#room?.resolve();
        this.#room = undefined;
        yield* items;
        if (this.#items.length > 0) continue;
        if (this.#ended) break;
        this.#reader = deferred();
        await this.#reader.promise;
      }
      if (this.#error !== undefined) throw this.#error;
    } finally {
      this.end();
    }
  }

  #wakeReader(): void {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.resolve();
  }
}
