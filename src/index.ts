/** The public API of `holdfast`. */
export type { Bytes } from './base/bytes.ts';
export type { Clock } from './base/clock.ts';
export type { Random } from './base/random.ts';
export type { Attributes, ReadField, Span, SpanOptions, Tracer } from './base/tracer.ts';
export { Client, type ClientOptions, type ClientStats, connect, openEngine } from './client.ts';
export type {
  CallOptions,
  Capabilities,
  Engine,
  Operator,
  Status,
  TxnOptions,
} from './engine/contract.ts';
export {
  ERROR_CODES,
  type ErrorCode,
  type ErrorDetails,
  HoldfastError,
  type LossReason,
  type Outcome,
} from './model/errors.ts';
export type { SealedToken, Sealer, SealRequest } from './model/seal.ts';
export { formatToken, parseToken, type Token } from './model/token.ts';
export type { Compare, KeyValue, Revision } from './model/transaction.ts';
export type { Identity } from './recipes/authority.ts';
export type { Barrier, DoubleBarrier } from './recipes/barrier.ts';
export type { Claim, ClaimRecord } from './recipes/claim.ts';
export type { Counter, Sequence, SequenceOptions } from './recipes/counter.ts';
export type { Cycle } from './recipes/deadlock.ts';
export type { Duration } from './recipes/duration.ts';
export type { CampaignOptions, Election, Leader, Leadership } from './recipes/election.ts';
export type { Grant } from './recipes/grant.ts';
export type { Group, GroupEvent, JoinOptions, Member, Membership } from './recipes/group.ts';
export type { Breaking, LineReport, SeenClaim } from './recipes/inspect.ts';
export type { Latch } from './recipes/latch.ts';
export type { AcquireOptions, Lock, LockOptions, WaitReport } from './recipes/lock.ts';
export type { MultiGrant, MultiLock } from './recipes/multi-lock.ts';
export type { Answered, Asked, Ended, Observer, RecipeKind } from './recipes/observation.ts';
export type { Once, UniqueClaim } from './recipes/once.ts';
export type { Mode, ReadWriteLock } from './recipes/read-write-lock.ts';
export type { Renewal } from './recipes/renewals.ts';
export type { Permit, Semaphore } from './recipes/semaphore.ts';
export type { HealthGate, Session } from './recipes/session.ts';
export type { StaleReport } from './recipes/stale.ts';
export type {
  Cell,
  Transaction,
  TransactOptions,
  Versioned,
} from './recipes/transact.ts';
export type { WaitOptions } from './recipes/until.ts';
export type { View } from './recipes/view.ts';
export type { WatchdogOptions } from './recipes/watchdog.ts';
