/**
 * What a case of the recipe suite works with: clients on one store, a connection that can be cut,
 * and time that passes when the case says so. On a real server time is real, and a case takes as
 * long as its leases need.
 */
import type { Clock } from '../../base/clock.ts';
import { seededRandom } from '../../base/random.ts';
import { Client, type ClientOptions } from '../../client.ts';
import type { CallOptions, Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { LeaseGrant, LeaseGrantRequest, LeaseInfo, LeaseRenewal } from '../../model/lease.ts';
import type {
  LeaseId,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Watch, WatchRequest } from '../../model/watch.ts';
import { fail } from '../conformance/expect.ts';
import { EngineWrapper } from '../engine-wrapper.ts';
import { turn } from '../waiting.ts';

/** A store for one case. */
export interface Stage {
  readonly engine: Engine;
  readonly clock: Clock;
  /** Keeps cases apart that share a store. */
  readonly namespace: string;
  /** A TTL that the engine can do and the case can wait for. */
  readonly ttlMs: number;
  /**
   * Lets time pass; where the clock is moved by hand, it calls `settle` after each alarm. `isIdle`:
   * no request waits for its answer.
   */
  pass(ms: number, settle: () => Promise<void>, isIdle: () => boolean): Promise<void>;
  dispose(): Promise<void>;
}

export type OpenStage = () => Promise<Stage>;

export interface RecipeCase {
  readonly group: string;
  readonly name: string;
  run(world: World): Promise<void>;
}

/** Between a client and the store; cut, it neither delivers nor answers. */
export class Line extends EngineWrapper {
  #cut = false;
  /** Answers that are lost although the request was carried out, by count from now. */
  loseAnswers = 0;
  requests = 0;
  /** Requests that wait for their answer. */
  inflight = 0;

  get cut(): boolean {
    return this.#cut;
  }

  set cut(cut: boolean) {
    this.#cut = cut;
  }

  override range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    return this.#send(() => super.range(request, options));
  }

  override txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    return this.#send(() => super.txn(request, options));
  }

  override watch(request: WatchRequest, options?: CallOptions): Watch {
    if (this.#cut) this.requests++;
    return super.watch(request, options);
  }

  override grantLease(request: LeaseGrantRequest, options?: CallOptions): Promise<LeaseGrant> {
    return this.#send(() => super.grantLease(request, options));
  }

  override keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal> {
    return this.#send(() => super.keepAlive(id, options));
  }

  override leaseInfo(
    id: LeaseId,
    options?: CallOptions & { readonly keys?: boolean },
  ): Promise<LeaseInfo> {
    return this.#send(() => super.leaseInfo(id, options));
  }

  override async close(): Promise<void> {}

  async #send<T>(request: () => Promise<T>): Promise<T> {
    this.requests++;
    if (this.#cut)
      throw new HoldfastError('unavailable', 'the line is cut', { outcome: 'unknown' });
    this.inflight++;
    const answer = await request().finally(() => this.inflight--);
    if (this.loseAnswers > 0) {
      this.loseAnswers--;
      throw new HoldfastError('unavailable', 'the answer was lost', { outcome: 'unknown' });
    }
    return answer;
  }
}

/** A request may rightly wait for long, such as one that an engine never answers. */
const IDLE_TURNS_MAX = 1_000;

export class World {
  readonly stage: Stage;
  readonly #clients: { readonly client: Client; readonly line: Line }[] = [];

  constructor(stage: Stage) {
    this.stage = stage;
  }

  get ttlMs(): number {
    return this.stage.ttlMs;
  }

  /** A client as another process would have it: its own line, its own sessions. */
  connect(holder: string, options: ClientOptions = {}): { client: Client; line: Line } {
    const { engine, clock, namespace, ttlMs } = this.stage;
    const line = new Line(engine);
    const random = seededRandom(this.#clients.length + 1_000 * holder.length);
    const client = new Client(
      line,
      {
        clock,
        random: mixed(random.integer(0, 2 ** 31)),
        namespace,
        ttl: ttlMs,
        holder,
        ...options,
      },
      false,
    );
    this.#clients.push({ client, line });
    return { client, line };
  }

  client(holder = 'someone', options: ClientOptions = {}): Client {
    return this.connect(holder, options).client;
  }

  /** Lets time pass; answers that are due have come when it returns, however slow the disk. */
  pass(ms: number): Promise<void> {
    return this.stage.pass(
      ms,
      () => this.#settle(),
      () => this.#isIdle,
    );
  }

  get #isIdle(): boolean {
    return this.#clients.every(({ line }) => line.inflight === 0);
  }

  async #settle(): Promise<void> {
    for (let idle = 0, turns = 0; idle < 2 && turns < IDLE_TURNS_MAX; turns++) {
      idle = this.#isIdle ? idle + 1 : 0;
      await turn();
    }
  }

  /** Lets time pass in small steps until the condition holds; fails after `withinMs`. */
  async until(
    condition: () => boolean,
    what: string,
    withinMs: number = this.ttlMs * 5,
  ): Promise<void> {
    const step = this.ttlMs / 20;
    for (let passed = 0; !condition(); passed += step) {
      if (passed > withinMs) fail(`waited ${withinMs} ms of the clock for: ${what}`);
      await this.pass(step);
    }
  }

  /** The result of work that needs time to pass. */
  async finish<T>(work: Promise<T>, what: string, withinMs?: number): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    work.then(done, done);
    await this.until(() => settled, what, withinMs);
    return await work;
  }

  async dispose(): Promise<void> {
    for (const { line } of this.#clients) {
      line.cut = false;
      line.loseAnswers = 0;
    }
    const closing = Promise.all(this.#clients.map(({ client }) => client.close()));
    await this.finish(closing, 'the clients to close', this.ttlMs * 20);
    await this.stage.dispose();
  }
}

let worlds = 0;

/** Clients of one process must not draw the same lease ids, whatever store they share. */
function mixed(seed: number): ReturnType<typeof seededRandom> {
  return seededRandom(seed ^ (worlds++ * 0x9e3779b9));
}

/** Remembers whether and how a promise settled, without waiting for it. */
export function observed<T>(work: Promise<T>): {
  settled: boolean;
  value: T | undefined;
  error: unknown;
} {
  const seen: { settled: boolean; value: T | undefined; error: unknown } = {
    settled: false,
    value: undefined,
    error: undefined,
  };
  work.then(
    (value) => {
      seen.settled = true;
      seen.value = value;
    },
    (error: unknown) => {
      seen.settled = true;
      seen.error = error;
    },
  );
  return seen;
}
