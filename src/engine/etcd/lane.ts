/**
 * Transactions that need no revision for themselves travel together: while a request is under way,
 * those that come wait for its answer, and go as one.
 *
 * Nobody waits when nothing is under way, nor longer than a few milliseconds. Transactions whose keys
 * meet go in different requests. Outcomes stay each caller's own: whoever gives up before the request
 * is sent is `rejected`, later `unknown`; a request without an answer is `unknown` for all in it. When
 * the server refuses a request for what one of them asks, nothing has happened, and each goes alone.
 */
import type { Clock } from '../../base/clock.ts';
import { abortError, type ErrorCode, HoldfastError } from '../../model/errors.ts';
import type { TxnRequest, TxnResult } from '../../model/transaction.ts';
import { BUNDLE_OPERATIONS } from './bundle.ts';
import { type Footprint, footprint, Ground } from './footprint.ts';

export interface Travel {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface LaneOptions {
  readonly clock: Clock;
  /** The server's limits for one request. */
  readonly operationsMax: number;
  readonly bytesMax: number;
  /** From the call to its answer. */
  readonly callTimeoutMs: number;
  readonly sendOne: (request: TxnRequest, travel: Travel) => Promise<TxnResult>;
  readonly sendAll: (
    requests: readonly TxnRequest[],
    footprints: readonly Footprint[],
    travel: Travel,
  ) => Promise<readonly TxnResult[]>;
}

interface Item {
  readonly request: TxnRequest;
  readonly signal: AbortSignal | undefined;
  readonly sinceMs: number;
  readonly resolve: (answer: TxnResult) => void;
  readonly reject: (error: unknown) => void;
  /** Told of the caller's abort, unless the request itself is. */
  onAbort: (() => void) | undefined;
  /** No answer can change any more what the caller was told. */
  settled: boolean;
}

/** What goes in one request. */
interface Company {
  readonly items: Item[];
  readonly footprints: Footprint[];
  readonly ground: Ground;
  bytes: number;
  operations: number;
}

/** Requests under way before the next transaction waits. */
const UNDER_WAY = 1;
/** The longest that a transaction waits for an answer to others. */
const PATIENCE_MS = 10;
/** So many companies are asked whether there is room; a line of conflicts must not cost its square. */
const ASKED = 4;

/** What the server may say because of a single transaction. */
const FAULT_OF_ONE: ReadonlySet<ErrorCode> = new Set([
  ...(['lease-not-found', 'key-not-found', 'compacted', 'future-revision'] as const),
  ...(['permission-denied', 'no-space', 'key-empty', 'duplicate-key'] as const),
  ...(['value-provided', 'lease-provided', 'invalid-argument'] as const),
  ...(['too-many-operations', 'request-too-large'] as const),
]);

export class Lane {
  readonly #options: LaneOptions;
  #waiting: Item[] = [];
  #underWay = 0;
  /** An answer has come; whoever asks in this turn goes with those that wait. */
  #turnDue = false;
  #cancelPatience: (() => void) | undefined;
  #closed: HoldfastError | undefined;

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  submit(request: TxnRequest, signal: AbortSignal | undefined): Promise<TxnResult> {
    return new Promise((resolve, reject) => {
      const sinceMs = this.#options.clock.now();
      const item = {
        request,
        signal,
        sinceMs,
        resolve,
        reject,
        onAbort: undefined,
        settled: false,
      };
      if (this.#underWay < UNDER_WAY && !this.#turnDue) void this.#sendOne(item);
      else this.#wait(item);
    });
  }

  /** Those that wait are rejected; those under way end with the channel. */
  close(error: HoldfastError): void {
    this.#closed = error;
    this.#cancelPatience?.();
    for (const item of this.#waiting.splice(0)) fail(item, error);
  }

  #wait(item: Item): void {
    this.#waiting.push(item);
    if (item.signal) this.#listen(item, item.signal);
    if (this.#turnDue || this.#cancelPatience) return;
    const { clock } = this.#options;
    this.#cancelPatience = clock.wakeAt(item.sinceMs + PATIENCE_MS, () => this.#leave());
  }

  #listen(item: Item, signal: AbortSignal): void {
    item.onAbort = () => {
      const at = this.#waiting.indexOf(item);
      if (at >= 0) this.#waiting.splice(at, 1);
      fail(item, abortError(signal, at >= 0 ? 'rejected' : 'unknown'));
    };
    signal.addEventListener('abort', item.onAbort, { once: true });
  }

  /** Once per turn: what the callers of the answers ask next comes in the same turn. */
  #leaveSoon(): void {
    if (this.#turnDue || this.#closed) return;
    this.#turnDue = true;
    setImmediate(() => {
      this.#turnDue = false;
      this.#leave();
    });
  }

  #leave(): void {
    this.#cancelPatience?.();
    this.#cancelPatience = undefined;
    const { operationsMax, bytesMax } = this.#options;
    const companies: Company[] = [];
    for (const item of this.#waiting.splice(0)) {
      const own = footprint(item.request);
      const room = companies.slice(-ASKED).find((one) => joins(one, own, operationsMax, bytesMax));
      const company = room ?? found(own);
      if (!room) companies.push(company);
      company.items.push(item);
      company.footprints.push(own);
    }
    for (const company of companies) {
      const [first] = company.items;
      void (company.items.length === 1 ? this.#sendOne(first!) : this.#sendAll(company));
    }
  }

  async #sendOne(item: Item): Promise<void> {
    forget(item);
    this.#underWay++;
    try {
      const travel = { timeoutMs: this.#leftMs(item), signal: item.signal };
      succeed(item, await this.#options.sendOne(item.request, travel));
    } catch (error) {
      fail(item, error);
    } finally {
      this.#underWay--;
      if (this.#underWay > 0 || this.#waiting.length > 0) this.#leaveSoon();
    }
  }

  async #sendAll({ items, footprints }: Company): Promise<void> {
    this.#underWay++;
    try {
      const requests = items.map(({ request }) => request);
      const travel = { timeoutMs: this.#leftMs(items[0]!) };
      const answers = await this.#options.sendAll(requests, footprints, travel);
      for (const [i, item] of items.entries()) succeed(item, answers[i]!);
    } catch (error) {
      this.#failed(items, error);
    } finally {
      this.#underWay--;
      this.#leaveSoon();
    }
  }

  #failed(items: readonly Item[], error: unknown): void {
    const { code, outcome } = HoldfastError.from(error);
    const again = outcome === 'rejected' && FAULT_OF_ONE.has(code) && !this.#closed;
    for (const item of items) {
      if (!again) fail(item, error);
      else if (!item.settled) void this.#sendOne(item);
    }
  }

  /** The first of a company has waited longest: it decides for all. */
  #leftMs({ sinceMs }: Item): number {
    const { clock, callTimeoutMs } = this.#options;
    return Math.max(1, callTimeoutMs - (clock.now() - sinceMs));
  }
}

function found(own: Footprint): Company {
  const ground = new Ground();
  ground.take(own.touched);
  return { items: [], footprints: [], ground, bytes: own.bytes, operations: own.operations };
}

function joins(company: Company, own: Footprint, operationsMax: number, bytesMax: number): boolean {
  const operations = Math.max(company.operations, own.operations);
  const bytes = company.bytes + own.bytes;
  if (BUNDLE_OPERATIONS + company.items.length + 1 + operations > operationsMax) return false;
  if (bytes > bytesMax || !company.ground.take(own.touched)) return false;
  company.bytes = bytes;
  company.operations = operations;
  return true;
}

function forget(item: Item): void {
  if (item.onAbort) item.signal?.removeEventListener('abort', item.onAbort);
  item.onAbort = undefined;
}

function succeed(item: Item, answer: TxnResult): void {
  if (item.settled) return;
  item.settled = true;
  forget(item);
  item.resolve(answer);
}

function fail(item: Item, error: unknown): void {
  if (item.settled) return;
  item.settled = true;
  forget(item);
  item.reject(error);
}
