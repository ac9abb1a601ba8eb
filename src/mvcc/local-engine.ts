/**
 * The whole engine contract over a `Store`: what the memory and LMDB engines share.
 *
 * Writes go through the group commit of `committer.ts`; renewals touch memory alone. Reads look at
 * the committed table and take the revision they answer with from that same view, so they show
 * nothing that is not durable and never mix two moments.
 */

import type { Clock } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import { abortError, HoldfastError } from '../model/errors.ts';
import type { LeaseGrant, LeaseGrantRequest, LeaseInfo, LeaseRenewal } from '../model/lease.ts';
import { ERA_MAX } from '../model/token.ts';
import type {
  Header,
  LeaseId,
  RangeRequest,
  RangeResult,
  Revision,
  TxnRequest,
  TxnResult,
} from '../model/transaction.ts';
import type { Watch, WatchRequest } from '../model/watch.ts';
import { dump } from './backup.ts';
import { checkRange, checkTxn, type Limits, mayPut, mayWrite } from './check.ts';
import { Committer } from './committer.ts';
import { compactionPending, compactStep } from './compaction.ts';
import { Hub } from './hub.ts';
import {
  attachmentEnd,
  attachmentStart,
  decodeState,
  HASH_OF_NOTHING,
  hashFurther,
  IDENTITY_KEY,
  keyOfAttachment,
  STATE_KEY,
} from './layout.ts';
import { LeaseKeeper } from './lease-keeper.ts';
import { compactedError, historic, readRange, readRevision } from './read.ts';
import type { Store, Table, TableReader } from './table.ts';
import { headerOf, refusedWatch } from './watcher.ts';
import { Writer } from './writer.ts';

export interface LocalEngineOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: Limits;
  readonly leaseTtlMsMin: number;
  /** Bytes in use beyond which puts and grants are refused; 0: no quota. */
  readonly quotaBytes: number;
  /** Revisions kept before old ones are compacted away by themselves; 0: keep all. */
  readonly retainRevisions: number;
  /** How often a quiet watch that asked for progress is told. */
  readonly progressIntervalMs: number;
  /** Goes up each time another process takes the store over. */
  readonly term: bigint;
  readonly version: string;
}

/** With each of these the engine compacts; so it happens once per this many commits, not each. */
const RETAIN_SLACK = 1.25;

interface Call {
  readonly signal?: AbortSignal | undefined;
}

const NO_OPTIONS: Call = {};

export class LocalEngine {
  readonly #options: LocalEngineOptions;
  readonly #store: Store;
  readonly #hub: Hub;
  readonly #committer: Committer;
  readonly #leases: LeaseKeeper;
  readonly #identity: bigint;
  #compacting: Promise<void> | undefined;
  #cancelTick: () => void = () => {};
  #closing: Promise<void> | undefined;
  #failure: HoldfastError | undefined;

  /** Reads what the store holds; a fresh store is given its identity. */
  static async open(options: LocalEngineOptions): Promise<LocalEngine> {
    const { store, random } = options;
    if (!store.committed.get(IDENTITY_KEY)) {
      const identity = random.bytes(8);
      identity[0] = identity[0]! & 0x7f;
      await store.commit((table) => table.put(IDENTITY_KEY, identity));
    }
    return new LocalEngine(options);
  }

