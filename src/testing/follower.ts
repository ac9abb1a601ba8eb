/** Reads a watch in the background and keeps everything, so that a test can wait for its parts. */
import { HoldfastError } from '../model/errors.ts';
import type { Event, Watch, WatchBatch, WatchRequest } from '../model/watch.ts';
import { eventually, PATIENCE_MS, within } from './waiting.ts';

export class Follower {
  readonly request: WatchRequest;
  readonly batches: WatchBatch[] = [];
  readonly #watch: Watch;
  readonly #done: Promise<void>;
  readonly #patienceMs: number;
  #ending: { readonly error: unknown } | 'end' | undefined;

  constructor(watch: Watch, request: WatchRequest, patienceMs: number = PATIENCE_MS) {
    this.request = request;
    this.#watch = watch;
    this.#patienceMs = patienceMs;
    this.#done = this.#pump();
  }

  get events(): readonly Event[] {
    return this.batches.flatMap((batch) => batch.events);
  }

  get ended(): boolean {
    return this.#ending !== undefined;
  }

  /** The error the stream ended with, if it did. */
  get error(): unknown {
    return typeof this.#ending === 'object' ? this.#ending.error : undefined;
  }

  /** Settles once the watch stands. */
  created(): Promise<unknown> {
    return within(this.#watch.created, 'the watch to stand', this.#patienceMs);
  }

  /** The first `count` events, once they are there; an early end of the stream is an error. */
  async take(count: number): Promise<readonly Event[]> {
    await this.until(() => this.events.length >= count, `${count} events`);
    return this.events.slice(0, count);
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    await eventually(
      () => condition() || this.ended,
      `${what}; the watch has told ${this.events.length} events`,
      this.#patienceMs,
    );
    if (condition()) return;
    throw this.error ?? new Error(`the watch ended before ${what}`);
  }

  /** The error the stream ends with. */
  async failure(): Promise<HoldfastError> {
    await within(this.#done, 'the watch to end with an error', this.#patienceMs);
    if (this.#ending === 'end') throw new Error('the watch ended without an error');
    if (HoldfastError.is(this.error)) return this.error;
    throw new Error(`the watch ended with ${String(this.error)}`);
  }

  /** Resolves when the stream ends; throws when it ended with an error. */
  async finished(): Promise<void> {
    await within(this.#done, 'the watch to end', this.#patienceMs);
    if (typeof this.#ending === 'object') throw this.#ending.error;
  }

  requestProgress(): void {
    this.#watch.requestProgress();
  }

  async close(): Promise<void> {
    await this.#watch.close();
    await within(this.#done, 'a closed watch to end', this.#patienceMs);
  }

  async #pump(): Promise<void> {
    try {
      for await (const batch of this.#watch) this.batches.push(batch);
      this.#ending = 'end';
    } catch (error) {
      this.#ending = { error };
    }
  }
}
