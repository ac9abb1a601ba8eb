/**
 * Requests that queue while a batch is under way travel together in the next one.
 *
 * Writes have one lane with one batch under way: the row of truth would line them up anyway, and
 * the order in which a process asked is the order in which it is served. Each batch of writes has
 * a number; the database remembers the last number of each client with its answer. So a batch whose
 * answer was lost is simply sent again under its number: it is applied if it was not, and answered
 * from memory if it was. Reads have a lane with a few batches at once and no numbers.
 *
 * Invariant: a caller is told `rejected` only if no attempt can have been applied.
 */
import { type Clock, sleep } from '../../base/clock.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import type { Random } from '../../base/random.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';
import type { Json } from './encode.ts';
import type { Answer, Exchange, Verdict } from './exchange.ts';
import { ExchangeError } from './faults.ts';

export interface Reply<T> {
  readonly head: Answer;
  readonly answer: T;
}

export interface LaneOptions {
  readonly exchange: Exchange;
  readonly clock: Clock;
  readonly random: Random;
  readonly callTimeoutMs: number;
  /** Who sends, for lanes that write. */
  readonly client?: string;
  readonly concurrency: number;
}

interface Item {
  readonly json: Json;
  readonly blind: boolean;
  readonly bytes: number;
  readonly deadlineMs: number;
  settle(result: Reply<unknown> | HoldfastError): void;
  batch: Batch | undefined;
  settled: boolean;
}

interface Batch {
  readonly items: readonly Item[];
  /** An attempt may have been applied. */
  maybe: boolean;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const ITEMS_MAX = 128;
const BYTES_MAX = 4 * 2 ** 20;
const BACKOFF_MS = 20;
const BACKOFF_MS_MAX = 500;

export class Lane {
  readonly #options: LaneOptions;
  readonly #writes: boolean;
  #queue: Item[] = [];
  readonly #open = new Set<Item>();
  #running = 0;
  #seq = 0;
  #closed: HoldfastError | undefined;
  #cancelTimer: (() => void) | undefined;
  #idle: Deferred<void> | undefined;
  readonly #closing = new AbortController();

  constructor(options: LaneOptions) {
    this.#options = options;
    this.#writes = options.client !== undefined;
  }

