/**
 * LMDB's note of its newest commit, in the lock file that all processes have mapped: it says from
 * which root everybody goes on. Where it is too old (`tree.ts` says how that comes) whoever finds it
 * so sets it right, for all.
 */
import { openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { LOCK_FILE } from './directory.ts';

const MAGIC = 0xbeefc0de;
const NOTE_AT = 8;

/**
 * The lock files that had to be set right. They stay open as long as the process: a close would end
 * the locks that LMDB holds on the file.
 */
const files = new Map<string, number>();

function lockFile(directory: string): number {
  const path = join(directory, LOCK_FILE);
  const { dev, ino } = statSync(path, { bigint: true });
  const known = files.get(`${dev} ${ino}`);
  if (known !== undefined) return known;
  const fd = openSync(path, 'r+');
  files.set(`${dev} ${ino}`, fd);
  return fd;
}

/**
 * Lets LMDB go on from commit `newest`, or a later one. Between this look and the write another
 * process may note its own commit: then the note is too old once more, and found to be so.
 */
export function raiseNote(directory: string, newest: number): void {
  const fd = lockFile(directory);
  // In the byte order of the machine, as LMDB writes them.
  const [magic] = read(fd, new Uint32Array(1), 0);
  const [noted] = read(fd, new BigUint64Array(1), NOTE_AT);
  if (magic !== MAGIC || noted! >= newest) return;
  writeSync(fd, BigUint64Array.of(BigInt(newest)), 0, 8, NOTE_AT);
}

function read<T extends Uint32Array | BigUint64Array>(fd: number, into: T, at: number): T {
  readSync(fd, into, 0, into.byteLength, at);
  return into;
}
