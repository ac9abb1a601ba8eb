/** A disk without room, for real: a small file system in memory, which takes root to mount. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { type LmdbEngine, openLmdbEngine } from './engine.ts';
import { openStore } from './opening.ts';

const HOT = utf8('hot');
const DISK_BYTES = 16 * 2 ** 20;
let disk: string;
let mounted = false;
let engine: LmdbEngine;

function mount(): boolean {
  const flags = ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', disk];
  return process.getuid?.() === 0 && spawnSync('mount', flags).status === 0;
}

beforeEach(() => {
  disk = mkdtempSync(join(tmpdir(), 'holdfast-full-'));
  mounted = mount();
});

afterEach(async () => {
  if (mounted) {
    await engine?.close();
    spawnSync('umount', [disk]);
  }
  rmSync(disk, { recursive: true, force: true });
});

/** Takes all of the disk but `left` bytes. */
function fill(left: number): void {
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(join(disk, 'filler'), new Uint8Array(Math.max(0, bavail * bsize - left)));
}

function put(name: string, lease?: bigint): Promise<unknown> {
  const value = new Uint8Array(2_000).fill(7);
  const operation = { type: 'put' as const, key: utf8(name), value };
  return engine.txn({ success: [lease ? { ...operation, lease } : operation] });
}

describe('a full disk', () => {
  it('refuses what needs room, keeps leases alive, and comes back when there is room', async (test) => {
    if (!mounted) return test.skip('mounting a file system takes root');
    const path = join(disk, 'store');
    const journal = { firstBytes: 65_536, mostBytes: 262_144 };
    engine = await openLmdbEngine(path, { journal });
    const lease = await engine.grantLease({ ttlMs: 60_000 });
    await put('held', lease.id);
    fill(300_000);
    let written = 0;
    const writing = (async () => {
      for (; written < 20_000; written++) await put(`key/${written}`);
    })();
    await expect(writing).rejects.toMatchObject({ code: 'no-space' });
    expect(written).toBeGreaterThan(5);
    expect((await engine.status()).alarms).toEqual(['no-space']);
    // What a full disk must not stop.
    await engine.keepAlive(lease.id);
    expect((await engine.range({ key: utf8('key/1') })).count).toBe(1);
    await engine.txn({ success: [{ type: 'delete', key: utf8('key/1') }] });
    await engine.revokeLease(lease.id);
    expect((await engine.range({ key: utf8('held') })).count).toBe(0);
    await expect(put('more')).rejects.toMatchObject({ code: 'no-space' });
    rmSync(join(disk, 'filler'));
    // One more batch, and the store notices that there is room.
    await engine.txn({ success: [{ type: 'delete', key: utf8('key/2') }] });
    await expect
      .poll(async () => {
        await engine.operator.disarm('no-space');
        return put('again').then(
          () => 'written',
          (error: { code: string }) => error.code,
        );
      })
      .toBe('written');
    await engine.close();
    engine = await openLmdbEngine(path);
    const kept = await engine.range({ key: utf8('key/'), end: utf8('key0') });
    expect(kept.count).toBe(written - 2);
    expect((await engine.range({ key: utf8('again') })).count).toBe(1);
  });

  it.for([100_000, 400_000])(
    'with %i bytes left refuses a start, and keeps nothing of it',
    async (left, test) => {
      if (!mounted) return test.skip('mounting a file system takes root');
      const path = join(disk, 'store');
      await crashed(path, 10);
      fill(left);
      const before = readdirSync(path);
      await expect(openStore(path)).rejects.toMatchObject({
        code: 'storage-failed',
        message: expect.stringContaining('make room'),
      });
      expect(readdirSync(path)).toEqual(before);
      rmSync(join(disk, 'filler'));
      const { store, close } = await openStore(path);
      expect(store.committed.get(HOT)?.[0]).toBe(9);
      await close();
    },
  );

  it('lets a start fold far more than it has left, where little comes of it', async (test) => {
    if (!mounted) return test.skip('mounting a file system takes root');
    const path = join(disk, 'store');
    await crashed(path, 1_500);
    fill(1_000_000);
    const { store, close } = await openStore(path);
    expect(store.committed.get(HOT)?.[0]).toBe(1_499 % 256);
    await close();
  });
});

/** A store that is killed with one key in its journal, put again and again. */
async function crashed(path: string, puts: number): Promise<void> {
  const { store, tree, close } = await openStore(path);
  for (let i = 0; i < puts; i++) {
    await store.commit((table) => table.put(HOT, new Uint8Array(2_000).fill(i)));
  }
  tree.fold = () => {
    throw new Error('as if it were killed');
  };
  await close();
}
