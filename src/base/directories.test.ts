import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inThread } from '../../test/source-thread.ts';
import { makeDirectory } from './directories.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-directories-'));
});

afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

describe('a directory', () => {
  it('is made with all above it, private where that is asked, and once', () => {
    const path = join(root, 'a', 'b', 'c');
    makeDirectory(path, 0o700);
    makeDirectory(path);
    for (const each of [path, join(root, 'a')]) expect(statSync(each).mode & 0o777).toBe(0o700);
  });

  it('is not made in the place of a file, or below one', () => {
    writeFileSync(join(root, 'file'), '');
    const make =
      (...names: string[]) =>
      () =>
        makeDirectory(join(root, ...names));
    expect(make('file')).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(make('file', 'a', 'b')).toThrow(expect.objectContaining({ code: 'ENOTDIR' }));
  });

  it('is made by several at once', async () => {
    const path = join(import.meta.dirname, 'directories.ts');
    const work = `for (let i = 0; i < 1_000; i++) source.makeDirectory(data.root + '/' + i + '/a/b');`;
    await Promise.all([1, 2, 3].map(() => inThread(path, work, { root })));
    expect(readdirSync(root)).toHaveLength(1_000);
  });

  it.runIf(existsSync('/proc/self'))('is refused where the system makes none', () => {
    expect(() => makeDirectory('/proc/none/here')).toThrow(
      expect.objectContaining({ code: 'ENOENT' }),
    );
  });
});
