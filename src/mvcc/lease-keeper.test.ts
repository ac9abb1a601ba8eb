/** When the authority itself stood still: what its holders said meanwhile is heard before leases end. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { systemRandom } from '../base/system.ts';
import type { Engine } from '../engine/contract.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { MemoryStore } from '../engine/memory/store.ts';
import type { LeaseId } from '../model/transaction.ts';
import { Committer } from './committer.ts';
import { decodeLease, FRESH_STATE, leaseKey } from './layout.ts';
import { LeaseKeeper } from './lease-keeper.ts';

const TTL_MS = 2_000;

let clock: ManualClock;
let engine: Engine;

beforeEach(async () => {
  clock = new ManualClock();
  engine = await openMemoryEngine({ clock });
});

afterEach(() => engine.close());

async function grant(): Promise<LeaseId> {
  return (await engine.grantLease({ ttlMs: TTL_MS })).id;
}

/** Commits that are under way come to their end. */
async function settled(): Promise<void> {
  await engine.txn({ success: [{ type: 'put', key: Uint8Array.of(1) }] });
}

async function living(): Promise<LeaseId[]> {
  await settled();
  return [...(await engine.operator!.leases())];
}

describe('after a pause of the authority', () => {
  it('renewals that waited count, and leases without one end soon', async () => {
    const renewed = await grant();
    await grant();
    clock.skip(10 * TTL_MS);
    clock.advance(0);
    expect((await living()).length).toBe(2);
    await engine.keepAlive(renewed);
    clock.advance(1_000);
    expect(await living()).toEqual([renewed]);
    clock.advance(TTL_MS);
    expect(await living()).toEqual([]);
  });

  it('a renewal counts also if it is read before anything else', async () => {
    const renewed = await grant();
    clock.skip(10 * TTL_MS);
    await engine.keepAlive(renewed);
    clock.advance(TTL_MS - 1);
    expect(await living()).toEqual([renewed]);
  });

  it('leases end although another pause follows at once', async () => {
    await grant();
    clock.skip(10 * TTL_MS);
    clock.advance(0);
    clock.skip(10 * TTL_MS);
    clock.advance(0);
    expect(await living()).toEqual([]);
  });
});

it('many leases that end together do not look like a pause', async () => {
  for (let i = 0; i < 2_500; i++) await grant();
  clock.advance(TTL_MS);
  for (let left = 2_500; left > 0; ) {
    // To end them takes its time.
    clock.skip(150);
    await settled();
    await settled();
    clock.advance(0);
    const now = (await engine.operator!.leases()).length;
    expect(now).toBeLessThan(left);
    left = now;
  }
});

it('a renewal that is acknowledged is what a restart would give, whatever falls due meanwhile', async () => {
  const store = new MemoryStore();
  let keeper: LeaseKeeper | undefined;
  const committer = new Committer({
    store,
    state: FRESH_STATE,
    leases: { has: () => true },
    now: () => clock.now(),
    effects: () => keeper!.effects(),
    publish: (_state, _changes, effects) => keeper!.published(effects),
    failed: () => {},
  });
  keeper = new LeaseKeeper({ clock, random: systemRandom, ttlMsMin: 1_000 }, () => committer);
  const lease = await keeper.grant({ ttlMs: 60_000 }, () => {});
  const stored = (): number => decodeLease(store.committed.get(leaseKey(lease.id))!).remainingMs;
  clock.advance(30_000);
  await committer.settled();
  expect(stored()).toBe(30_000);
  clock.advance(14_990);
  const renewal = keeper.keepAlive(lease.id);
  await Promise.resolve();
  // The next half is gone while the renewal is on its way to the disk.
  clock.advance(20);
  await renewal;
  await committer.settled();
  expect(stored()).toBe(60_000);
});

it('an id that is granted again right after its lease was revoked, twice, keeps the new lease', async () => {
  const id = 77n;
  await engine.grantLease({ id, ttlMs: TTL_MS });
  const first = engine.revokeLease(id);
  const second = engine.revokeLease(id);
  await expect(second).rejects.toMatchObject({ code: 'lease-not-found' });
  await first;
  await engine.grantLease({ id, ttlMs: TTL_MS });
  expect(await living()).toEqual([id]);
  await settled();
  await engine.keepAlive(id);
  clock.advance(TTL_MS - 1);
  expect(await living()).toEqual([id]);
});
