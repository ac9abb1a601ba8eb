/** Leases: granted, renewed, attached, ended by hand and by time, and kept over a restart. */

import { HoldfastError } from '../../model/errors.ts';
import { LEASE_TTL_MS_MAX } from '../../model/lease.ts';
import type { LeaseId } from '../../model/transaction.ts';
import { expectEqual, expectError, expectTrue } from './expect.ts';
import { type ConformanceCase, group, type Need } from './suite.ts';
import { EXPIRY_LATE_MS, type TestStore } from './test-store.ts';

/** An id that no other test uses, so that cases can run on a shared server. */
let nextId = 0x5eed_0000_0000_0000n;
function freshId(store: TestStore): LeaseId {
  let mixed = nextId++;
  for (const byte of store.prefix) mixed = (mixed * 31n + BigInt(byte)) % 2n ** 62n;
  return mixed + 1n;
}

async function alive(store: TestStore, id: LeaseId): Promise<boolean> {
  return store.engine.leaseInfo(id).then(
    () => true,
    (error: unknown) => {
      if (HoldfastError.is(error, 'lease-not-found')) return false;
      throw error;
    },
  );
}

export function leaseCases(): readonly ConformanceCase[] {
  return [
    ...group('lease: life', LIFE),
    ...group('lease: keys', KEYS),
    ...group('lease: time', TIME),
    ...group('lease: restart', RESTART),
  ];
}

const LIFE = [
  {
    name: 'a granted lease has a positive id of its own and at least the TTL asked for',
    run: async (store: TestStore) => {
      const a = await store.grant(60_000);
      const b = await store.grant(60_000);
      expectTrue(a.id > 0n && a.id < 2n ** 63n, 'the id is a positive 63-bit number');
      expectTrue(a.id !== b.id, 'two leases have two ids');
      expectEqual([a.ttlMs, b.ttlMs], [60_000, 60_000]);
    },
  },
  {
    name: 'a grant, a renewal and a revoke without keys take no revision',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const { id, header } = await store.grantLong();
      const renewal = await store.engine.keepAlive(id);
      const revoked = await store.engine.revokeLease(id);
      const seen = [header.revision, renewal.header.revision, revoked.revision];
      expectEqual(seen, [before, before, before]);
    },
  },
  {
    name: 'the caller may choose the id, and an id that lives cannot be granted again',
    run: async (store: TestStore) => {
      const id = freshId(store);
      expectEqual((await store.grant(60_000, id)).id, id);
      await expectError(store.engine.grantLease({ id, ttlMs: 60_000 }), 'lease-exists', 'rejected');
      await store.engine.revokeLease(id);
      expectEqual((await store.grant(60_000, id)).id, id);
    },
  },
  {
    name: 'a negative or too large id is refused',
    run: async (store: TestStore) => {
      for (const id of [-1n, -(2n ** 63n), 2n ** 63n]) {
        const grant = store.engine.grantLease({ id, ttlMs: 60_000 });
        await expectError(grant, 'invalid-argument', 'rejected');
      }
      await expectError(store.engine.keepAlive(-1n), ['lease-not-found', 'invalid-argument']);
      await expectError(store.engine.revokeLease(-1n), ['lease-not-found', 'invalid-argument']);
      await expectError(store.engine.leaseInfo(-1n), ['lease-not-found', 'invalid-argument']);
      const put = store.run(store.putOp('a', '1', { lease: -1n }));
      await expectError(put, ['lease-not-found', 'invalid-argument'], 'rejected');
    },
  },
  {
    name: 'a TTL below the minimum is raised to it, zero and negative ones included',
    run: async (store: TestStore) => {
      const { leaseTtlMsMin } = store.engine.capabilities;
      for (const ttlMs of [leaseTtlMsMin - 1, 1, 0, -5]) {
        expectEqual(
          (await store.grant(ttlMs)).ttlMs,
          leaseTtlMsMin,
          `the TTL granted for ${ttlMs}`,
        );
      }
    },
  },
  {
    name: 'a TTL is rounded up to the step of the engine',
    run: async (store: TestStore) => {
      const { leaseTtlMsStep } = store.engine.capabilities;
      const { ttlMs } = await store.grant(60_000 + 1);
      expectEqual(ttlMs, Math.ceil(60_001 / leaseTtlMsStep) * leaseTtlMsStep);
    },
  },
  {
    name: 'a TTL beyond the limit is refused',
    run: async (store: TestStore) => {
      const grant = store.engine.grantLease({ ttlMs: LEASE_TTL_MS_MAX + 1_000 });
      await expectError(grant, 'lease-ttl-too-large', 'rejected');
    },
  },
  {
    name: 'what is asked of an unknown lease is answered with lease-not-found',
    run: async (store: TestStore) => {
      const id = freshId(store);
      await expectError(store.engine.keepAlive(id), 'lease-not-found', 'rejected');
      await expectError(store.engine.revokeLease(id), 'lease-not-found', 'rejected');
      await expectError(store.engine.leaseInfo(id), 'lease-not-found', 'rejected');
      const put = store.run(store.putOp('a', '1', { lease: id }));
      await expectError(put, 'lease-not-found', 'rejected');
    },
  },
  {
    name: 'leaseInfo tells the TTL granted, the time left and, when asked, the keys in order',
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grantLong();
      for (const name of ['c', 'a', 'b']) await store.put(name, '', { lease: id });
      const info = await store.engine.leaseInfo(id, { keys: true });
      expectEqual([info.id, info.grantedTtlMs], [id, ttlMs]);
      const left = info.remainingTtlMs;
      expectTrue(left > ttlMs - 60_000 && left <= ttlMs, `${left} ms of ${ttlMs} are left`);
      expectEqual(
        (info.keys ?? []).map((key) => store.name(key)),
        ['a', 'b', 'c'],
      );
      expectEqual((await store.engine.leaseInfo(id)).keys, undefined);
    },
  },
  {
    name: 'of two revokes under way at once one succeeds',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      await store.put('a', '1', { lease: id });
      const before = await store.revision();
      const ends = await Promise.allSettled([1, 2, 3].map(() => store.engine.revokeLease(id)));
      expectEqual(ends.filter((end) => end.status === 'fulfilled').length, 1);
      for (const end of ends) {
        if (end.status === 'rejected') {
          await expectError(Promise.reject(end.reason), 'lease-not-found', 'rejected');
        }
      }
      expectEqual(await store.revision(), before + 1);
    },
  },
];

