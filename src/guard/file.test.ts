import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FencedDirectory, type FileChange, type FileStep } from './file.ts';
import { generateSealKey, sealKeySet, sealToken } from './seal.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-file-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const content = (path: string): Promise<string> => readFile(join(root, path), 'utf8');
const files = async (): Promise<string[]> =>
  (await readdir(root, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !`${entry.parentPath}/`.includes('/.holdfast/'))
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .sort();

describe('a fenced directory', () => {
  it('is the storage server of the two clients, 33 and 34: the paused one changes nothing', async () => {
    const one = await FencedDirectory.open(root);
    const two = await FencedDirectory.open(root);
    await one.write(33n, 'file', 'from client 1');
    // Client 1 pauses; its lease runs out; client 2 gets token 34 and writes.
    await two.write({ token: 34n, holder: 'client 2' }, 'file', 'from client 2');
    for (const late of [
      () => one.write(33n, 'file', 'late'),
      () => one.append(33n, 'file', 'late'),
      () => one.delete(33n, 'file'),
      () => one.rename(33n, 'file', 'elsewhere'),
    ]) {
      await expect(late()).rejects.toThrow(/^stale: token 33 < mark 34 \(raised by client 2 at/);
    }
    expect(await files()).toEqual(['file']);
    expect(await content('file')).toBe('from client 2');
    await one.close();
    await two.close();
  });

  it('writes, appends, renames and deletes, in folders it makes', async () => {
    await using directory = await FencedDirectory.open(root);
    await directory.write(1n, 'a/b/c.txt', 'one');
    await directory.append(1n, 'a/b/c.txt', ' two');
    await directory.append(1n, 'log', 'x');
    await directory.rename(1n, 'a/b/c.txt', 'd.txt');
    await directory.delete(1n, 'log');
    expect(await files()).toEqual(['d.txt']);
    expect(await content('d.txt')).toBe('one two');
    expect((await directory.read('d.txt')).toString()).toBe('one two');
  });

  it('commits several files together, each token once where that is the rule', async () => {
    await using directory = await FencedDirectory.open(root);
    await directory.write(1n, 'old', 'o');
    const changes: FileChange[] = [
      { type: 'write', path: 'x', data: 'x' },
      { type: 'rename', from: 'old', to: 'new' },
      { type: 'append', path: 'log', data: 'line\n' },
    ];
    await directory.commit(2n, changes, { rule: 'once' });
    await expect(directory.commit(2n, changes, { rule: 'once' })).rejects.toThrow('only once');
    expect(await files()).toEqual(['log', 'new', 'x']);
  });

  it('finishes a commit that was cut off anywhere, or shows nothing of it', async () => {
    const steps: FileStep[] = ['staged', 'marked', 'applying', 'applied', 'cleared'];
    for (const [i, step] of steps.entries()) {
      for (const nth of step === 'applying' ? [1, 2, 3] : [1]) {
        const path = join(root, `${i}-${nth}`);
        const base = await FencedDirectory.open(path);
        await base.write(10n, 'a', 'old');
        await base.write(10n, 'log', 'first\n');
        await base.close();
        let seen = 0;
        const crashing = await FencedDirectory.open(path, {
          onStep: (at) => {
            if (at === step && ++seen === nth) throw new Error('crash');
          },
        });
        const cut = crashing.commit(11n, [
          { type: 'write', path: 'a', data: 'new' },
          { type: 'append', path: 'log', data: 'second\n' },
          { type: 'delete', path: 'absent' },
        ]);
        await expect(cut).rejects.toThrow('crash');
        await crashing.close();

        const after = await FencedDirectory.open(path);
        const happened = step !== 'staged';
        expect((await after.read('a')).toString()).toBe(happened ? 'new' : 'old');
        expect((await after.read('log')).toString()).toBe(happened ? 'first\nsecond\n' : 'first\n');
        expect(await after.mark()).toBe(happened ? 11n : 10n);
        if (happened) await expect(after.write(10n, 'a', 'late')).rejects.toThrow('stale');
        await after.write(12n, 'a', 'next');
        await after.close();
      }
    }
  });

  it('ends at the greatest token when many write at once, with its content', async () => {
    const open = await Promise.all(Array.from({ length: 4 }, () => FencedDirectory.open(root)));
    const tokens = Array.from({ length: 32 }, (_, i) => BigInt((i * 7) % 32) + 1n);
    await Promise.allSettled(tokens.map((t, i) => open[i % 4]!.write(t, 'f', String(t))));
    expect(await content('f')).toBe('32');
    expect(await open[0]!.mark()).toBe(32n);
    for (const each of open) await each.close();
  });

  it('commits in more directories at once than Node has threads', async () => {
    const all = await Promise.all(
      Array.from({ length: 12 }, (_, i) => FencedDirectory.open(join(root, `d${i}`))),
    );
    await Promise.all(all.flatMap((each) => [each.write(1n, 'f', 'x'), each.append(1n, 'g', 'y')]));
    for (const each of all) await each.close();
  });

  it('is opened by many at once: nobody removes what another one is trying', async () => {
    for (let round = 0; round < 5; round++) {
      const all = await Promise.all(Array.from({ length: 8 }, () => FencedDirectory.open(root)));
      for (const each of all) await each.close();
    }
  });

  it('fences reads on request: a newer writer makes the reader know', async () => {
    await using directory = await FencedDirectory.open(root);
    await directory.write(5n, 'f', 'x');
    await directory.read('f', 5n);
    await directory.write(6n, 'f', 'y');
    await expect(directory.read('f', 5n)).rejects.toMatchObject({ code: 'stale' });
  });

  it('holds off whoever is older before anything is written, and leaves what is there', async () => {
    await using directory = await FencedDirectory.open(root);
    await directory.write(5n, 'f', 'x');
    await directory.admit(6n);
    await expect(directory.write(5n, 'f', 'late')).rejects.toMatchObject({ code: 'stale' });
    await expect(directory.admit(5n)).rejects.toMatchObject({ code: 'stale' });
    expect(String(await directory.read('f', 6n))).toBe('x');
  });

  it('refuses paths that leave it, touch its own records, or could never be applied', async () => {
    await using directory = await FencedDirectory.open(root);
    await directory.write(1n, 'file', 'x');
    await directory.write(1n, 'folder/file', 'x');
    symlinkSync('/tmp', join(root, 'out'));
    symlinkSync('/tmp/holdfast-elsewhere', join(root, 'link'));
    for (const path of [
      '../x',
      '/etc/x',
      '.',
      '',
      '.holdfast/marks/data.mdb',
      'a/../.holdfast/x',
      'out/x',
      'link',
      'file/below',
      'folder',
      'folder/',
      'nul\0',
    ]) {
      await expect(directory.append(2n, path, 'x')).rejects.toMatchObject({
        code: 'invalid-argument',
        outcome: 'rejected',
      });
    }
    await expect(directory.rename(2n, 'absent', 'b')).rejects.toThrow('there is no file absent');
    await expect(
      directory.commit(2n, [
        { type: 'write', path: 'p', data: '' },
        { type: 'write', path: 'p/q', data: '' },
      ]),
    ).rejects.toThrow('below another');
    // As who has no types checked may write them; an intent of them could never be carried out.
    for (const change of [
      { type: 'write', path: 'a' },
      { type: 'append', path: 'a', data: 7 },
      { type: 'rename', from: 'a' },
      { type: 'delete' },
      { type: 'wipe', path: 'a' },
    ] as unknown as FileChange[]) {
      await expect(directory.commit(2n, [change])).rejects.toMatchObject({
        code: 'invalid-argument',
        outcome: 'rejected',
      });
    }
    await directory.write(2n, 'still', 'works');
  });

  it('removes what a killed process left staged', async () => {
    await (await FencedDirectory.open(root)).close();
    writeFileSync(join(root, '.holdfast/stage/999999999-abc'), 'left');
    await (await FencedDirectory.open(root)).close();
    expect(await readdir(join(root, '.holdfast/stage'))).toEqual([]);
  });

  it('refuses an invented 2^62 where seals are required, and stays usable', async () => {
    const keys = sealKeySet([generateSealKey('k')]);
    const seal = { keys, required: true };
    await using directory = await FencedDirectory.open(root, { seal, resource: 'disk' });
    await expect(directory.write(2n ** 62n, 'f', 'x')).rejects.toMatchObject({
      code: 'token-unsealed',
    });
    const claims = { tenant: '', resource: 'disk', holder: 'h', expiresAtMs: Date.now() + 60_000 };
    await directory.write(sealToken(keys, { ...claims, token: 3n }), 'f', 'sealed');
    expect(await content('f')).toBe('sealed');
  });
});
