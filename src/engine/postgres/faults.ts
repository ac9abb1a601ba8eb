/**
 * What a failed message means: whether it may have been applied, whether to send it again, and how
 * it is told. Judged by SQLSTATE alone, never by text.
 *
 * An error that the server reports for a message means that its transaction was rolled back. A
 * connection that ends without an answer says nothing, and so does a server that says only that it
 * is going down: it may have committed just before.
 */
import { type ErrorCode, HoldfastError } from '../../model/errors.ts';
import { NotSentError, sqlState } from './driver.ts';

export interface Fault {
  readonly code: ErrorCode;
  readonly message: string;
  /** The message may have been applied. */
  readonly maybe: boolean;
  /** The same message may succeed later. */
  readonly retry: boolean;
  readonly cause: unknown;
}

/** Thrown by `Exchange`; turned into a HoldfastError by whoever knows the outcome as a whole. */
export class ExchangeError extends Error {
  override readonly name = 'ExchangeError';
  readonly fault: Fault;

  constructor(fault: Fault) {
    super(fault.message, { cause: fault.cause });
    this.fault = fault;
  }

  /** As the caller sees it. */
  told(maybe: boolean): HoldfastError {
    const { code, message, cause } = this.fault;
    return new HoldfastError(code, message, { outcome: maybe ? 'unknown' : 'rejected', cause });
  }
}

/** Rolled back by the server for a passing reason: conflict, deadlock, timeout, standby. */
const PASSING = new Set(['40001', '40P01', '55P03', '57014', '25006', '53200', '53300', '53400']);

/** The server rolled back, and would again. */
const LASTING: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  '53100': ['no-space', 'the database has no space left on its disk'],
  '42P01': ['store-not-found', 'the tables of the schema are gone'],
  '3F000': ['store-not-found', 'the schema is gone'],
  '3D000': ['store-not-found', 'the database does not exist'],
  '42883': ['store-not-found', 'the functions of the schema are gone'],
  '42501': ['permission-denied', 'the database user may not do this'],
};

export function faultOf(error: unknown): Fault {
  const notSent = error instanceof NotSentError;
  const cause = notSent ? error.cause : error;
  const text = cause instanceof Error ? cause.message : String(cause);
  const state = sqlState(cause);
  const lasting = state === undefined ? undefined : LASTING[state];
  if (lasting) {
    const [code, message] = lasting;
    return { code, message: `${message}: ${text}`, maybe: false, retry: false, cause };
  }
  if (state?.startsWith('28')) {
    const message = `the database refused the credentials: ${text}`;
    return { code: 'unauthenticated', message, maybe: false, retry: false, cause };
  }
  const message = `the database cannot answer now: ${text}`;
  if (notSent || (state !== undefined && PASSING.has(state))) {
    return { code: 'unavailable', message, maybe: false, retry: true, cause };
  }
  if (state === undefined || state.startsWith('08') || state.startsWith('57P')) {
    return { code: 'unavailable', message, maybe: true, retry: true, cause };
  }
  const strange = `the database refused a request: ${text} (${state})`;
  return { code: 'internal', message: strange, maybe: false, retry: false, cause };
}
