/**
 * Another process opens the marks while one is raised, and LMDB takes an older root for the newest:
 * `engine/lmdb/late-opener.test.ts` shows that it does. A mark that reads lower than it was would let
 * a stale token pass.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open } from 'lmdb';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LockFile } from '../../test/lock-file.ts';
import { FencedDirectory } from './file.ts';
import type { Claim } from './gate.ts';
import { LmdbMarks } from './mark-table.ts';

let root: string;
const ends: (() => unknown)[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-late-opener-'));
});

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  rmSync(root, { recursive: true, force: true });
});

const claim = (token: bigint): Claim => ({ resource: 'r', token, holder: 'h', fresh: false });

/** Marks that stand at 3 and then 5, by two commits. */
async function raised(): Promise<{ marks: LmdbMarks; lockFile: LockFile }> {
  const marks = LmdbMarks.open(root);
  for (const token of [3n, 5n]) await marks.raise(claim(token), 'reign', 1);
  return { marks, lockFile: watched(root, () => marks.close()) };
}

function watched(directory: string, close: () => Promise<void>): LockFile {
  const lockFile = new LockFile(directory);
  ends.push(close, () => lockFile.close());
  return lockFile;
}

describe('marks whose newest commit LMDB passed over', () => {
  it('are read as they are', async () => {
    const { marks, lockFile } = await raised();
    lockFile.setBack();
    expect((await marks.mark('r')).token).toBe(5n);
  });

  // Two back the note names the root of its parity, which is the newest, and is still too old.
  it.each([1, 2])('refuse what they refused before, %i back', async (by) => {
    const { marks, lockFile } = await raised();
    lockFile.setBack(by);
    expect(await marks.raise(claim(4n), 'reign', 2)).toMatchObject({ admitted: false });
    expect(await marks.raise(claim(6n), 'reign', 2)).toMatchObject({ admitted: true });
    expect(await marks.raise(claim(5n), 'reign', 2)).toMatchObject({ admitted: false });
  });

  it('keep a file from a stale token', async () => {
    const directory = await FencedDirectory.open(root);
    const write = (token: bigint, data: string): Promise<void> =>
      directory.commit({ token, holder: 'h' }, [{ type: 'write', path: 'a', data }]);
    const lockFile = watched(join(root, '.holdfast', 'marks'), () => directory.close());
    await write(3n, 'three');
    await write(5n, 'five');
    for (const by of [1, 2]) {
      lockFile.setBack(by);
      await expect(write(4n, 'four')).rejects.toMatchObject({ code: 'stale' });
      expect(readFileSync(join(root, 'a'), 'utf8')).toBe('five');
    }
  });

  it('are as good where somebody wrote no number, as former versions', async () => {
    const { marks, lockFile } = await raised();
    const former = open<string>({ path: root, noSubdir: false, encoding: 'string' } as object);
    ends.push(() => former.close());
    for (let round = 0; round < 2; round++) {
      await former.put('else', 'x');
      if (round === 1) lockFile.setBack();
      expect(await marks.raise(claim(4n), 'reign', 2)).toMatchObject({ admitted: false });
      // And now it has one again.
      expect(former.get('newest')).toMatch(new RegExp(` ${lockFile.note()}$`));
    }
  });

  it('are neither read nor raised where that cannot be set right', async () => {
    const { marks, lockFile } = await raised();
    lockFile.disguise();
    lockFile.setBack();
    await expect(marks.mark('r')).rejects.toMatchObject({ code: 'unavailable' });
    await expect(marks.raise(claim(4n), 'reign', 2)).rejects.toMatchObject({ code: 'unavailable' });
    lockFile.reveal();
    expect((await marks.mark('r')).token).toBe(5n);
  });

  it('control: LMDB by itself forgets a mark', async () => {
    const raw = open<string>({ path: root, noSubdir: false, overlappingSync: false } as object);
    const lockFile = watched(root, () => raw.close());
    for (const mark of ['3', '5']) await raw.put('mark', mark);
    lockFile.setBack();
    await raw.put('another', 'x');
    expect(raw.get('mark')).toBe('3');
  });
});
