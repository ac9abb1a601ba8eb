/**
 * LMDB's note of its newest commit, in the lock file that all processes have mapped: it says from
 * which root everybody goes on. Whoever opens the data file sets it to what he read there a moment
 * before, so a commit that came in between is passed over, and the next one written in its place.
 * Whoever opens LMDB here therefore looks at the roots themselves, and sets a note right that is too
 * old, for all.
 *
 * A lock file that was opened for it stays open: a close would end the locks that LMDB has on it for
 * the whole process. So it is left alone in threads that take their descriptors with them.
 */
import { type BigIntStats, fstatSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';

export const LOCK_FILE = 'lock.mdb';

/** How often the note is set right for one look or commit: each opener can spoil it once. */
export const NOTE_ATTEMPTS = 5;

const MAGIC = 0xbeefc0de;
const NOTE_AT = 8;

/** An open LMDB. */
export interface Noted {
  readonly directory: string;
  /** Which lock file it has mapped. */
  readonly lockFile: string;
  /** With the number of the newest commit, by the roots in the data file. */
  getStats(): { readonly lastTxnId: number };
  /** Of the transaction under way. */
  getWriteTxnId(): number;
}

let descriptorsStay = isMainThread;

/** Said in a thread whose descriptors stay open when it ends. */
export function leaveDescriptors(): void {
  descriptorsStay = true;
}

/** Which lock file stands in the directory. */
export function lockFileOf(directory: string): string {
  return identity(statSync(join(directory, LOCK_FILE), { bigint: true }));
}

/**
 * In a transaction, where nobody else writes a root: whether it goes on from the newest. If not, it
 * must write nothing; the next one may find the note set right.
 */
export function goesOnFromNewest(native: Noted): boolean {
  if (native.getWriteTxnId() === native.getStats().lastTxnId + 1) return true;
  raiseNote(native);
  return false;
}

/**
 * Lets LMDB go on from the newest commit. Between this look and the write another process may note
 * its own commit: then the note is too old once more, and found to be so. Where nothing can be done
 * the callers' own looks decide.
 */
export function raiseNote(native: Pick<Noted, 'directory' | 'lockFile' | 'getStats'>): void {
  const { directory, lockFile } = native;
  if (!descriptorsStay) return;
  try {
    const fd = opened(directory, lockFile);
    if (fd === undefined) return;
    const newest = native.getStats().lastTxnId;
    // In the byte order of the machine, as LMDB writes them.
    const [magic] = read(fd, new Uint32Array(1), 0);
    const [noted] = read(fd, new BigUint64Array(1), NOTE_AT);
    if (magic !== MAGIC || noted! >= newest) return;
    writeSync(fd, BigUint64Array.of(BigInt(newest)), 0, 8, NOTE_AT);
  } catch {
    // No descriptor left, or the file is gone.
  }
}

const files = new Map<string, number>();

/** Undefined: another lock file stands there by now. */
function opened(directory: string, lockFile: string): number | undefined {
  if (!files.has(lockFile) && lockFileOf(directory) === lockFile) {
    const fd = openSync(join(directory, LOCK_FILE), 'r+');
    files.set(identity(fstatSync(fd, { bigint: true })), fd);
  }
  return files.get(lockFile);
}

function identity({ dev, ino }: BigIntStats): string {
  return `${dev} ${ino}`;
}

function read<T extends Uint32Array | BigUint64Array>(fd: number, into: T, at: number): T {
  readSync(fd, into, 0, into.byteLength, at);
  return into;
}
