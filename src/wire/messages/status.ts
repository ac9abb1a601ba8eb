/**
 * Errors on the wire: gRPC status codes, etcd's error texts, and what they are in `model/errors.ts`.
 *
 * One table serves both directions. Clients of etcd recognise an error by its text whatever code it
 * carries, so texts are kept byte for byte; codes are those of 3.4 and 3.5.
 *
 *   server: statusOf(error) → { code, message }
 *   client: errorOf({ code, message }, 'read' | 'write') → HoldfastError, with its outcome
 */
import { type ErrorCode, HoldfastError, type Outcome } from '../../model/errors.ts';

export const OK = 0;
export const CANCELLED = 1;
export const UNKNOWN = 2;
export const INVALID_ARGUMENT = 3;
export const DEADLINE_EXCEEDED = 4;
export const NOT_FOUND = 5;
export const ALREADY_EXISTS = 6;
export const PERMISSION_DENIED = 7;
export const RESOURCE_EXHAUSTED = 8;
export const FAILED_PRECONDITION = 9;
export const ABORTED = 10;
export const OUT_OF_RANGE = 11;
export const UNIMPLEMENTED = 12;
export const INTERNAL = 13;
export const UNAVAILABLE = 14;
export const DATA_LOSS = 15;
export const UNAUTHENTICATED = 16;

/** A status as it stands in the trailers. */
export interface RpcStatus {
  readonly code: number;
  readonly message: string;
}

interface StatusLine extends RpcStatus {
  /** What a client makes of it. */
  readonly error: ErrorCode;
  /** A write answered so may have happened all the same. */
  readonly unknownOutcome?: true;
}

const line = (code: number, message: string, error: ErrorCode, unknown?: true): StatusLine => ({
  code,
  message: `etcdserver: ${message}`,
  error,
  ...(unknown && { unknownOutcome: true as const }),
});

