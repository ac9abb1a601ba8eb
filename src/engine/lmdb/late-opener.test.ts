/**
 * Another process opens the data file while a commit is made. LMDB then takes an older root for the
 * newest: the first test shows that it does, the others set its note back by hand.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { locate } from '../../../scripts/packages.mjs';
import { LockFile } from '../../../test/lock-file.ts';
import { text, utf8 } from '../../base/bytes.ts';
import { claimElsewhere } from './claim.ts';
import { DATA_FILE } from './directory.ts';
import { Journal } from './journal.ts';
import { type OpenedStore, openStore } from './opening.ts';
import { Tree } from './tree.ts';

const NATIVE = pathToFileURL(join(import.meta.dirname, 'native.ts')).href;
const OPENER = `
const { openNative } = await import(process.argv[1]);
await openNative(process.argv[2]).close();
`;

let directory: string;
let path: string;
let lock: LockFile | undefined;
const stores: OpenedStore[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-late-opener-'));
  path = join(directory, 'store');
});

afterEach(async () => {
  vi.restoreAllMocks();
  for (const opened of stores.splice(0)) await opened.close();
  lock?.close();
  lock = undefined;
  rmSync(directory, { recursive: true, force: true });
});

async function open(): Promise<OpenedStore> {
  const opened = await openStore(path, { shared: true });
  stores.push(opened);
  return opened;
}

/** Puts the key, and has it in the tree. */
async function put({ store }: OpenedStore, key: string): Promise<void> {
  await store.commit((table) => table.put(utf8(key), utf8(key)));
  await store.settle();
}

const has = ({ store }: OpenedStore, key: string): boolean =>
  store.committed.get(utf8(key)) !== undefined;

/** That of the moment. */
function lockFile(): LockFile {
  lock ??= new LockFile(path);
  return lock;
}

/** What this is worth: LMDB as it would be without a look at the roots. */
function unguarded({ native, tree }: OpenedStore): void {
  const stats = native.getStats.bind(native);
  const transact = native.transactionSync.bind(native);
  native.transactionSync = (work) =>
    transact(() => {
      native.getStats = () => ({ ...stats(), lastTxnId: native.getWriteTxnId() - 1 });
      return work();
    });
  tree.ensureOwned = () => {};
}

