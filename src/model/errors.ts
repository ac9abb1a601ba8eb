/**
 * Every error a caller can meet. One class, a closed set of codes, and for each error whether the
 * operation may have happened.
 *
 * `rejected`: nothing changed. `unknown`: it may have been applied; ask before doing it again
 * (the recipes do this themselves). Broken invariants are not here: they throw a plain `Error`.
 */

/** code → what it means; the table in the docs is made from it. */
export const ERROR_CODES = {
  'invalid-argument': 'The request itself is wrong; it will fail again unchanged.',
  'key-empty': 'A key must have at least one byte.',
  'key-too-large': 'The key is longer than this engine stores.',
  'value-provided': 'A put that keeps the present value must not bring one.',
  'lease-provided': 'A put that keeps the present lease must not bring one.',
  'key-not-found': 'A put that keeps the value or lease needs a key that exists.',
  'too-many-operations': 'The transaction has more operations than the limit.',
  'duplicate-key': 'One branch of a transaction writes a key twice.',
  'request-too-large': 'The request is larger than the limit.',
  compacted: 'The revision asked for has been compacted away.',
  'future-revision': 'The revision asked for does not exist yet.',
  'no-space': 'The space quota is used up; delete, compact, then disarm the alarm.',
  'lease-not-found': 'The lease does not exist, has expired or was revoked.',
  'lease-exists': 'A lease with this id already exists.',
  'lease-ttl-too-large': 'The time to live is beyond the limit.',
  'watch-overrun': 'The reader fell too far behind; resume from the revision in the error.',
  unauthenticated: 'The credentials are missing, wrong or outdated.',
  'permission-denied': 'The caller may not do this.',
  'resource-exhausted': 'A limit or quota stands against this request.',
  unavailable: 'The authority cannot be reached or cannot answer now.',
  'deadline-exceeded': 'No answer came in time.',
  cancelled: 'The caller aborted.',
  closed: 'The client, engine or stream has been closed.',
  unsupported: 'This engine or server cannot do this; see its capabilities.',
  corrupt: 'Stored data is damaged; nothing was dropped or repaired.',
  'store-in-use': 'Another process owns this store.',
  'store-not-found': 'There is no store at this place.',
  'not-a-store': 'The place holds something that is not a Holdfast store.',
  'store-truncated': 'The store is shorter than it must be.',
  'store-too-new': 'The store was written by a newer version.',
  'filesystem-unsuitable': 'This file system cannot keep the promises a store makes.',
  'storage-failed': 'The disk refused a write or a sync; the store stopped.',
  'era-regressed': 'The authority has gone back in time (a restore); lift its era first.',
  'not-acquired': 'The lock, permit or leadership was not free within the wait.',
  'session-lost': 'The session ended; what it held is gone.',
  'grant-lost': 'The grant is no longer held.',
  'not-leader': 'The caller is not the leader.',
  'no-leader': 'There is no leader.',
  deadlock: 'Waiting here would close a cycle of holders and waiters.',
  conflict: 'Another writer was faster, again and again; try later.',
  taken: 'The name already belongs to someone else.',
  stale: 'The token is older than the mark; a newer holder has acted.',
  'token-invalid': 'This is not a token.',
  'token-unsealed': 'This guard wants a sealed token, and the seal is missing or wrong.',
  'guard-unfit': 'The resource only pretends to be atomic; the guard refuses to stand on it.',
  internal: 'A fault in the software; please report it.',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;
export type Outcome = 'rejected' | 'unknown';

export interface ErrorDetails {
  /** With `compacted`: the oldest revision still readable. */
  readonly compactRevision?: number;
  /** With `watch-overrun`: start again here and nothing is missed. */
  readonly resumeRevision?: number;
  /** With `stale`: the refused token and the mark that refused it. */
  readonly token?: bigint;
  readonly mark?: bigint;
  /** Why a grant or session ended. */
  readonly reason?: LossReason;
  /** With `deadlock`: the names in the cycle, in order. */
  readonly cycle?: readonly string[];
  /** With `store-in-use`: who owns it. */
  readonly owner?: string;
  /** With `token-unsealed`: what is wrong with the seal. */
  readonly seal?: SealFault;
}

export type SealFault =
  | 'missing'
  | 'malformed'
  | 'unknown-key'
  | 'forged'
  | 'other-resource'
  | 'other-tenant'
  | 'other-token'
  | 'expired'
  | 'from-the-future';

export type LossReason =
  | 'expired'
  | 'revoked'
  | 'broken'
  | 'unreachable'
  | 'suspended'
  | 'unhealthy'
  | 'released'
  | 'closed';

export interface ErrorOptions extends ErrorDetails {
  readonly outcome?: Outcome;
  readonly cause?: unknown;
}

export class HoldfastError extends Error {
  override readonly name = 'HoldfastError';
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    const { outcome, cause, ...details } = options;
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.outcome = outcome ?? 'rejected';
    this.details = details;
  }

  /** Works across two copies of the package, where `instanceof` would not. */
  static is(error: unknown, code?: ErrorCode): error is HoldfastError {
    const candidate = error as Partial<HoldfastError> | undefined;
    return (
      error instanceof Error &&
      candidate?.name === 'HoldfastError' &&
      typeof candidate.code === 'string' &&
      (code === undefined || candidate.code === code)
    );
  }

  /** Any thrown value as a HoldfastError; an abort becomes `cancelled`, the rest `internal`. */
  static from(error: unknown, outcome: Outcome = 'unknown'): HoldfastError {
    if (HoldfastError.is(error)) return error;
    const aborted = error instanceof Error && error.name === 'AbortError';
    const message = error instanceof Error ? error.message : String(error);
    return new HoldfastError(aborted ? 'cancelled' : 'internal', message, {
      outcome,
      cause: error,
    });
  }
}

/** What an aborted call throws: the caller's own reason if it is an error of ours. */
export function abortError(signal: AbortSignal, outcome: Outcome): HoldfastError {
  const { reason } = signal;
  if (HoldfastError.is(reason)) return reason;
  const timeout = reason instanceof Error && reason.name === 'TimeoutError';
  return new HoldfastError(
    timeout ? 'deadline-exceeded' : 'cancelled',
    timeout ? 'no answer came in time' : 'the caller aborted',
    { outcome, cause: reason },
  );
}