/** Every error etcd names, by a name of ours; a server throws `rpcError('userNotFound')`. */
export const STATUS: Readonly<Record<StatusName, StatusLine>> = {
  emptyKey: line(INVALID_ARGUMENT, 'key is not provided', 'key-empty'),
  keyNotFound: line(INVALID_ARGUMENT, 'key not found', 'key-not-found'),
  valueProvided: line(INVALID_ARGUMENT, 'value is provided', 'value-provided'),
  leaseProvided: line(INVALID_ARGUMENT, 'lease is provided', 'lease-provided'),
  tooManyOps: line(INVALID_ARGUMENT, 'too many operations in txn request', 'too-many-operations'),
  duplicateKey: line(INVALID_ARGUMENT, 'duplicate key given in txn request', 'duplicate-key'),
  requestTooLarge: line(INVALID_ARGUMENT, 'request is too large', 'request-too-large'),
  badMemberUrls: line(INVALID_ARGUMENT, 'given member URLs are invalid', 'invalid-argument'),
  authFailed: line(
    INVALID_ARGUMENT,
    'authentication failed, invalid user ID or password',
    'unauthenticated',
  ),
  userEmpty: line(INVALID_ARGUMENT, 'user name is empty', 'invalid-argument'),
  roleEmpty: line(INVALID_ARGUMENT, 'role name is empty', 'invalid-argument'),
  permissionNotGiven: line(INVALID_ARGUMENT, 'permission not given', 'invalid-argument'),
  invalidAuthManagement: line(INVALID_ARGUMENT, 'invalid auth management', 'invalid-argument'),
  authOldRevision: line(INVALID_ARGUMENT, 'revision of auth store is old', 'unauthenticated'),
  wrongDowngradeFormat: line(
    INVALID_ARGUMENT,
    'wrong downgrade target version format',
    'invalid-argument',
  ),
  invalidDowngradeTarget: line(
    INVALID_ARGUMENT,
    'invalid downgrade target version',
    'invalid-argument',
  ),
  invalidSortOption: line(INVALID_ARGUMENT, 'invalid sort option', 'invalid-argument'),
  invalidClientApiVersion: line(INVALID_ARGUMENT, 'invalid client api version', 'invalid-argument'),

  leaseNotFound: line(NOT_FOUND, 'requested lease not found', 'lease-not-found'),
  memberNotFound: line(NOT_FOUND, 'member not found', 'invalid-argument'),

  permissionDenied: line(PERMISSION_DENIED, 'permission denied', 'permission-denied'),

  noSpace: line(RESOURCE_EXHAUSTED, 'mvcc: database space exceeded', 'no-space'),
  tooManyRequests: line(RESOURCE_EXHAUSTED, 'too many requests', 'resource-exhausted'),

  leaseExists: line(FAILED_PRECONDITION, 'lease already exists', 'lease-exists'),
  memberExists: line(FAILED_PRECONDITION, 'member ID already exist', 'taken'),
  peerUrlExists: line(FAILED_PRECONDITION, 'Peer URLs already exists', 'taken'),
  notEnoughStarted: line(
    FAILED_PRECONDITION,
    're-configuration failed due to not enough started members',
    'unsupported',
  ),
  memberNotLearner: line(FAILED_PRECONDITION, 'can only promote a learner member', 'unsupported'),
  learnerNotReady: line(
    FAILED_PRECONDITION,
    'can only promote a learner member which is in sync with leader',
    'unsupported',
  ),
  tooManyLearners: line(FAILED_PRECONDITION, 'too many learner members in cluster', 'unsupported'),
  clusterIdMismatch: line(FAILED_PRECONDITION, 'cluster ID mismatch', 'unsupported'),
  notLeader: line(FAILED_PRECONDITION, 'not leader', 'unavailable'),
  badTransferee: line(FAILED_PRECONDITION, 'bad leader transferee', 'unsupported'),
  authNotEnabled: line(FAILED_PRECONDITION, 'authentication is not enabled', 'invalid-argument'),
  rootUserNotExist: line(FAILED_PRECONDITION, 'root user does not exist', 'invalid-argument'),
  rootRoleNotExist: line(
    FAILED_PRECONDITION,
    'root user does not have root role',
    'invalid-argument',
  ),
  userExists: line(FAILED_PRECONDITION, 'user name already exists', 'taken'),
  userNotFound: line(FAILED_PRECONDITION, 'user name not found', 'invalid-argument'),
  roleExists: line(FAILED_PRECONDITION, 'role name already exists', 'taken'),
  roleNotFound: line(FAILED_PRECONDITION, 'role name not found', 'invalid-argument'),
  roleNotGranted: line(FAILED_PRECONDITION, 'role is not granted to the user', 'invalid-argument'),
  permissionNotGranted: line(
    FAILED_PRECONDITION,
    'permission is not granted to the role',
    'invalid-argument',
  ),
  downgradeInProgress: line(
    FAILED_PRECONDITION,
    'cluster has a downgrade job in progress',
    'unsupported',
  ),
  noDowngrade: line(FAILED_PRECONDITION, 'no inflight downgrade job', 'unsupported'),

  compacted: line(OUT_OF_RANGE, 'mvcc: required revision has been compacted', 'compacted'),
  futureRevision: line(
    OUT_OF_RANGE,
    'mvcc: required revision is a future revision',
    'future-revision',
  ),
  leaseTtlTooLarge: line(OUT_OF_RANGE, 'too large lease TTL', 'lease-ttl-too-large'),

  invalidAuthToken: line(UNAUTHENTICATED, 'invalid auth token', 'unauthenticated'),

  noLeader: line(UNAVAILABLE, 'no leader', 'unavailable'),
  leaderChanged: line(UNAVAILABLE, 'leader changed', 'unavailable', true),
  stopped: line(UNAVAILABLE, 'server stopped', 'unavailable', true),
  timeout: line(UNAVAILABLE, 'request timed out', 'unavailable', true),
  timeoutLeader: line(
    UNAVAILABLE,
    'request timed out, possibly due to previous leader failure',
    'unavailable',
    true,
  ),
  timeoutConnection: line(
    UNAVAILABLE,
    'request timed out, possibly due to connection lost',
    'unavailable',
    true,
  ),
  timeoutApply: line(
    UNAVAILABLE,
    'request timed out, waiting for the applied index took too long',
    'unavailable',
    true,
  ),
  unhealthy: line(UNAVAILABLE, 'unhealthy cluster', 'unavailable'),
  notCapable: line(UNAVAILABLE, 'not capable', 'unsupported'),
  notForLearner: line(UNAVAILABLE, 'rpc not supported for learner', 'unsupported'),
  noClusterVersion: line(UNAVAILABLE, 'cluster version not found during downgrade', 'unavailable'),

  watchCanceled: line(CANCELLED, 'watch canceled', 'cancelled', true),
  requestCanceled: line(CANCELLED, 'request canceled', 'cancelled', true),
  contextDeadline: line(DEADLINE_EXCEEDED, 'context deadline exceeded', 'deadline-exceeded', true),
  corrupt: line(DATA_LOSS, 'corrupt cluster', 'corrupt'),
};