  private constructor(options: LocalEngineOptions) {
    this.#options = options;
    this.#store = options.store;
    const state = decodeState(this.#store.committed.get(STATE_KEY));
    this.#identity = identityOf(this.#store.committed);
    this.#hub = new Hub(this.#store.committed, state);
    this.#leases = new LeaseKeeper(
      { clock: options.clock, random: options.random, ttlMsMin: options.leaseTtlMsMin },
      () => this.#committer,
    );
    this.#committer = new Committer({
      store: this.#store,
      state,
      leases: this.#leases.lessor,
      now: () => options.clock.now(),
      effects: () => this.#leases.effects(),
      publish: (next, commits, effects) => {
        this.#leases.published(effects);
        this.#hub.publish(next, commits);
        if (commits.length > 0) this.#retain();
      },
      failed: (error) => this.#fail(error),
    });
    this.#leases.load(this.#store.committed);
    this.#scheduleTick();
    if (compactionPending(this.#store.committed, state.compactRevision)) {
      void this.#startCompaction();
    }
  }

  async range(request: RangeRequest, call: Call = {}): Promise<RangeResult> {
    this.#enter(call.signal);
    return this.rangeAtOnce(request);
  }

  rangeAtOnce(request: RangeRequest): RangeResult {
    this.#enter(undefined);
    checkRange(request);
    const { committed } = this.#store;
    const state = decodeState(committed.get(STATE_KEY));
    const { kvs, more, count } = readRange(committed, request, state);
    return { header: headerOf(state), kvs, more, count };
  }

  /** Not `async`: on the way of every write each promise counts. */
  txn(request: TxnRequest, call: Call = NO_OPTIONS): Promise<TxnResult> {
    try {
      this.#enter(call.signal);
      checkTxn(request, this.#options.limits);
      if (!mayWrite(request)) return Promise.resolve(this.#readOnly(request));
    } catch (error) {
      return Promise.reject(error);
    }
    const puts = mayPut(request);
    return this.#committer.submit((writer) => {
      if (puts) this.#requireSpace(writer);
      const { succeeded, results, revision } = writer.txn(request);
      return { header: { revision, era: writer.era }, succeeded, results };
    }, call.signal);
  }

  watch(request: WatchRequest, call: Call = {}): Watch {
    const { signal } = call;
    const refusal = this.#refusal(signal);
    if (refusal) return refusedWatch(refusal);
    const watcher = this.#hub.watch(request);
    if (signal) {
      const onAbort = (): void => watcher.fail(abortError(signal, 'rejected'));
      signal.addEventListener('abort', onAbort, { once: true });
      watcher.onEnd(() => signal.removeEventListener('abort', onAbort));
    }
    return watcher;
  }

  async grantLease(request: LeaseGrantRequest, call: Call = {}): Promise<LeaseGrant> {
    this.#enter(call.signal);
    const admit = (writer: Writer): void => this.#requireSpace(writer);
    const { id, ttlMs } = await this.#leases.grant(request, admit, call.signal);
    return { header: this.#header(), id, ttlMs };
  }

  async keepAlive(id: LeaseId, call: Call = {}): Promise<LeaseRenewal> {
    this.#enter(call.signal);
    // Taken before: a renewal that succeeded never carries a revision later than a revocation.
    const header = this.#header();
    const { ttlMs } = await this.#leases.keepAlive(id, call.signal);
    return { header, id, ttlMs };
  }

  /** Nothing where the renewal has to wait for a commit, or the lease is about to end. */
  keepAliveAtOnce(id: LeaseId): LeaseRenewal | undefined {
    this.#enter(undefined);
    const lease = this.#leases.renewAtOnce(id);
    return lease && { header: this.#header(), id, ttlMs: lease.ttlMs };
  }

  async revokeLease(id: LeaseId, call: Call = {}): Promise<Header> {
    this.#enter(call.signal);
    const revision = await this.#leases.revoke(id, call.signal);
    return { revision, era: this.#hub.state.era };
  }

  async leaseInfo(id: LeaseId, call: Call & { readonly keys?: boolean } = {}): Promise<LeaseInfo> {
    this.#enter(call.signal);
    const lease = await this.#leases.living(id);
    const info = {
      header: this.#header(),
      id,
      grantedTtlMs: lease.ttlMs,
      remainingTtlMs: Math.max(0, lease.deadlineMs - this.#options.clock.now()),
    };
    if (!call.keys) return info;
    const keys: Uint8Array[] = [];
    this.#store.committed.scan(attachmentStart(id), attachmentEnd(id), (stored) => {
      keys.push(keyOfAttachment(stored));
      return true;
    });
    return { ...info, keys };
  }

  async compact(
    revision: Revision,
    call: Call & { readonly physical?: boolean } = {},
  ): Promise<Header> {
    this.#enter(call.signal);
    await this.#committer.submit((writer) => {
      const { state } = writer;
      if (revision <= state.compactRevision) throw compactedError(revision, state);
      readRevision({ key: STATE_KEY, revision }, state);
      writer.amend({ compactRevision: revision });
    }, call.signal);
    const removal = this.#startCompaction();
    if (call.physical) await removal;
    return this.#header();
  }

  async liftEra(era: number, call: Call = {}): Promise<Header> {
    this.#enter(call.signal);
    if (!Number.isInteger(era) || era < 0 || era > ERA_MAX) {
      throw new HoldfastError('invalid-argument', `era ${era} is not in 0..${ERA_MAX}`);
    }
    await this.#committer.submit((writer) => {
      if (era > writer.era) writer.amend({ era });
    }, call.signal);
    return this.#header();
  }

  /** What is counted, at any time. */
  figures(): LocalFigures {
    const { lessor, expired } = this.#leases;
    return {
      leases: lessor.size,
      leasesExpired: expired,
      renewalsLate: lessor.renewedLate,
      watches: this.#hub.size,
      watchLagRevisions: this.#hub.lagRevisions,
    };
  }

  onCommit(listener: (ms: number) => void): void {
    this.#committer.onCommit = listener;
  }

  async status(call: Call = {}): Promise<LocalStatus> {
    this.#enter(call.signal);
    const { state } = this.#hub;
    const { totalBytes, inUseBytes } = this.#store.size();
    const alarms: Alarm[] = [];
    if (state.noSpace) alarms.push('no-space');
    if (state.corrupt) alarms.push('corrupt');
    return {
      header: headerOf(state),
      clusterId: this.#identity,
      memberId: this.#identity,
      leader: this.#identity,
      term: this.#options.term,
      compactRevision: state.compactRevision,
      version: this.#options.version,
      sizeBytes: totalBytes,
      sizeInUseBytes: inUseBytes,
      alarms,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async leases(): Promise<readonly LeaseId[]> {
    this.#enter(undefined);
    return this.#leases.lessor.ids();
  }

  async setAlarm(alarm: Alarm, on: boolean): Promise<void> {
    this.#enter(undefined);
    if (alarm === 'no-space' && !on) {
      // Whoever made room must not be told at the next write that there is none.
      await this.#compacting;
      await this.#store.settle?.();
    }
    await this.#committer.submit((writer) =>
      writer.amend(alarm === 'no-space' ? { noSpace: on } : { corrupt: on }),
    );
  }

  async hash(revision: Revision = 0): Promise<StoreHash> {
    this.#enter(undefined);
    const { committed } = this.#store;
    const state = decodeState(committed.get(STATE_KEY));
    const at = readRevision({ key: STATE_KEY, revision }, state);
    const everything = { start: new Uint8Array(0), end: undefined, single: false };
    let hash = HASH_OF_NOTHING;
    for (const kv of historic(committed, everything, at)) hash = hashFurther(hash, kv);
    return { hash, revision: at, compactRevision: state.compactRevision };
  }

  async *backup(): AsyncGenerator<Uint8Array> {
    this.#enter(undefined);
    const snapshot = this.#store.snapshot();
    try {
      for (const chunk of dump(snapshot)) {
        yield chunk;
        // A long backup must not keep the loop from its other work.
        await Promise.resolve();
      }
    } finally {
      snapshot.release();
    }
  }

  #header(): Header {
    return headerOf(this.#hub.state);
  }

  #enter(signal: AbortSignal | undefined): void {
    const refusal = this.#refusal(signal);
    if (refusal) throw refusal;
  }

  #refusal(signal: AbortSignal | undefined): HoldfastError | undefined {
    if (this.#failure) return this.#failure;
    if (this.#closing) return closedError();
    return signal?.aborted ? abortError(signal, 'rejected') : undefined;
  }

  /** A transaction that only reads needs no commit: it sees one view of the committed table. */
  #readOnly(request: TxnRequest): TxnResult {
    const { committed } = this.#store;
    const state = decodeState(committed.get(STATE_KEY));
    const writer = new Writer(readOnlyTable(committed), state, this.#leases.lessor);
    const { succeeded, results } = writer.txn(request);
    return { header: headerOf(state), succeeded, results };
  }

  /** Over the quota, or on a full disk, an alarm goes off and stays until an operator ends it. */
  #requireSpace(writer: Writer): void {
    if (!writer.noSpace && this.#isOutOfSpace()) writer.amend({ noSpace: true });
    if (writer.noSpace) {
      throw new HoldfastError(
        'no-space',
        'the space quota or the disk is used up: make room, delete, compact, then disarm the alarm',
      );
    }
  }

  #isOutOfSpace(): boolean {
    const { quotaBytes } = this.#options;
    if (this.#store.full) return true;
    return quotaBytes > 0 && this.#store.size().inUseBytes > quotaBytes;
  }

  #retain(): void {
    const { retainRevisions } = this.#options;
    const { revision, compactRevision } = this.#hub.state;
    if (retainRevisions === 0 || this.#compacting || this.#closing) return;
    if (revision - compactRevision <= retainRevisions * RETAIN_SLACK) return;
    this.#compacting = this.#committer
      .submit((writer) => {
        const bound = writer.state.revision - retainRevisions;
        if (bound > writer.state.compactRevision) writer.amend({ compactRevision: bound });
      })
      .then(() => this.#removeCompacted())
      .catch(() => {})
      .finally(() => {
        this.#compacting = undefined;
      });
  }

  #startCompaction(): Promise<void> {
    const after = this.#compacting ?? Promise.resolve();
    // A store that fails meanwhile tells its callers itself; the removal goes on at the next open.
    const removal = after
      .then(() => this.#removeCompacted())
      .catch(() => {})
      .finally(() => {
        if (this.#compacting === removal) this.#compacting = undefined;
      });
    this.#compacting = removal;
    return removal;
  }

  async #removeCompacted(): Promise<void> {
    for (let done = false; !done && !this.#closing && !this.#failure; ) {
      done = await this.#committer.submit((writer) =>
        compactStep(writer.table, writer.state.compactRevision),
      );
    }
  }

  #scheduleTick(): void {
    const { clock, progressIntervalMs, random } = this.#options;
    const atMs = clock.now() + progressIntervalMs * (1 + random.next() / 10);
    this.#cancelTick = clock.wakeAt(atMs, () => {
      this.#hub.tick();
      this.#scheduleTick();
    });
  }

  #fail(error: HoldfastError): void {
    this.#failure = error;
    this.#cancelTick();
    this.#hub.failAll(error);
    void this.#leases.close();
  }

  async #close(): Promise<void> {
    this.#cancelTick();
    this.#committer.refuse(closedError());
    await this.#leases.close();
    await this.#committer.settled();
    await this.#compacting;
    this.#hub.failAll(closedError());
    await this.#store.close();
  }
}

type Alarm = 'no-space' | 'corrupt';

export interface LocalStatus {
  readonly header: Header;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly leader: bigint;
  readonly term: bigint;
  readonly compactRevision: Revision;
  readonly version: string;
  readonly sizeBytes: number;
  readonly sizeInUseBytes: number;
  readonly alarms: readonly Alarm[];
}

export interface LocalFigures {
  readonly leases: number;
  readonly leasesExpired: number;
  readonly renewalsLate: number;
  readonly watches: number;
  readonly watchLagRevisions: number;
}

export interface StoreHash {
  readonly hash: number;
  readonly revision: Revision;
  readonly compactRevision: Revision;
}

function closedError(): HoldfastError {
  return new HoldfastError('closed', 'the engine has been closed');
}

function identityOf(table: TableReader): bigint {
  let identity = 0n;
  for (const byte of table.get(IDENTITY_KEY) ?? []) identity = identity * 256n + BigInt(byte);
  return identity;
}

function readOnlyTable(reader: TableReader): Table {
  const refuse = (): never => {
    throw new Error('a transaction that only reads must not write');
  };
  return {
    get: (key) => reader.get(key),
    scan: (...args) => reader.scan(...args),
    put: refuse,
    remove: refuse,
    cut: refuse,
  };
}