const KEYS = [
  {
    name: 'a revoke deletes all keys of the lease in one revision, its events sorted by key',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      for (const name of ['c', 'a', 'd', 'b']) await store.put(name, name, { lease: id });
      const base = await store.put('other', 'stays');
      const follower = await store.watch({ startRevision: base + 1 });
      const { revision } = await store.engine.revokeLease(id);
      expectEqual(revision, base + 1);
      const events = await follower.take(4);
      const expected = ['delete a @1', 'delete b @1', 'delete c @1', 'delete d @1'];
      expectEqual(store.told(events, base), expected);
      expectEqual(await store.names(), ['other']);
      await expectError(store.engine.keepAlive(id), 'lease-not-found');
    },
  },
  {
    name: 'a put with another lease moves the key to it',
    run: async (store: TestStore) => {
      const old = await store.grantLong();
      const next = await store.grantLong();
      await store.put('a', '1', { lease: old.id });
      await store.put('a', '2', { lease: next.id });
      const before = await store.revision();
      expectEqual((await store.engine.revokeLease(old.id)).revision, before);
      expectEqual((await store.get('a'))?.value, '2');
      expectEqual((await store.engine.leaseInfo(next.id, { keys: true })).keys?.length, 1);
      await store.engine.revokeLease(next.id);
      expectEqual(await store.get('a'), undefined);
    },
  },
  {
    name: 'a put without a lease detaches the key',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      await store.put('a', '1', { lease: id });
      await store.put('a', '2');
      expectEqual((await store.engine.leaseInfo(id, { keys: true })).keys, []);
      await store.engine.revokeLease(id);
      expectEqual([(await store.get('a'))?.value, (await store.get('a'))?.lease], ['2', 0n]);
    },
  },
  {
    name: 'a put with the same lease attaches the key once',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      await store.put('a', '1', { lease: id });
      await store.put('a', '2', { lease: id });
      const { keys } = await store.engine.leaseInfo(id, { keys: true });
      expectEqual(
        keys?.map((key) => store.name(key)),
        ['a'],
      );
    },
  },
  {
    name: 'a deleted key is detached, and a key made again without the lease outlives it',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      await store.put('a', '1', { lease: id });
      await store.remove('a');
      expectEqual((await store.engine.leaseInfo(id, { keys: true })).keys, []);
      await store.put('a', '2');
      await store.engine.revokeLease(id);
      expectEqual((await store.get('a'))?.value, '2');
    },
  },
  {
    name: 'reads in the past show the lease a key had then',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      const with_ = await store.put('a', '1', { lease: id });
      await store.put('a', '2');
      expectEqual((await store.get('a', { revision: with_ }))?.lease, id);
      expectEqual((await store.get('a'))?.lease, 0n);
    },
  },
  {
    name: 'keys of a lease in a transaction are attached by that transaction as a whole',
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      const request = {
        compare: [store.missing('a')],
        success: [store.putOp('a', '1', { lease: id }), store.putOp('b', '1', { lease: id })],
        failure: [store.deleteOp('b')],
      };
      await store.txn(request);
      await store.txn(request);
      const { keys } = await store.engine.leaseInfo(id, { keys: true });
      expectEqual(
        keys?.map((key) => store.name(key)),
        ['a'],
      );
    },
  },
];

