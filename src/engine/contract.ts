/**
 * The engine contract: eleven verbs on one revisioned store.
 *
 * The data model is etcd's: one ever-rising revision per committed change; keys with create and
 * mod revision, version and lease; transactions of compare → then/else; watches that resume from a
 * revision; leases that own keys. `testing/conformance` is this page in executable form.
 *
 * Rules that hold for every verb:
 * - An answer is durable, and no answer, read or event shows what a power cut could take back.
 * - Reads are linearizable unless `serializable` is asked for.
 * - Failures are `HoldfastError`s. `outcome: 'rejected'` means nothing changed; `'unknown'` means
 *   it may have: the answer was lost, the deadline passed, the caller aborted a request under way.
 * - Verbs never retry a write whose outcome is unknown; that is for the recipes, who can tell.
 */
import type { LeaseGrant, LeaseGrantRequest, LeaseInfo, LeaseRenewal } from '../model/lease.ts';
import type { Sealer } from '../model/seal.ts';
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

export interface CallOptions {
  /** Aborting stops the wait; a write under way may still happen (`outcome: 'unknown'`). */
  readonly signal?: AbortSignal | undefined;
}

export interface TxnOptions extends CallOptions {
  /**
   * The transaction needs no revision for itself: an engine may carry it out in one step with others
   * that say the same and touch none of its keys. Two creations could then have one create revision;
   * so whoever goes by the order of several keys says this only if the transaction also compares or
   * reads the range in which they stand.
   */
  readonly shareRevision?: boolean | undefined;
}

/** What an engine can do, as data. Each line says what follows for its users. */
export interface Capabilities {
  /** A short name for messages: `memory`, `lmdb`, `etcd`, `postgres`. */
  readonly name: string;
  /** False: everything is gone with the process; for tests. */
  readonly durable: boolean;
  /** True: several processes may open the same store. False: one process owns it. */
  readonly shared: boolean;
  /** Shorter leases are raised to this. */
  readonly leaseTtlMsMin: number;
  /** Leases are counted in whole steps of this; a TTL is rounded up. */
  readonly leaseTtlMsStep: number;
  /** Longer keys are refused with `key-too-large`. A zero byte counts twice. */
  readonly keyBytesMax: number;
  /** Larger requests are refused with `request-too-large`. */
  readonly requestBytesMax: number;
  /** More operations in one transaction are refused with `too-many-operations`. */
  readonly operationsMax: number;
}

export interface Status {
  readonly header: Header;
  /** Identity of the history; another value means another store. */
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly compactRevision: Revision;
  readonly leader: bigint;
  readonly term: bigint;
  readonly version: string;
  /** Bytes on disk, or a measure of memory. */
  readonly sizeBytes: number;
  readonly sizeInUseBytes: number;
  readonly alarms: readonly ('no-space' | 'corrupt')[];
}

export interface Engine extends AsyncDisposable {
  readonly capabilities: Capabilities;

  /** Reads a range. Errors: `key-empty`, `compacted`, `future-revision`. */
  range(request: RangeRequest, options?: CallOptions): Promise<RangeResult>;

  /**
   * Compares, then runs one branch, all in one revision, all or nothing. A put or a delete alone
   * is a transaction of one operation. Errors: those of `range`, and `lease-not-found`,
   * `key-not-found`, `value-provided`, `lease-provided`, `duplicate-key`, `too-many-operations`,
   * `request-too-large`, `key-too-large`, `no-space`.
   */
  txn(request: TxnRequest, options?: TxnOptions): Promise<TxnResult>;

  /** Tells changes from a revision on. Errors arrive while iterating; see `Watch`. */
  watch(request: WatchRequest, options?: CallOptions): Watch;

  /** Makes a lease. Errors: `lease-exists`, `lease-ttl-too-large`, `no-space`. */
  grantLease(request: LeaseGrantRequest, options?: CallOptions): Promise<LeaseGrant>;

  /** Renews a lease to its full TTL. Errors: `lease-not-found`, also when it is just ending. */
  keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal>;

  /** Ends a lease and deletes its keys in one revision. Errors: `lease-not-found`. */
  revokeLease(id: LeaseId, options?: CallOptions): Promise<Header>;

  /** Tells about one lease. Errors: `lease-not-found`. */
  leaseInfo(id: LeaseId, options?: CallOptions & { readonly keys?: boolean }): Promise<LeaseInfo>;

  /**
   * Forgets history before `revision`; what was newest then stays. With `physical` the answer
   * waits until the space is free for new data. Errors: `compacted`, `future-revision`.
   */
  compact(
    revision: Revision,
    options?: CallOptions & { readonly physical?: boolean },
  ): Promise<Header>;

  /**
   * Raises the era to at least `era` and never lowers it, so that every later token is above every
   * token of an earlier era. Used after a restore. Errors: `invalid-argument` beyond the last era.
   */
  liftEra(era: number, options?: CallOptions): Promise<Header>;

  /** Where the store stands. */
  status(options?: CallOptions): Promise<Status>;

  /** Ends every watch with `closed` and frees what the engine holds. Idempotent. */
  close(): Promise<void>;

  /** For what needs no wait, in engines whose answers are in this process. */
  readonly atOnce?: AtOnce;

  /** Signs tokens for guards; absent where there is nobody to sign: only servers of ours do. */
  readonly sealer?: Sealer;

  /** What an engine in this process counts; absent where it is elsewhere. */
  readonly figures?: Figures;

  /** What only an operator does; absent where the store behind has tools of its own. */
  readonly operator?: Operator;
}

/**
 * Verbs without a promise, for servers that answer many of them in one turn. The answers and errors
 * are those of the verb of the same name; `undefined`: this time there is a wait, ask that one.
 */
export interface AtOnce {
  range(request: RangeRequest): RangeResult | undefined;
  keepAlive(id: LeaseId): LeaseRenewal | undefined;
}

/** For metrics. */
export interface Figures {
  /** `undefined`: at the moment the store is somebody else's. */
  read(): FiguresNow | undefined;
  /** Tells one listener how many milliseconds each commit took, from evaluation to durable. */
  onCommit(listener: (ms: number) => void): void;
}

export interface FiguresNow {
  readonly leases: number;
  /** Since the store was opened, as every count here. */
  readonly leasesExpired: number;
  /** Renewals that came with less than a third of the TTL left. */
  readonly renewalsLate: number;
  readonly watches: number;
  /** By how much the slowest watch is behind. */
  readonly watchLagRevisions: number;
}

/** The operator's verbs. */
export interface Operator {
  /** Every lease, by id, soonest expiry first. */
  leases(): Promise<readonly LeaseId[]>;
  /** Ends an alarm after its cause is gone. */
  disarm(alarm: 'no-space' | 'corrupt'): Promise<void>;
  /** Sets off an alarm by hand. */
  arm(alarm: 'no-space' | 'corrupt'): Promise<void>;
  /** A checksum over all keys up to `revision` (0: now), equal on equal stores. */
  hash(revision?: Revision): Promise<{
    readonly hash: number;
    readonly revision: Revision;
    readonly compactRevision: Revision;
  }>;
  /** The whole store at one revision as a stream, while writes go on; `restore` reads it. */
  backup(): AsyncIterable<Uint8Array>;
}
