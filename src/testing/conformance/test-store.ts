/**
 * One engine as a case sees it: short verbs on keys below the case's prefix, watches that are
 * closed and leases that are revoked when the case ends, and time that passes either way.
 */
import { type Bytes, concatBytes, EMPTY, text, utf8 } from '../../base/bytes.ts';
import { type ManualClock, sleep } from '../../base/clock.ts';
import { systemClock } from '../../base/system.ts';
import type { Engine } from '../../engine/contract.ts';
import type { LeaseGrant } from '../../model/lease.ts';
import { type KeyRange, prefixRange } from '../../model/range.ts';
import type {
  Compare,
  DeleteOperation,
  KeyValue,
  LeaseId,
  Operation,
  OperationResult,
  PutOperation,
  RangeOperation,
  RangeRequest,
  RangeResult,
  Revision,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Event, WatchBatch, WatchRequest } from '../../model/watch.ts';
import { Follower } from '../follower.ts';
import { eventually, turn } from '../waiting.ts';
import { fail } from './expect.ts';
import type { Fixture } from './suite.ts';

/** How much later than its TTL a lease may end. */
export const EXPIRY_LATE_MS = 3_000;

export type PutOptions = Omit<PutOperation, 'type' | 'key' | 'value'> & { value?: Bytes | string };

/** Where a case means "all its keys", "one key" or "from here to there". */
export type Where = string | readonly [from: string, to: string];

/** A key-value pair with its key below the prefix and everything as readable text. */
export interface PlainKv {
  readonly key: string;
  readonly value: string;
  readonly create: Revision;
  readonly mod: Revision;
  readonly version: number;
  readonly lease: LeaseId;
}

export class TestStore {
  readonly clock: ManualClock | undefined;
  readonly prefix: Bytes;
  readonly #fixture: Fixture;
  readonly #followers: Follower[] = [];
  readonly #leases = new Set<LeaseId>();
  #engine: Engine;

  constructor(fixture: Fixture) {
    this.#fixture = fixture;
    this.#engine = fixture.engine;
    this.clock = fixture.clock;
    this.prefix = fixture.prefix;
  }

  get engine(): Engine {
    return this.#engine;
  }

  // Keys and ranges

  key(name: string | Bytes): Bytes {
    return concatBytes(this.prefix, typeof name === 'string' ? utf8(name) : name);
  }

  /** The part of a key after the prefix, as text. */
  name(key: Bytes): string {
    return text(key.subarray(this.prefix.length));
  }

  get everything(): KeyRange {
    return prefixRange(this.prefix);
  }

  where(where: Where): KeyRange {
    if (typeof where === 'string') return { key: this.key(where) };
    return { key: this.key(where[0]), end: this.key(where[1]) };
  }

  // Operations as data

  putOp(name: string, value: Bytes | string = '', options: PutOptions = {}): PutOperation {
    const bytes = typeof value === 'string' ? utf8(value) : value;
    return { ...options, type: 'put', key: this.key(name), value: bytes };
  }

  /** A put that keeps the value brings none. */
  keepValueOp(name: string, options: PutOptions = {}): PutOperation {
    return { ...options, type: 'put', key: this.key(name), value: EMPTY, ignoreValue: true };
  }

  deleteOp(where: Where, options: { prevKv?: boolean } = {}): DeleteOperation {
    return { ...options, type: 'delete', ...this.where(where) };
  }

  rangeOp(where: Where, options: Partial<RangeRequest> = {}): RangeOperation {
    return { ...this.where(where), ...options, type: 'range' };
  }

  /** `If(version(key) = 0)`: the key does not exist. */
  missing(name: string): Compare {
    return { key: this.key(name), target: 'version', result: '=', value: 0 };
  }

  // Verbs

  txn(request: TxnRequest): Promise<TxnResult> {
    return this.engine.txn(request);
  }

  run(...success: Operation[]): Promise<TxnResult> {
    return this.engine.txn({ success });
  }

  /** Puts one key and answers its revision. */
  async put(name: string, value: Bytes | string = '', options: PutOptions = {}): Promise<Revision> {
    return (await this.run(this.putOp(name, value, options))).header.revision;
  }

  async putPrev(name: string, value: string): Promise<KeyValue | undefined> {
    const result = await this.run(this.putOp(name, value, { prevKv: true }));
    return asPut(result.results[0]).prevKv;
  }

  /** Deletes and answers the revision after it. */
  async remove(where: Where): Promise<Revision> {
    return (await this.run(this.deleteOp(where))).header.revision;
  }

  async get(name: string, options: Partial<RangeRequest> = {}): Promise<PlainKv | undefined> {
    const { kvs } = await this.engine.range({ key: this.key(name), ...options });
    return kvs[0] && this.plain(kvs[0]);
  }