const TIME = [
  {
    name: 'a lease that nobody renews ends after its TTL and takes its keys along in one revision',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const { id, ttlMs } = await store.grant();
      await store.run(store.putOp('b', '1', { lease: id }), store.putOp('a', '1', { lease: id }));
      const follower = await store.watch({ startRevision: base + 2 });
      const gone = async () => (await store.range({ countOnly: true })).count === 0;
      await store.passUntil(gone, ttlMs + EXPIRY_LATE_MS, 'the keys are gone');
      const events = await follower.take(2);
      expectEqual(store.told(events, base), ['delete a @2', 'delete b @2']);
      await expectError(store.engine.keepAlive(id), 'lease-not-found');
      await expectError(store.engine.leaseInfo(id), 'lease-not-found');
      const put = store.run(store.putOp('late', '', { lease: id }));
      await expectError(put, 'lease-not-found', 'rejected');
    },
  },
  {
    name: 'a lease never ends before its TTL',
    needs: ['clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant();
      await store.put('a', '1', { lease: id });
      for (let passed = 0; passed < ttlMs - 1; passed += Math.ceil(ttlMs / 7)) {
        await store.pass(Math.min(Math.ceil(ttlMs / 7), ttlMs - 1 - passed));
        expectTrue(await alive(store, id), `the lease lives within its TTL`);
        expectEqual((await store.get('a'))?.version, 1);
      }
    },
  },
  {
    name: 'a renewal gives the full TTL again, counted from the renewal',
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant();
      await store.put('a', '1', { lease: id });
      for (let round = 0; round < 3; round++) {
        await store.pass(ttlMs * 0.6);
        const renewal = await store.engine.keepAlive(id);
        expectEqual([renewal.id, renewal.ttlMs], [id, ttlMs]);
      }
      expectEqual((await store.get('a'))?.version, 1);
      const gone = async () => (await store.get('a')) === undefined;
      await store.passUntil(gone, ttlMs + EXPIRY_LATE_MS, 'the key is gone');
    },
  },
  {
    name: 'the time left shrinks as time passes and a renewal restores it',
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant();
      await store.pass(ttlMs * 0.6);
      const { remainingTtlMs } = await store.engine.leaseInfo(id);
      const step = store.engine.capabilities.leaseTtlMsStep;
      expectTrue(
        remainingTtlMs >= 0 && remainingTtlMs <= ttlMs * 0.4 + step,
        `${remainingTtlMs} of ${ttlMs} ms are left`,
      );
      await store.engine.keepAlive(id);
      const again = await store.engine.leaseInfo(id);
      expectTrue(
        again.remainingTtlMs > ttlMs - step - 1_000,
        `${again.remainingTtlMs} ms are left`,
      );
    },
  },
  {
    name: 'many leases that end at one moment all end, each in a revision of its own',
    needs: ['clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const leases = await Promise.all(Array.from({ length: 50 }, () => store.grant()));
      for (const [i, { id }] of leases.entries()) await store.put(`k${i}`, '', { lease: id });
      const before = await store.revision();
      await store.pass(store.ttlMs);
      const gone = async () => (await store.range({ countOnly: true })).count === 0;
      await store.passUntil(gone, EXPIRY_LATE_MS, 'all keys are gone');
      expectEqual(await store.revision(), before + 50);
    },
  },
  {
    name: 'a lease can be granted again under the id of one that has ended',
    needs: ['clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const id = freshId(store);
      const { ttlMs } = await store.grant(store.ttlMs, id);
      await store.put('old', '', { lease: id });
      await store.passUntil(
        async () => !(await alive(store, id)) && !(await store.get('old')),
        ttlMs + EXPIRY_LATE_MS,
        'the lease is gone',
      );
      await store.grant(store.ttlMs, id);
      await store.put('new', '', { lease: id });
      await store.pass(store.ttlMs / 2);
      expectEqual(await store.names(), ['new']);
    },
  },
  {
    name: 'a jump of the wall clock ends no lease and prolongs none',
    needs: ['clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant();
      const clock = store.clock!;
      clock.setWall(clock.wall() + 10 * 3_600_000);
      await store.pass(ttlMs / 2);
      expectTrue(await alive(store, id), 'the lease lives after a jump ahead');
      clock.setWall(clock.wall() - 20 * 3_600_000);
      await store.passUntil(
        async () => !(await alive(store, id)),
        ttlMs / 2 + EXPIRY_LATE_MS,
        'the lease ends',
      );
    },
  },
];