  submit<T>(
    json: Json,
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly bytes?: number;
      readonly blind?: boolean;
    } = {},
  ): Promise<Reply<T>> {
    const { signal, bytes = 0, blind = false } = options;
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed);
      if (signal?.aborted) return reject(abortError(signal, 'rejected'));
      const onAbort = (): void => item.settle(abortError(signal!, this.#outcome(item)));
      const item: Item = {
        json,
        blind,
        bytes,
        deadlineMs: this.#options.clock.now() + this.#options.callTimeoutMs,
        batch: undefined,
        settled: false,
        settle: (result) => {
          if (item.settled) return;
          item.settled = true;
          this.#open.delete(item);
          signal?.removeEventListener('abort', onAbort);
          if (result instanceof HoldfastError) reject(result);
          else resolve(result as Reply<T>);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#open.add(item);
      this.#queue.push(item);
      this.#armTimer();
      this.#start();
    });
  }

  /** Refuses what comes and what waits; what is under way ends as unknown if it may have been. */
  close(error: HoldfastError): void {
    if (this.#closed) return;
    this.#closed = error;
    this.#cancelTimer?.();
    for (const item of [...this.#open]) item.settle(this.#ended(item, error.code, error.message));
    this.#closing.abort();
  }

  /** Settles when no batch is under way any more. */
  settled(): Promise<void> {
    if (this.#running === 0) return Promise.resolve();
    this.#idle ??= deferred();
    return this.#idle.promise;
  }

  #start(): void {
    if (this.#running >= this.#options.concurrency || this.#queue.length === 0) return;
    this.#running++;
    void this.#pump();
  }

  async #pump(): Promise<void> {
    for (;;) {
      // Whoever asks in the same turn, or goes on now that the last batch is answered, travels
      // together.
      await turn();
      const batch = this.#take();
      if (!batch) break;
      await this.#deliver(batch);
    }
    this.#running--;
    if (this.#running === 0) this.#idle?.resolve();
    this.#start();
  }

  #take(): Batch | undefined {
    this.#queue = this.#queue.filter((item) => !item.settled);
    const first = this.#queue[0];
    if (!first) return undefined;
    let bytes = 0;
    let count = 0;
    for (const item of this.#queue) {
      bytes += item.bytes;
      if (count > 0 && (count >= ITEMS_MAX || bytes > BYTES_MAX || item.blind !== first.blind))
        break;
      count++;
    }
    return this.#bind(this.#queue.splice(0, count));
  }

  #bind(items: readonly Item[]): Batch {
    const batch: Batch = { items, maybe: false };
    for (const item of items) item.batch = batch;
    return batch;
  }

  async #deliver(batch: Batch): Promise<void> {
    const { random, clock } = this.#options;
    const seq = ++this.#seq;
    for (let backoffMs = BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, BACKOFF_MS_MAX)) {
      // Nobody waits any more: whether it was applied is what the callers were told: unknown.
      if (batch.items.every((item) => item.settled)) return;
      try {
        this.#distribute(batch, await this.#attempt(batch, seq));
        return;
      } catch (error) {
        const next = this.#afterwards(batch, error);
        if (next === 'apart') return await this.#apart(batch.items);
        if (next === 'over') return;
      }
      await sleep(clock, backoffMs * (0.5 + random.next()), this.#closing.signal).catch(() => {});
    }
  }

  async #attempt(batch: Batch, seq: number): Promise<Answer & Verdict> {
    const { exchange, client } = this.#options;
    const items = batch.items.map((item) => item.json);
    const blind = batch.items[0]!.blind;
    const signal = this.#closing.signal;
    if (!this.#writes) return exchange.ask('read', { items }, { blind, signal });
    // From here until the answer it may be applied; a refusal that proves otherwise takes it back.
    let before = batch.maybe;
    batch.maybe = true;
    try {
      const answer = await exchange.ask('apply', { client, seq, items }, { blind });
      if (!answer.large) return answer;
      before = true;
      return await exchange.ask('outcome', { client, seq }, { blind: true });
    } catch (error) {
      if (error instanceof ExchangeError && !error.fault.maybe) batch.maybe = before;
      throw error;
    }
  }

  #afterwards(batch: Batch, error: unknown): 'again' | 'apart' | 'over' {
    const exchanged = error instanceof ExchangeError;
    if (exchanged && error.fault.retry && !this.#closed) return 'again';
    // One of them may be at fault; the others shall not suffer for it.
    const strange = exchanged && error.fault.code === 'internal' && !batch.maybe;
    if (strange && batch.items.length > 1) return 'apart';
    for (const item of batch.items) {
      item.settle(exchanged ? error.told(batch.maybe) : HoldfastError.from(error, 'unknown'));
    }
    return 'over';
  }

  async #apart(items: readonly Item[]): Promise<void> {
    for (const item of items) await this.#deliver(this.#bind([item]));
  }

  #distribute(batch: Batch, answer: Answer & Verdict): void {
    if (answer.superseded) {
      const message = 'a later batch of this client has been applied; this one cannot be asked for';
      for (const item of batch.items) {
        item.settle(new HoldfastError('internal', message, { outcome: 'unknown' }));
      }
      return;
    }
    for (const [i, item] of batch.items.entries()) {
      item.settle({ head: answer, answer: answer.a[i] });
    }
  }

  #outcome(item: Item): 'rejected' | 'unknown' {
    return item.batch?.maybe ? 'unknown' : 'rejected';
  }

  #ended(item: Item, code: HoldfastError['code'], message: string): HoldfastError {
    return new HoldfastError(code, message, { outcome: this.#outcome(item) });
  }

  /** All items have the same time, so the first one in is the first one due. */
  #armTimer(): void {
    if (this.#cancelTimer) return;
    const [first] = this.#open;
    if (!first) return;
    this.#cancelTimer = this.#options.clock.wakeAt(first.deadlineMs, () => {
      this.#cancelTimer = undefined;
      const now = this.#options.clock.now();
      for (const item of [...this.#open]) {
        if (item.deadlineMs > now) break;
        item.settle(this.#ended(item, 'deadline-exceeded', 'the database did not answer in time'));
      }
      this.#armTimer();
    });
  }
}
