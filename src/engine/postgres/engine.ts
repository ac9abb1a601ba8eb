/**
 * The engine contract in SQL: many processes, one database, no session state.
 *
 * Every verb is one message to the database (see `exchange.ts`); writes and reads gather in lanes
 * (`lane.ts`), watches follow the log (`follower.ts`), and the database itself evaluates
 * (`procedures.ts`). Time is the database's clock; this process's clock only decides when to ask.
 */
import { abortable } from '../../base/abort.ts';
import { type Clock, sleep } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';
import {
  LEASE_ID_MAX,
  LEASE_TTL_MS_MAX,
  type LeaseGrant,
  type LeaseGrantRequest,
  type LeaseInfo,
  type LeaseRenewal,
} from '../../model/lease.ts';
import { keyAfter } from '../../model/range.ts';
import { ERA_MAX } from '../../model/token.ts';
import type {
  Header,
  LeaseId,
  RangeRequest,
  RangeResult,
  Revision,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Watch, WatchRequest } from '../../model/watch.ts';
import { checkRange, checkTxn, mayWrite } from '../../mvcc/check.ts';
import { HASH_OF_NOTHING, hashFurther } from '../../mvcc/layout.ts';
import type { CallOptions, Capabilities, Engine, Operator, Status } from '../contract.ts';
import type { Driver } from './driver.ts';
import {
  decodeRange,
  decodeResults,
  encodeRange,
  encodeTxn,
  type Json,
  type PieceJson,
  unhex,
} from './encode.ts';
import type { Answer, Exchange } from './exchange.ts';
import { Follower } from './follower.ts';
import { Lane, type Reply } from './lane.ts';
import { Sweeper } from './sweeper.ts';

export interface PostgresEngineOptions {
  readonly driver: Driver;
  readonly exchange: Exchange;
  readonly capabilities: Capabilities;
  readonly schema: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly callTimeoutMs: number;
  readonly pollMs: number;
  readonly retainRevisions: number;
  readonly progressIntervalMs: number;
}

/** What an item answers: its result, or `e`, why it was refused. */
interface ItemAnswer extends PieceJson {
  readonly e?: string;
  readonly v?: number;
  readonly l?: string;
  readonly h?: number;
  readonly ttl?: number;
  readonly left?: number;
  readonly keys?: readonly string[];
  readonly ids?: readonly string[];
  readonly size?: number;
  readonly alarms?: number;
  readonly version?: string;
}

/** While notifications come, the log is looked at this often all the same. */
const CALM_MS = 1_000;
const LISTEN_AGAIN_MS = 1_000;
const RETAIN_SLACK = 1.25;
const ALARMS = { 'no-space': 1, corrupt: 2 } as const;

export class PostgresEngine implements Engine {
  readonly capabilities: Capabilities;
  readonly operator: Operator;
  readonly #options: PostgresEngineOptions;
  readonly #exchange: Exchange;
  readonly #writes: Lane;
  readonly #reads: Lane;
  readonly #follower: Follower;
  readonly #sweeper: Sweeper;
  readonly #closing = new AbortController();
  #closed: Promise<void> | undefined;
  #stopListening: () => Promise<void> = async () => {};
  #tidying: Promise<void> | undefined;
  #cancelTick: () => void = () => {};

  constructor(options: PostgresEngineOptions) {
    const { exchange, clock, random, callTimeoutMs } = options;
    this.#options = options;
    this.#exchange = exchange;
    this.capabilities = options.capabilities;
    const lane = { exchange, clock, random, callTimeoutMs };
    this.#writes = new Lane({ ...lane, client: uuid(random), concurrency: 1 });
    this.#reads = new Lane({ ...lane, concurrency: 3 });
    this.#follower = new Follower({ exchange, clock, pollMs: options.pollMs, calmMs: CALM_MS });
    this.#sweeper = new Sweeper({
      ...{ clock, random },
      sweep: async () => (await this.#write({ o: 'sweep' })).head,
      look: () => exchange.ask('read', { items: [] }),
    });
    exchange.onAnswer((answer) => this.#heard(answer));
    this.operator = this.#operator();
    this.#sweeper.start();
    this.#scheduleTick();
    void this.#listen();
  }

  async range(request: RangeRequest, call: CallOptions = {}): Promise<RangeResult> {
    this.#enter();
    checkRange(request);
    const { head, answer } = await this.#read(encodeRange(request), call);
    return { header: headerOf(head), ...decodeRange(answer) };
  }