const RESTART = [
  {
    name: 'a restart forgets no lease and keeps its keys attached',
    needs: ['reopen'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grantLong();
      await store.put('a', '1', { lease: id });
      await store.reopen();
      const info = await store.engine.leaseInfo(id, { keys: true });
      expectEqual([info.grantedTtlMs, info.keys?.map((key) => store.name(key))], [ttlMs, ['a']]);
      expectEqual((await store.engine.keepAlive(id)).ttlMs, ttlMs);
      await store.engine.revokeLease(id);
      expectEqual(await store.get('a'), undefined);
    },
  },
  {
    name: 'a restart prolongs a lease by no more than one TTL',
    needs: ['reopen', 'clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant(60_000);
      await store.put('a', '1', { lease: id });
      await store.pass(ttlMs * 0.9);
      await store.reopen();
      const { remainingTtlMs } = await store.engine.leaseInfo(id);
      expectTrue(remainingTtlMs <= ttlMs, `${remainingTtlMs} of ${ttlMs} ms are left`);
      const gone = async () => (await store.get('a')) === undefined;
      await store.passUntil(gone, ttlMs + EXPIRY_LATE_MS, 'the key is gone');
    },
  },
  {
    name: 'restarts again and again do not keep a dead lease alive for ever',
    needs: ['reopen', 'clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant(60_000);
      await store.put('a', '1', { lease: id });
      let restarts = 0;
      while ((await store.get('a')) && restarts < 12) {
        await store.pass(ttlMs * 0.7);
        await store.reopen();
        restarts++;
      }
      expectTrue(restarts < 12, 'the lease ended while the store was restarted every 0.7 TTL');
    },
  },
  {
    name: 'a lease does not end early because of a restart',
    needs: ['reopen', 'clock'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id, ttlMs } = await store.grant(60_000);
      await store.pass(ttlMs * 0.3);
      await store.engine.keepAlive(id);
      await store.reopen();
      await store.pass(ttlMs * 0.4);
      expectTrue(await alive(store, id), 'the lease lives 0.4 TTL after its renewal');
    },
  },
  {
    name: 'a revoked lease stays revoked after a restart',
    needs: ['reopen'] as readonly Need[],
    run: async (store: TestStore) => {
      const { id } = await store.grantLong();
      await store.put('a', '1', { lease: id });
      await store.engine.revokeLease(id);
      await store.reopen();
      await expectError(store.engine.leaseInfo(id), 'lease-not-found');
      expectEqual(await store.get('a'), undefined);
    },
  },
];
