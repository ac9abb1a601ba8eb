/** A watch that can be cut, whose batches can be held back. */
import type { HoldfastError } from '../model/errors.ts';
import type { Header } from '../model/transaction.ts';
import type { Watch, WatchBatch } from '../model/watch.ts';

export class FaultyWatch implements Watch {
  readonly created: Promise<Header>;
  readonly #inner: Watch;
  readonly #hold: () => Promise<void>;
  readonly #ended: (watch: FaultyWatch) => void;
  #cut: HoldfastError | undefined;

  /** `hold` is awaited before each batch is handed on, `ended` called when nobody reads any more. */
  constructor(inner: Watch, hold: () => Promise<void>, ended: (watch: FaultyWatch) => void) {
    this.#inner = inner;
    this.#hold = hold;
    this.#ended = ended;
    this.created = inner.created.then(async (header) => {
      await hold();
      if (this.#cut) throw this.#cut;
      return header;
    });
    this.created.catch(() => {});
  }

  /** Breaks the watch: what was not handed on yet is lost, the reader gets `error`. */
  cut(error: HoldfastError): void {
    this.#cut ??= error;
    this.#ended(this);
    void this.#inner.close();
  }

  requestProgress(): void {
    this.#inner.requestProgress();
  }

  async close(): Promise<void> {
    this.#ended(this);
    await this.#inner.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<WatchBatch> {
    const batches = this.#inner[Symbol.asyncIterator]();
    return {
      next: async () => {
        if (this.#cut) throw this.#cut;
        const result = await batches.next();
        await this.#hold();
        if (this.#cut) throw this.#cut;
        return result;
      },
      return: async () => {
        await this.close();
        return { done: true, value: undefined };
      },
    };
  }
}

/** A watch that was refused before it reached the engine. */
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