  async txn(request: TxnRequest, call: CallOptions = {}): Promise<TxnResult> {
    this.#enter();
    checkTxn(request, this.capabilities);
    const json = encodeTxn(request);
    const { head, answer } = mayWrite(request)
      ? await this.#write(json, call, weigh(request))
      : await this.#read(json, call);
    const succeeded = answer.ok === true;
    const taken = (succeeded ? request.success : request.failure) ?? [];
    return {
      header: { revision: answer.h ?? head.h, era: head.era },
      succeeded,
      results: decodeResults(taken, answer.o ?? []),
    };
  }

  watch(request: WatchRequest, { signal }: CallOptions = {}): Watch {
    const refusal = this.#closed
      ? closedError()
      : signal?.aborted && abortError(signal, 'rejected');
    const watcher = this.#follower.watch(request, refusal || undefined);
    if (signal && !refusal) {
      const onAbort = (): void => watcher.fail(abortError(signal, 'rejected'));
      signal.addEventListener('abort', onAbort, { once: true });
      watcher.onEnd(() => signal.removeEventListener('abort', onAbort));
    }
    return watcher;
  }

  async grantLease(request: LeaseGrantRequest, call: CallOptions = {}): Promise<LeaseGrant> {
    this.#enter();
    const id = request.id ? checkLeaseId(request.id, true) : randomLeaseId(this.#options.random);
    const ttlMs = this.#grantedTtl(request.ttlMs);
    const { head } = await this.#write({ o: 'grant', id: String(id), ttl: ttlMs }, call);
    return { header: headerOf(head), id, ttlMs };
  }

  async keepAlive(id: LeaseId, call: CallOptions = {}): Promise<LeaseRenewal> {
    this.#enter();
    const { head, answer } = await this.#write({ o: 'alive', id: String(checkLeaseId(id)) }, call);
    return { header: headerOf(head), id, ttlMs: answer.ttl ?? 0 };
  }

  async revokeLease(id: LeaseId, call: CallOptions = {}): Promise<Header> {
    this.#enter();
    const { head, answer } = await this.#write({ o: 'revoke', id: String(checkLeaseId(id)) }, call);
    return { revision: answer.h ?? head.h, era: head.era };
  }

  async leaseInfo(
    id: LeaseId,
    call: CallOptions & { readonly keys?: boolean } = {},
  ): Promise<LeaseInfo> {
    this.#enter();
    const json = { o: 'lease', id: String(checkLeaseId(id)), ...(call.keys && { keys: 1 }) };
    const { head, answer } = await this.#read(json, call);
    return {
      header: headerOf(head),
      id,
      grantedTtlMs: answer.ttl ?? 0,
      remainingTtlMs: answer.left ?? 0,
      ...(call.keys && { keys: (answer.keys ?? []).map(unhex) }),
    };
  }

  async compact(
    revision: Revision,
    call: CallOptions & { readonly physical?: boolean } = {},
  ): Promise<Header> {
    this.#enter();
    // Our own watches shall not lose what they were just about to be told.
    await this.#follower.reach(Math.min(revision, this.#exchange.header.revision), 1_000);
    const { head } = await this.#write({ o: 'compact', v: clamp(revision) }, call);
    const { physical = false, signal } = call;
    const tidied = this.#tidy(physical);
    if (!physical) return headerOf(head);
    await abortable(tidied, signal).catch(() => {
      throw abortError(signal!, 'unknown');
    });
    return headerOf(head);
  }

  async liftEra(era: number, call: CallOptions = {}): Promise<Header> {
    this.#enter();
    if (!Number.isInteger(era) || era < 0 || era > ERA_MAX) throw notAnEra(era);
    try {
      return headerOf((await this.#write({ o: 'era', v: era }, call)).head);
    } catch (error) {
      if (!HoldfastError.is(error, 'era-regressed')) throw error;
    }
    const wanted = Math.max(era, this.#exchange.eraWanted);
    if (wanted > ERA_MAX) throw notAnEra(wanted);
    const { signal } = call;
    // Blind: this is the one verb that must work on a store that has gone back in time.
    const { head } = await this.#writes.submit({ o: 'era', v: wanted }, { signal, blind: true });
    this.#exchange.believe(head);
    return headerOf(head);
  }

  async status(call: CallOptions = {}): Promise<Status> {
    this.#enter();
    const { head, answer } = await this.#read({ o: 'status' }, call, true);
    const bits = answer.alarms ?? 0;
    const alarms = (['no-space', 'corrupt'] as const).filter((name) => bits & ALARMS[name]);
    const clusterId = BigInt(head.c);
    const sizeBytes = answer.size ?? 0;
    return {
      header: headerOf(head),
      clusterId,
      ...{ memberId: clusterId, leader: clusterId, term: BigInt(head.era) },
      compactRevision: head.compacted,
      version: `PostgreSQL ${Math.floor(Number(answer.version) / 10_000)}`,
      ...{ sizeBytes, sizeInUseBytes: sizeBytes, alarms },
    };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const error = closedError();
    this.#closing.abort(error);
    this.#cancelTick();
    this.#sweeper.stop();
    this.#follower.failAll(error);
    this.#writes.close(error);
    this.#reads.close(error);
    await this.#stopListening().catch(() => {});
    await Promise.all([this.#writes.settled(), this.#reads.settled(), this.#tidying]);
    await this.#options.driver.close();
  }

  #enter(): void {
    if (this.#closed) throw closedError();
  }

  async #write(json: Json, { signal }: CallOptions = {}, bytes = 0): Promise<Reply<ItemAnswer>> {
    return accept(await this.#writes.submit<ItemAnswer>(json, { signal, bytes }), json);
  }

  async #read(json: Json, { signal }: CallOptions, blind = false): Promise<Reply<ItemAnswer>> {
    return accept(await this.#reads.submit<ItemAnswer>(json, { signal, blind }), json);
  }

  /** Every answer tells where the store stands and when the next lease ends. */
  #heard(answer: Answer): void {
    this.#sweeper.heard(answer.due);
    this.#follower.headAt(answer.h);
    this.#retain(answer);
  }

  #retain({ h, compacted }: Answer): void {
    const { retainRevisions } = this.#options;
    if (retainRevisions === 0 || this.#tidying || this.#closed) return;
    if (h - compacted <= retainRevisions * RETAIN_SLACK) return;
    void this.#tidy(false, async () => {
      await this.#write({ o: 'compact', v: h - retainRevisions });
    });
  }

  /** Removes what compaction left behind, in steps that lock nobody out. */
  #tidy(whole: boolean, first: () => Promise<void> = async () => {}): Promise<void> {
    const work = async (): Promise<void> => {
      await first();
      for (let answer: string | null = 'more'; answer !== 'done'; ) {
        if (this.#closing.signal.aborted) return;
        const sql = `select ${this.#options.schema}.tidy_v1() as result`;
        answer = await this.#exchange.run(sql, this.#closing.signal);
        if (answer !== 'busy') continue;
        // Somebody else is at it; only who promised that it is done must wait for them.
        if (!whole) return;
        await sleep(this.#options.clock, 20, this.#closing.signal);
      }
    };
    // What fails now is removed with the next compaction.
    const tidied = (this.#tidying ?? Promise.resolve())
      .then(work)
      .catch(() => {})
      .finally(() => {
        if (this.#tidying === tidied) this.#tidying = undefined;
      });
    this.#tidying = tidied;
    return tidied;
  }

  /** Keeps a connection that is told of changes; without one the follower looks by the clock. */
  async #listen(): Promise<void> {
    const { driver, schema, clock } = this.#options;
    const { signal } = this.#closing;
    while (driver.listen && !signal.aborted) {
      let lost = (): void => {};
      const over = new Promise<void>((resolve) => {
        lost = resolve;
      });
      try {
        const stop = await driver.listen(schema, {
          onNotify: () => this.#follower.wake(),
          onLost: () => lost(),
        });
        this.#stopListening = stop;
        if (signal.aborted) return await stop();
        signal.addEventListener('abort', () => lost(), { once: true });
        this.#follower.setNotified(true);
        await over;
        this.#follower.setNotified(false);
      } catch {
        // The database is away; the follower finds out for itself.
      }
      await sleep(clock, LISTEN_AGAIN_MS, signal).catch(() => {});
    }
  }

  #grantedTtl(ttlMs: number): number {
    if (ttlMs > LEASE_TTL_MS_MAX) {
      const message = `a time to live of ${ttlMs} ms is beyond ${LEASE_TTL_MS_MAX} ms`;
      throw new HoldfastError('lease-ttl-too-large', message);
    }
    const least = this.capabilities.leaseTtlMsMin;
    return Number.isNaN(ttlMs) ? least : Math.max(least, Math.ceil(ttlMs));
  }

  #scheduleTick(): void {
    const { clock, progressIntervalMs, random } = this.#options;
    const atMs = clock.now() + progressIntervalMs * (1 + random.next() / 10);
    this.#cancelTick = clock.wakeAt(atMs, () => {
      this.#follower.tick();
      this.#scheduleTick();
    });
  }

  #operator(): Operator {
    const alarm = async (v: number, on: boolean): Promise<void> => {
      this.#enter();
      await this.#write({ o: 'alarm', v, ...(on && { on: 1 }) });
    };
    return {
      leases: async () => {
        this.#enter();
        const { answer } = await this.#read({ o: 'leases' }, {});
        return (answer.ids ?? []).map(BigInt);
      },
      arm: (name) => alarm(ALARMS[name], true),
      disarm: (name) => alarm(ALARMS[name], false),
      hash: (revision) => this.#hash(revision ?? 0),
      backup: () => {
        const message = 'back up the database with its own tools (pg_dump, a base backup)';
        throw new HoldfastError('unsupported', message);
      },
    };
  }

