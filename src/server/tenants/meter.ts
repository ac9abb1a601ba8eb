/** What a tenant uses, held against what it may use. */
import type { Bytes } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import type { Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import { prefixRange } from '../../model/range.ts';
import type { RangeResult, TxnRequest, TxnResult } from '../../model/transaction.ts';
import type { Event, Watch } from '../../model/watch.ts';
import { costOfFound, costOfResults, costOfTxn, REQUEST_MS } from './cost.ts';
import { RateLimit } from './quota.ts';
import type { Seat } from './turns.ts';

/** What one tenant may use; absent: as much as there is. */
export interface TenantLimits {
  readonly keys?: number | undefined;
  readonly bytes?: number | undefined;
  readonly leases?: number | undefined;
  readonly watches?: number | undefined;
  readonly requestsPerSecond?: number | undefined;
  /** Writes under way at once; more wait for nobody and are refused. @default 1,024 */
  readonly writesInFlight?: number | undefined;
  /** Who asks for more than its share waits for its turn while others are there. @default true */
  readonly turns?: boolean | undefined;
}

const DEFAULT_WRITES_IN_FLIGHT = 1_024;
const GRANT_MS = 0.1;
const WATCH_MS = 0.1;

export interface MeterOptions {
  readonly engine: Engine;
  /** Below which the tenant's keys stand. */
  readonly keys: Bytes;
  readonly clock: Clock;
  readonly seat: Seat;
}

export class Meter {
  #limits: TenantLimits = {};
  readonly #clock: Clock;
  readonly #seat: Seat;
  #rate: RateLimit | undefined;
  readonly #usage: Usage;
  #writes = 0;
  #watches = 0;
  /** What this tenant's last range cost: the best guess at what its next one will. */
  #rangeMs = 0;

  constructor({ engine, keys, clock, seat }: MeterOptions, limits: TenantLimits) {
    this.#clock = clock;
    this.#seat = seat;
    this.#usage = new Usage(engine, keys);
    this.limit(limits);
  }

  /** From the next request on; what is in use already stays. */
  limit(limits: TenantLimits): void {
    const { requestsPerSecond: pace } = limits;
    // The same pace goes on where it stands: a reload is no fresh start.
    if (pace !== this.#limits.requestsPerSecond) {
      this.#rate = pace === undefined ? undefined : new RateLimit(pace, pace, this.#clock.now());
    }
    this.#limits = limits;
  }

  async range(work: () => Promise<RangeResult>, signal?: AbortSignal): Promise<RangeResult> {
    const guessMs = this.#rangeMs;
    const paced = async (): Promise<RangeResult> => {
      this.#pace();
      return work();
    };
    const result = await this.#inTurn(REQUEST_MS + guessMs, paced, signal);
    this.#rangeMs = costOfFound(result);
    this.#found(this.#rangeMs, guessMs);
    return result;
  }

  async txn(
    request: TxnRequest,
    work: () => Promise<TxnResult>,
    signal?: AbortSignal,
  ): Promise<TxnResult> {
    const reckonedMs = costOfTxn(request, this.#watches);
    const result = await this.#inTurn(reckonedMs, () => this.#write(request, work), signal);
    this.#found(costOfResults(result.results, this.#watches), 0);
    return result;
  }

  /** Something small that is written, and that no pace counts. */
  grant<T>(work: () => Promise<T>): Promise<T> {
    return this.#inTurn(GRANT_MS, work);
  }

  watch(open: () => Watch): Watch {
    const most = this.#limits.watches ?? Number.POSITIVE_INFINITY;
    if (this.#watches >= most) throw exhausted(`${most} watches`);
    this.#watches++;
    this.#seat.charge(WATCH_MS);
    let counted = true;
    const watch = open();
    const close = (): Promise<void> => {
      if (counted) this.#watches--;
      counted = false;
      return watch.close();
    };
    return {
      created: watch.created,
      requestProgress: () => watch.requestProgress(),
      close,
      [Symbol.asyncDispose]: close,
      [Symbol.asyncIterator]: () => watch[Symbol.asyncIterator](),
    };
  }

  close(): Promise<void> {
    return this.#usage.close();
  }

  /** Whether it held up the others is judged by what the tenant owed before. */
  #found(ms: number, guessedMs: number): void {
    this.#seat.held(ms);
    this.#seat.charge(ms - guessedMs);
  }

  /** Refusals take their turn too: who asks for too much and is refused at once asks again at once. */
  #inTurn<T>(costMs: number, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#limits.turns === false ? work() : this.#seat.run(costMs, work, signal);
  }

  async #write<T>(request: TxnRequest, work: () => Promise<T>): Promise<T> {
    this.#pace();
    const most = this.#limits.writesInFlight ?? DEFAULT_WRITES_IN_FLIGHT;
    if (this.#writes >= most) throw exhausted(`${most} writes at once`);
    this.#writes++;
    try {
      await this.#requireRoom(request);
      return await work();
    } finally {
      this.#writes--;
    }
  }

  #pace(): void {
    if (this.#rate?.take(this.#clock.now()) === false) {
      throw exhausted(`${this.#limits.requestsPerSecond} requests per second`);
    }
  }

  async #requireRoom(request: TxnRequest): Promise<void> {
    const { keys, bytes } = this.#limits;
    if (keys === undefined && bytes === undefined) return;
    const adding = bytesPut(request);
    if (adding === 0) return;
    await this.#usage.follow();
    if (keys !== undefined && this.#usage.keys >= keys) throw exhausted(`${keys} keys`);
    if (bytes !== undefined && this.#usage.bytes + adding > bytes)
      throw exhausted(`${bytes} bytes`);
  }
}

/** The most that either branch of a transaction may put. */
function bytesPut(request: TxnRequest): number {
  const branch = (operations: TxnRequest['success'] = []): number => {
    let bytes = 0;
    for (const operation of operations) {
      if (operation.type === 'put') bytes += operation.key.length + (operation.value?.length ?? 0);
      if (operation.type === 'txn') bytes += bytesPut(operation);
    }
    return bytes;
  };
  return Math.max(branch(request.success), branch(request.failure));
}

/**
 * Keys and bytes below a prefix: counted once, then kept up to date by a watch. A bound may be
 * overrun by what is under way, never by more.
 */
class Usage {
  keys = 0;
  bytes = 0;
  readonly #engine: Engine;
  readonly #prefix: Bytes;
  #following: Promise<void> | undefined;
  #watch: Watch | undefined;

  constructor(engine: Engine, prefix: Bytes) {
    this.#engine = engine;
    this.#prefix = prefix;
  }

  follow(): Promise<void> {
    this.#following ??= this.#start();
    return this.#following;
  }

  async close(): Promise<void> {
    await this.#watch?.close();
  }

  async #start(): Promise<void> {
    const range = prefixRange(this.#prefix);
    const { kvs, header } = await this.#engine.range(range);
    this.keys = 0;
    this.bytes = 0;
    for (const kv of kvs) this.#add(kv, 1);
    const watch = this.#engine.watch({
      ...range,
      startRevision: header.revision + 1,
      prevKv: true,
    });
    this.#watch = watch;
    void this.#read(watch);
  }

  /** A watch that is disturbed leaves the count in doubt: the next write counts anew. */
  async #read(watch: Watch): Promise<void> {
    try {
      for await (const { events } of watch) for (const event of events) this.#apply(event);
    } catch {
      this.#following = undefined;
    }
  }

  #apply({ type, kv, prevKv }: Event): void {
    if (prevKv) this.#add(prevKv, -1);
    if (type === 'put') this.#add(kv, 1);
  }

  #add({ key, value }: { readonly key: Bytes; readonly value: Bytes }, sign: 1 | -1): void {
    this.keys += sign;
    this.bytes += sign * (key.length - this.#prefix.length + value.length);
  }
}

export function exhausted(what: string): HoldfastError {
  return new HoldfastError(
    'resource-exhausted',
    `this tenant may use ${what}; the request was refused`,
  );
}