export type StatusName =
  | 'emptyKey'
  | 'keyNotFound'
  | 'valueProvided'
  | 'leaseProvided'
  | 'tooManyOps'
  | 'duplicateKey'
  | 'requestTooLarge'
  | 'badMemberUrls'
  | 'authFailed'
  | 'userEmpty'
  | 'roleEmpty'
  | 'permissionNotGiven'
  | 'invalidAuthManagement'
  | 'authOldRevision'
  | 'wrongDowngradeFormat'
  | 'invalidDowngradeTarget'
  | 'invalidSortOption'
  | 'invalidClientApiVersion'
  | 'leaseNotFound'
  | 'memberNotFound'
  | 'permissionDenied'
  | 'noSpace'
  | 'tooManyRequests'
  | 'leaseExists'
  | 'memberExists'
  | 'peerUrlExists'
  | 'notEnoughStarted'
  | 'memberNotLearner'
  | 'learnerNotReady'
  | 'tooManyLearners'
  | 'clusterIdMismatch'
  | 'notLeader'
  | 'badTransferee'
  | 'authNotEnabled'
  | 'rootUserNotExist'
  | 'rootRoleNotExist'
  | 'userExists'
  | 'userNotFound'
  | 'roleExists'
  | 'roleNotFound'
  | 'roleNotGranted'
  | 'permissionNotGranted'
  | 'downgradeInProgress'
  | 'noDowngrade'
  | 'compacted'
  | 'futureRevision'
  | 'leaseTtlTooLarge'
  | 'invalidAuthToken'
  | 'noLeader'
  | 'leaderChanged'
  | 'stopped'
  | 'timeout'
  | 'timeoutLeader'
  | 'timeoutConnection'
  | 'timeoutApply'
  | 'unhealthy'
  | 'notCapable'
  | 'notForLearner'
  | 'noClusterVersion'
  | 'watchCanceled'
  | 'requestCanceled'
  | 'contextDeadline'
  | 'corrupt';

/** Texts without etcd's prefix: of its embedded lock and election services, and of Go's contexts. */
const PLAIN: readonly StatusLine[] = [
  { code: UNKNOWN, message: 'mutex: session is expired', error: 'session-lost' },
  { code: UNKNOWN, message: 'election: not leader', error: 'not-leader' },
  { code: UNKNOWN, message: 'election: no leader', error: 'no-leader' },
  { code: UNKNOWN, message: '"leader" field must be provided', error: 'invalid-argument' },
  {
    code: UNKNOWN,
    message: 'auth: authentication failed, password was given for no password user',
    error: 'unauthenticated',
  },
  { code: CANCELLED, message: 'context canceled', error: 'cancelled', unknownOutcome: true },
  {
    code: DEADLINE_EXCEEDED,
    message: 'context deadline exceeded',
    error: 'deadline-exceeded',
    unknownOutcome: true,
  },
];

const BY_TEXT: ReadonlyMap<string, StatusLine> = new Map(
  [...Object.values<StatusLine>(STATUS), ...PLAIN].map((entry) => [entry.message, entry]),
);

/**
 * What a server says for each of our codes. A `StatusName` is said in etcd's words; a number is a
 * gRPC code under which our own message goes out.
 */
const BY_ERROR: Readonly<Record<ErrorCode, StatusName | number>> = {
  'invalid-argument': INVALID_ARGUMENT,
  'key-empty': 'emptyKey',
  'key-too-large': INVALID_ARGUMENT,
  'value-provided': 'valueProvided',
  'lease-provided': 'leaseProvided',
  'key-not-found': 'keyNotFound',
  'too-many-operations': 'tooManyOps',
  'duplicate-key': 'duplicateKey',
  'request-too-large': 'requestTooLarge',
  compacted: 'compacted',
  'future-revision': 'futureRevision',
  'no-space': 'noSpace',
  'lease-not-found': 'leaseNotFound',
  'lease-exists': 'leaseExists',
  'lease-ttl-too-large': 'leaseTtlTooLarge',
  'watch-overrun': RESOURCE_EXHAUSTED,
  unauthenticated: UNAUTHENTICATED,
  'permission-denied': 'permissionDenied',
  'resource-exhausted': RESOURCE_EXHAUSTED,
  unavailable: UNAVAILABLE,
  'deadline-exceeded': DEADLINE_EXCEEDED,
  cancelled: CANCELLED,
  closed: 'stopped',
  unsupported: UNIMPLEMENTED,
  corrupt: 'corrupt',
  'store-in-use': UNAVAILABLE,
  'store-not-found': UNAVAILABLE,
  'not-a-store': UNAVAILABLE,
  'store-truncated': DATA_LOSS,
  'store-too-new': UNAVAILABLE,
  'filesystem-unsuitable': UNAVAILABLE,
  'storage-failed': UNAVAILABLE,
  'era-regressed': FAILED_PRECONDITION,
  'not-acquired': ABORTED,
  'session-lost': FAILED_PRECONDITION,
  'grant-lost': FAILED_PRECONDITION,
  'not-leader': FAILED_PRECONDITION,
  'no-leader': FAILED_PRECONDITION,
  deadlock: ABORTED,
  conflict: ABORTED,
  taken: ALREADY_EXISTS,
  stale: FAILED_PRECONDITION,
  'token-invalid': INVALID_ARGUMENT,
  'token-unsealed': INVALID_ARGUMENT,
  'guard-unfit': FAILED_PRECONDITION,
  internal: INTERNAL,
};