  /** Over the same bytes in the same order as on the other engines, page by page. */
  async #hash(
    wanted: Revision,
  ): Promise<{ hash: number; revision: Revision; compactRevision: Revision }> {
    const { header } = await this.range({ ...EVERYTHING, revision: wanted, limit: 1 });
    const revision = wanted > 0 ? wanted : header.revision;
    let hash = HASH_OF_NOTHING;
    for (let key: Uint8Array | undefined = EVERYTHING.key; key; ) {
      const page: RangeResult = await this.range({ ...EVERYTHING, key, revision, limit: 1_000 });
      for (const kv of page.kvs) hash = hashFurther(hash, kv);
      const last = page.kvs[page.kvs.length - 1];
      key = page.more && last ? keyAfter(last.key) : undefined;
    }
    const { compactRevision } = await this.status();
    return { hash, revision, compactRevision };
  }
}

const EVERYTHING = { key: Uint8Array.of(0), end: Uint8Array.of(0) };

function headerOf(head: Answer): Header {
  return { revision: head.h, era: head.era };
}

/** The answer of an item, or its refusal as an error. */
function accept(reply: Reply<ItemAnswer>, json: Json): Reply<ItemAnswer> {
  const { head, answer } = reply;
  switch (answer.e) {
    case undefined:
      return reply;
    case 'lease-not-found': {
      const id = BigInt(answer.l ?? String(json.id ?? 0));
      throw new HoldfastError('lease-not-found', `lease ${id.toString(16)} does not exist`);
    }
    case 'lease-exists':
      throw new HoldfastError('lease-exists', 'a lease with this id already exists');
    case 'key-not-found': {
      const message = 'a put that keeps the present value or lease needs a key that exists';
      throw new HoldfastError('key-not-found', message);
    }
    case 'compacted': {
      const compactRevision = head.compacted;
      const message = `revision ${answer.v} has been compacted; the oldest readable is ${compactRevision}`;
      throw new HoldfastError('compacted', message, { compactRevision });
    }
    case 'future-revision': {
      const message = `revision ${answer.v} does not exist yet; the newest is ${head.h}`;
      throw new HoldfastError('future-revision', message);
    }
    case 'no-space':
      throw new HoldfastError(
        'no-space',
        'the space alarm is on: delete, compact, then disarm the alarm',
      );
    default:
      throw new HoldfastError('internal', `the database answered "${answer.e}"`);
  }
}