  /** The range, by default all keys of the case. */
  range(
    options: Partial<RangeRequest> = {},
    where: KeyRange = this.everything,
  ): Promise<RangeResult> {
    return this.engine.range({ ...where, ...options });
  }

  /** The names in a range, in the order of the answer. */
  async names(
    options: Partial<RangeRequest> = {},
    where: KeyRange = this.everything,
  ): Promise<readonly string[]> {
    return (await this.range(options, where)).kvs.map((kv) => this.name(kv.key));
  }

  async revision(): Promise<Revision> {
    return (await this.range({ limit: 1 })).header.revision;
  }

  plain(kv: KeyValue): PlainKv {
    return {
      key: this.name(kv.key),
      value: text(kv.value),
      create: kv.createRevision,
      mod: kv.modRevision,
      version: kv.version,
      lease: kv.lease,
    };
  }

  // Watches

  /** A running watch, by default over all keys of the case. Closed when the case ends. */
  async watch(
    options: Partial<WatchRequest> = {},
    where: KeyRange = this.everything,
  ): Promise<Follower> {
    const follower = this.watchUnsettled(options, where);
    await follower.created();
    return follower;
  }

  /** The same without waiting for it to stand. */
  watchUnsettled(options: Partial<WatchRequest> = {}, where: KeyRange = this.everything): Follower {
    const request = { ...where, ...options };
    const watch = this.engine.watch(request);
    const follower = new Follower(watch, request, this.#fixture.patienceMs);
    this.#followers.push(follower);
    return follower;
  }

  /** An event as `put a=1 @5` or `delete a @6`, with the revision relative to `base`. */
  told(events: readonly Event[], base: Revision): readonly string[] {
    return events.map((event) => {
      const what = this.name(event.kv.key);
      const at = event.kv.modRevision - base;
      return event.type === 'put'
        ? `put ${what}=${text(event.kv.value)} @${at}`
        : `delete ${what} @${at}`;
    });
  }

  toldBatches(batches: readonly WatchBatch[], base: Revision): readonly string[] {
    return this.told(
      batches.flatMap((batch) => batch.events),
      base,
    );
  }

  // Leases and time

  /** The shortest lease that is still long enough to work with. */
  get ttlMs(): number {
    return Math.max(this.engine.capabilities.leaseTtlMsMin, this.clock ? 5_000 : 0);
  }

  /** A lease far longer than any case runs. */
  grantLong(): Promise<LeaseGrant> {
    return this.grant(3_600_000);
  }

  async grant(ttlMs: number = this.ttlMs, id?: LeaseId): Promise<LeaseGrant> {
    const grant = await this.engine.grantLease(id === undefined ? { ttlMs } : { ttlMs, id });
    this.#leases.add(grant.id);
    return grant;
  }

  /** Lets time pass at the authority. */
  async pass(ms: number): Promise<void> {
    if (this.clock) {
      this.clock.advance(ms);
      await turn();
    } else await sleep(systemClock, ms);
  }

  /** Lets time pass until `condition` holds, at most `ms`; fails otherwise. */
  async passUntil(condition: () => Promise<boolean>, ms: number, what: string): Promise<void> {
    const stepMs = 100;
    for (let passed = 0; passed < ms; passed += stepMs) {
      await this.pass(stepMs);
      if (await condition()) return;
    }
    if (!this.clock) fail(`after ${ms} ms still not: ${what}`);
    await eventually(condition, what, 2_000);
  }

  // Life

  async reopen(): Promise<Engine> {
    if (!this.#fixture.reopen) fail('this fixture cannot reopen its engine');
    this.#engine = await this.#fixture.reopen();
    return this.#engine;
  }

  async dispose(): Promise<void> {
    for (const follower of this.#followers) await follower.close().catch(() => {});
    for (const id of this.#leases) await this.engine.revokeLease(id).catch(() => {});
    await this.#fixture.dispose();
  }
}

export function asRange(
  result: OperationResult | undefined,
): Extract<OperationResult, { type: 'range' }> {
  return result?.type === 'range' ? result : fail(`expected a range result, got ${result?.type}`);
}

export function asPut(
  result: OperationResult | undefined,
): Extract<OperationResult, { type: 'put' }> {
  return result?.type === 'put' ? result : fail(`expected a put result, got ${result?.type}`);
}

export function asDelete(
  result: OperationResult | undefined,
): Extract<OperationResult, { type: 'delete' }> {
  return result?.type === 'delete' ? result : fail(`expected a delete result, got ${result?.type}`);
}

export function asNested(
  result: OperationResult | undefined,
): Extract<OperationResult, { type: 'txn' }> {
  return result?.type === 'txn' ? result : fail(`expected a nested result, got ${result?.type}`);
}
