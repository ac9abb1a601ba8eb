import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inThread } from '../../test/source-thread.ts';
import { LOCK_FILE, lockFileOf, raiseNote } from './lmdb-note.ts';

const MAGIC = 0xbeefc0de;
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-note-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

function write(note: bigint, magic = MAGIC): void {
  const bytes = Buffer.alloc(64);
  new Uint32Array(bytes.buffer, bytes.byteOffset, 1)[0] = magic;
  new BigUint64Array(bytes.buffer, bytes.byteOffset + 8, 1)[0] = note;
  writeFileSync(join(directory, LOCK_FILE), bytes);
}

function raise(lockFile: string, newest: number): void {
  raiseNote({ directory, lockFile, getStats: () => ({ lastTxnId: newest }) });
}

function note(): bigint {
  const bytes = Uint8Array.from(readFileSync(join(directory, LOCK_FILE)));
  return new BigUint64Array(bytes.buffer, 8, 1)[0]!;
}

describe('the note', () => {
  it('is raised, and never lowered', () => {
    write(6n);
    raise(lockFileOf(directory), 7);
    expect(note()).toBe(7n);
    raise(lockFileOf(directory), 5);
    expect(note()).toBe(7n);
  });

  it('is left alone in a file that is not LMDB’s', () => {
    write(6n, 1);
    raise(lockFileOf(directory), 7);
    expect(note()).toBe(6n);
  });

  it('is left alone in a lock file that has come in the place of the one in use', () => {
    write(6n);
    const mapped = lockFileOf(directory);
    // Still open somewhere, as a mapped file is, so that the next one cannot be the same.
    const fd = openSync(join(directory, LOCK_FILE), 'r');
    rmSync(join(directory, LOCK_FILE));
    write(1n);
    raise(mapped, 7);
    expect(note()).toBe(1n);
    rmSync(join(directory, LOCK_FILE));
    expect(() => raise(mapped, 7)).not.toThrow();
    closeSync(fd);
  });

  // The end of such a thread would close the lock file, and with it end the locks of the process.
  it.each([
    { what: 'left alone in a thread that takes it along', leave: false, left: 6n },
    { what: 'raised in a thread whose descriptors stay', leave: true, left: 7n },
  ])('is $what', async ({ leave, left }) => {
    write(6n);
    const work = `
      const { directory, leave } = data;
      const lockFile = source.lockFileOf(directory);
      if (leave) source.leaveDescriptors();
      source.raiseNote({ directory, lockFile, getStats: () => ({ lastTxnId: 7 }) });
    `;
    const path = join(import.meta.dirname, 'lmdb-note.ts');
    await inThread(path, work, { directory, leave }, { trackUnmanagedFds: !leave });
    expect(note()).toBe(left);
  });
});