/** A number that cannot be an id is a mistake in a grant; elsewhere it is a lease that is not. */
function checkLeaseId(id: LeaseId, granting = false): LeaseId {
  if (id > 0n && id <= LEASE_ID_MAX) return id;
  const code = granting ? 'invalid-argument' : 'lease-not-found';
  throw new HoldfastError(code, `${id} is not a lease id`);
}

function randomLeaseId(random: Random): LeaseId {
  let id = 0n;
  for (const byte of random.bytes(8)) id = id * 256n + BigInt(byte);
  const positive = id & LEASE_ID_MAX;
  return positive === 0n ? 1n : positive;
}

function uuid(random: Random): string {
  const digits = Buffer.from(random.bytes(16)).toString('hex');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function weigh(request: TxnRequest): number {
  let bytes = 0;
  for (const branch of [request.success ?? [], request.failure ?? []]) {
    for (const operation of branch) {
      bytes += operation.type === 'put' ? (operation.value?.length ?? 0) : 0;
      if (operation.type === 'txn') bytes += weigh(operation);
    }
  }
  return bytes;
}

function clamp(revision: Revision): number {
  if (Number.isInteger(revision)) return Math.max(-1, Math.min(2 ** 53, revision));
  throw new HoldfastError('invalid-argument', `${revision} is not a revision`);
}

function notAnEra(era: number): HoldfastError {
  return new HoldfastError('invalid-argument', `era ${era} is not in 0..${ERA_MAX}`);
}

function closedError(): HoldfastError {
  return new HoldfastError('closed', 'the engine has been closed');
}