/** Our code for a gRPC code whose text says nothing to us. */
const BY_CODE: readonly (readonly [ErrorCode, unknownOutcome: boolean])[] = [
  ['internal', true], // OK, which is no error
  ['cancelled', true],
  ['internal', true], // UNKNOWN
  ['invalid-argument', false],
  ['deadline-exceeded', true],
  ['invalid-argument', false], // NOT_FOUND
  ['taken', false],
  ['permission-denied', false],
  ['resource-exhausted', false],
  ['invalid-argument', false], // FAILED_PRECONDITION
  ['conflict', false],
  ['invalid-argument', false], // OUT_OF_RANGE
  ['unsupported', false],
  ['internal', true],
  ['unavailable', true],
  ['corrupt', true],
  ['unauthenticated', false],
];

/** The statuses of errors that carry one of their own. */
const OWN_STATUS = new WeakMap<Error, RpcStatus>();

/** An error of etcd's table, to be thrown by a service. */
export function rpcError(name: StatusName, cause?: unknown): HoldfastError {
  const entry: StatusLine = STATUS[name];
  const error = new HoldfastError(entry.error, entry.message, {
    ...(entry.unknownOutcome && { outcome: 'unknown' as const }),
    ...(cause !== undefined && { cause }),
  });
  OWN_STATUS.set(error, entry);
  return error;
}

/** An error that goes out under exactly this code and text. */
export function plainRpcError(code: number, message: string, error: ErrorCode): HoldfastError {
  const made = new HoldfastError(error, message);
  OWN_STATUS.set(made, { code, message });
  return made;
}

/** What a server answers for an error. Never throws; a foreign error does not tell its insides. */
export function statusOf(error: unknown): RpcStatus {
  if (!HoldfastError.is(error)) return { code: INTERNAL, message: 'internal error' };
  const own = OWN_STATUS.get(error);
  if (own) return { code: own.code, message: own.message };
  const named = BY_TEXT.get(error.message);
  if (named && named.error === error.code) return { code: named.code, message: named.message };
  const known = BY_ERROR[error.code] ?? UNKNOWN;
  if (typeof known === 'number') return { code: known, message: error.message };
  return { code: STATUS[known].code, message: STATUS[known].message };
}

/** Whether the failed call could have changed something. */
export type CallEffect = 'read' | 'write';

/**
 * What a client makes of a status that is not OK. A write whose answer leaves open whether it
 * happened gets `outcome: 'unknown'`; a read never does.
 */
export function errorOf(status: RpcStatus, effect: CallEffect, cause?: unknown): HoldfastError {
  const known = BY_TEXT.get(status.message);
  const [code, open] = known
    ? ([known.error, known.unknownOutcome === true] as const)
    : (BY_CODE[status.code] ?? (['internal', true] as const));
  const outcome: Outcome = open && effect === 'write' ? 'unknown' : 'rejected';
  const message =
    status.message === '' ? `the server answered with code ${status.code}` : status.message;
  const error = new HoldfastError(code, message, {
    outcome,
    ...(cause !== undefined && { cause }),
  });
  OWN_STATUS.set(error, { code: status.code, message: status.message });
  return error;
}

/** The gRPC status an error came with or would go out with, where one is attached to it. */
export function attachedStatus(error: unknown): RpcStatus | undefined {
  return error instanceof Error ? OWN_STATUS.get(error) : undefined;
}

/** What a watch's `cancel_reason` says, as an error. */
export function watchCancelError(reason: string): HoldfastError {
  const prefixed = reason.startsWith('etcdserver: ') ? reason : `etcdserver: ${reason}`;
  const known = BY_TEXT.get(prefixed) ?? BY_TEXT.get(reason);
  return new HoldfastError(known?.error ?? 'unavailable', reason || 'the watch was cancelled');
}

const HTTP: readonly number[] = [
  200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

/** The HTTP status of the JSON gateway for a gRPC code. */
export function httpStatusOf(code: number): number {
  return HTTP[code] ?? 500;
}

/** What a client makes of an HTTP status where no gRPC status came with it. */
export function codeOfHttpStatus(status: number): number {
  switch (status) {
    case 400:
      return INTERNAL;
    case 401:
      return UNAUTHENTICATED;
    case 403:
      return PERMISSION_DENIED;
    case 404:
      return UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
      return UNAVAILABLE;
    default:
      return UNKNOWN;
  }
}
