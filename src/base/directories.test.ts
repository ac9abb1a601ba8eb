import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
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
    const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx/package.json'));
    const program = `
      const { loader, module, root } = require('node:worker_threads').workerData;
      import(loader).then(async ({ register }) => {
        register();
        const { makeDirectory } = await import(module);
        for (let i = 0; i < 1_000; i++) makeDirectory(root + '/' + i + '/a/b');
      });
    `;
    const workerData = {
      loader: new URL('./dist/esm/api/index.mjs', tsx).href,
      module: pathToFileURL(join(import.meta.dirname, 'directories.ts')).href,
      root,
    };
    const threads = [1, 2, 3].map(() => new Worker(program, { eval: true, workerData }));
    // An error of a thread is one of the test.
    await Promise.all(threads.map((thread) => once(thread, 'exit')));
    expect(readdirSync(root)).toHaveLength(1_000);
  });

  it.runIf(existsSync('/proc/self'))('is refused where the system makes none', () => {
    expect(() => makeDirectory('/proc/none/here')).toThrow(
      expect.objectContaining({ code: 'ENOENT' }),
    );
  });
});