describe.skipIf(locate('strace') === undefined)('a process that opens the data file', () => {
  it('sets LMDB back by a commit that is made meanwhile', async () => {
    const opened = await open();
    // The thread that folds is there.
    await opened.store.settle();
    const before = lockFile().note();
    expect(before).toBe(opened.store.head.sequence);
    const trace = join(directory, 'trace');
    const child = spawn(
      locate('strace')!,
      [
        ...['-f', '-qqq', '-o', trace, '-P', join(path, DATA_FILE)],
        ...['-e', 'trace=mmap,pread64', '-e', 'inject=mmap:delay_enter=3000000'],
        ...[process.execPath, '--conditions=holdfast/source', '--import', 'tsx'],
        ...['--input-type=module', '--eval', OPENER, NATIVE, path],
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    const ended = new Promise((resolve) => child.once('exit', resolve));
    // Both roots have been read, and the file is about to be mapped.
    const hasRead = (): boolean =>
      existsSync(trace) &&
      (readFileSync(trace, 'utf8').match(/pread64.* = \d+$/gm)?.length ?? 0) >= 2;
    while (!hasRead() && child.exitCode === null) await pause(5);
    await put(opened, 'meanwhile');
    expect(lockFile().note()).toBe(before + 1);
    expect(await ended).toBe(0);
    expect(lockFile().note()).toBe(before);
    // And what the store makes of it.
    expect(has(opened, 'meanwhile')).toBe(true);
    expect(lockFile().note()).toBe(before + 1);
  }, 30_000);
});

describe('a root that LMDB takes for the newest', () => {
  it('is not read from: the note is set right', async () => {
    const opened = await open();
    await put(opened, 'a');
    await put(opened, 'b');
    const right = lockFile().note();
    lockFile().setBack();
    expect(['a', 'b'].map((key) => has(opened, key))).toEqual([true, true]);
    expect(lockFile().note()).toBe(right);
  });

  it('is no ground for a work: nothing comes of what it would have found', async () => {
    const opened = await open();
    const take = (who: string): Promise<void> =>
      opened.store.commit((table) => {
        if (!table.get(utf8('lock'))) table.put(utf8('lock'), utf8(who));
      });
    await put(opened, 'a');
    await take('holder');
    await opened.store.settle();
    lockFile().setBack();
    await take('thief');
    expect(text(opened.store.committed.get(utf8('lock'))!)).toBe('holder');
  });

  it('does not hide a claim from the owner before it', async () => {
    const opened = await open();
    const { sequence, ownerEpoch } = opened.store.head;
    const rival = { pid: 1, host: 'here', socket: 'shared-00.sock' };
    await claimElsewhere(path, { sequence, ownerEpoch }, rival);
    lockFile().setBack();
    expect(() => opened.store.ensureOwned()).toThrow('fenced out');
    await expect(put(opened, 'late')).rejects.toMatchObject({ code: 'storage-failed' });
  });

  it('of two commits before is none to read from, and is not written on', async () => {
    const opened = await open();
    await put(opened, 'a');
    await put(opened, 'b');
    const right = lockFile().note();
    lockFile().setBack(2);
    expect(['a', 'b'].map((key) => has(opened, key))).toEqual([true, true]);
    // It leads to the root of its parity, which is the newest.
    expect(lockFile().note()).toBe(right - 2);
    await put(opened, 'c');
    expect(['a', 'b', 'c'].map((key) => has(opened, key))).toEqual([true, true, true]);
    expect(lockFile().note()).toBe(right + 1);
  });

  it('is not folded on by the thread', async () => {
    const opened = await open();
    await put(opened, 'a');
    await put(opened, 'b');
    const { ensureOwned } = opened.tree;
    const refresh = opened.tree.refresh.bind(opened.tree);
    // Only the thread looks.
    opened.tree.ensureOwned = () => {};
    opened.tree.refresh = (sequence) => {
      opened.tree.ensureOwned = ensureOwned;
      refresh(sequence);
    };
    lockFile().setBack();
    await put(opened, 'c');
    expect(opened.store.failure).toBeUndefined();
    expect(['a', 'b', 'c'].map((key) => has(opened, key))).toEqual([true, true, true]);
  });

  it('is not taken for what the thread has just folded', async () => {
    const opened = await open();
    await put(opened, 'a');
    expect(has(opened, 'a')).toBe(true);
    const refresh = opened.tree.refresh.bind(opened.tree);
    opened.tree.refresh = (sequence) => {
      lockFile().setBack();
      refresh(sequence);
      expect(opened.tree.head.sequence).toBe(sequence);
    };
    await put(opened, 'b');
    expect(opened.store.failure).toBeUndefined();
    expect(has(opened, 'b')).toBe(true);
  });

  it('is not claimed', async () => {
    const first = await open();
    await put(first, 'a');
    await first.close();
    const claim = Tree.claim;
    vi.spyOn(Tree, 'claim').mockImplementationOnce((...parts) => {
      lockFile().setBack();
      return claim(...parts);
    });
    const next = await open();
    expect(has(next, 'a')).toBe(true);
    expect(next.store.head.ownerEpoch).toBe(first.store.head.ownerEpoch + 1);
  });

  it('is not folded on at a start', async () => {
    const first = await open();
    await first.store.commit((table) => table.put(utf8('a'), utf8('a')));
    first.tree.fold = () => {
      throw new Error('as if it were killed');
    };
    await first.close();
    const create = Journal.create;
    vi.spyOn(Journal, 'create').mockImplementationOnce((options) => {
      lockFile().setBack();
      return create(options);
    });
    const next = await open();
    expect(has(next, 'a')).toBe(true);
    expect(next.store.head.ownerEpoch).toBe(first.store.head.ownerEpoch + 1);
  });

  it('that is ahead of both is not written on', async () => {
    const opened = await open();
    await put(opened, 'a');
    lockFile().setBack(-2);
    await put(opened, 'b');
    expect(opened.store.failure).toMatchObject({ code: 'unavailable' });
    await opened.close();
    const next = await open();
    expect(['a', 'b'].map((key) => has(next, key))).toEqual([true, true]);
  });

  it('that cannot be set right is neither read from nor written on', async () => {
    for (const by of [1, 2]) {
      const opened = await open();
      await put(opened, 'a');
      await put(opened, 'b');
      lockFile().disguise();
      lockFile().setBack(by);
      if (by === 1) {
        const refused = expect.objectContaining({ code: 'unavailable' });
        expect(() => has(opened, 'b')).toThrow(refused);
      }
      await put(opened, 'c').catch(() => {});
      expect(opened.store.failure).toMatchObject({ code: 'unavailable' });
      expect(() => opened.store.look()).toThrow('stopped');
      lockFile().reveal();
      await opened.close();
      const next = await open();
      const kept = by === 1 ? ['a', 'b'] : ['a', 'b', 'c'];
      expect(kept.map((key) => has(next, key))).toEqual(kept.map(() => true));
      await next.close();
    }
  });

  it('control: without a look at the roots an acknowledged commit is undone', async () => {
    const opened = await open();
    unguarded(opened);
    await put(opened, 'a');
    await put(opened, 'b');
    lockFile().setBack();
    opened.tree.fold((table) => table.put(utf8('c'), utf8('c')), opened.tree.head.journal);
    expect(['a', 'b', 'c'].map((key) => has(opened, key))).toEqual([true, false, true]);
  });
});
