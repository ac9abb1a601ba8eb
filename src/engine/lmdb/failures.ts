/** What a store says when it stops, and what its callers are told. */
import { HoldfastError, type Outcome } from '../../model/errors.ts';

/** What was on its way to the disk may have been there before the other process claimed. */
export function fencedOut(): HoldfastError {
  return new HoldfastError(
    'storage-failed',
    'another process has taken this store over; this one is fenced out and writes nothing more',
    { outcome: 'unknown' },
  );
}

/** Who it is, a second look tells. */
export function claimedElsewhere(): HoldfastError {
  return new HoldfastError('store-in-use', 'another process claimed the store just now');
}

/** See `tree.ts`. The data file has everything; only this view of it goes no further. */
export class RootSetBack extends HoldfastError {
  constructor() {
    super(
      'unavailable',
      'LMDB takes another commit of this store for the newest, and could not be set right: nothing ' +
        'was written in its place, and nothing is lost; open the store again',
      { outcome: 'unknown' },
    );
  }
}

export function closedError(): HoldfastError {
  return new HoldfastError('closed', 'the store has been closed');
}

/** What a call meets that comes after the failure. */
export function refusal(failure: HoldfastError): HoldfastError {
  return new HoldfastError(failure.code, `the store has stopped: ${failure.message}`, {
    cause: failure,
  });
}

/** An exception of a work: everything has been put back, so nothing happened. */
export function faultOf(error: unknown): HoldfastError {
  if (HoldfastError.is(error, 'corrupt')) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new HoldfastError('storage-failed', `a commit was taken back: ${message}`, {
    cause: error,
  });
}

const NO_SPACE = new Set<unknown>([28, 122, 'ENOSPC', 'EDQUOT', -30792]);

/** Whether the disk had no room for it. */
export function isNoSpace(error: unknown): boolean {
  for (
    let one = error;
    one !== undefined && one !== null;
    one = (one as { cause?: unknown }).cause
  ) {
    if (NO_SPACE.has((one as { code?: unknown }).code)) return true;
    if (one instanceof Error && /no space/i.test(one.message)) return true;
  }
  return false;
}

/** LMDB's locks are gone: the last other process that had the file open closed it at that moment. */
const EINVAL = 22;

/** What comes from below while a store is opened. A fault in the software is not for a caller. */
export function openingFailed(path: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message: string };
  const fault = code === undefined || String(code).startsWith('ERR_');
  if (HoldfastError.is(error) || fault) return error;
  const text = `the store at ${path} could not be opened (${message})`;
  if (code === EINVAL) return new HoldfastError('unavailable', text, { cause: error });
  const advice = isNoSpace(error) ? 'make room and' : 'see to the cause, and';
  return new HoldfastError('storage-failed', `${text}: ${advice} open it again`, { cause: error });
}

/** The disk or LMDB refused a commit: whether it is there afterwards is mostly not known. */
export function storageFailed(error: unknown, outcome: Outcome = 'unknown'): HoldfastError {
  if (HoldfastError.is(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new HoldfastError(
    'storage-failed',
    isNoSpace(error)
      ? `the disk is full (${message}): make room and open the store again; what was acknowledged is there`
      : `the disk refused a commit (${message}): the store stopped, and what was acknowledged is there`,
    { outcome, cause: error },
  );
}
