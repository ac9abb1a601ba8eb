/**
 * A bounded queue between a producer that must never wait and one consumer that iterates.
 *
 * `push` answers false when the queue is full; the producer decides what that means. The queue
 * ends by `fail` (the consumer's next step throws, after what is already queued) or by `end`.
 */
import { type Deferred, deferred } from './deferred.ts';

export class BoundedQueue<T> implements AsyncIterable<T> {
  readonly #capacity: number;
  #items: T[] = [];
  #head = 0;
  #waiter: Deferred<IteratorResult<T>> | undefined;
  #closed: { readonly error: unknown; readonly failed: boolean } | undefined;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#items.length - this.#head;
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  push(item: T): boolean {
    if (this.#closed) return false;
    if (this.#waiter) {
      const waiter = this.#waiter;
      this.#waiter = undefined;
      waiter.resolve({ done: false, value: item });
      return true;
    }
    if (this.size >= this.#capacity) return false;
    this.#items.push(item);
    return true;
  }

  end(): void {
    this.#close({ error: undefined, failed: false });
  }

  fail(error: unknown): void {
    this.#close({ error, failed: true });
  }

  /** Forgets what is queued; a producer that restarts elsewhere uses it. */
  clear(): void {
    this.#items = [];
    this.#head = 0;
  }

  next(): Promise<IteratorResult<T>> {
    if (this.size > 0) return Promise.resolve({ done: false, value: this.#shift() });
    if (this.#closed) return this.#ending(this.#closed);
    if (this.#waiter) return Promise.reject(new Error('a queue has one consumer at a time'));
    this.#waiter = deferred();
    return this.#waiter.promise;
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return {
      next: () => this.next(),
      return: async () => {
        this.end();
        this.clear();
        return { done: true, value: undefined };
      },
    };
  }

  #shift(): T {
    const item = this.#items[this.#head]!;
    this.#head++;
    if (this.#head > 1_024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    } else if (this.#head === this.#items.length) this.clear();
    return item;
  }

  #close(closed: { readonly error: unknown; readonly failed: boolean }): void {
    if (this.#closed) return;
    this.#closed = closed;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (!waiter) return;
    if (closed.failed) waiter.reject(closed.error);
    else waiter.resolve({ done: true, value: undefined });
  }

  #ending(closed: {
    readonly error: unknown;
    readonly failed: boolean;
  }): Promise<IteratorResult<T>> {
    return closed.failed
      ? Promise.reject(closed.error)
      : Promise.resolve({ done: true, value: undefined });
  }
}
