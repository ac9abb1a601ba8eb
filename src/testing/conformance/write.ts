/** Single puts and deletes: revisions, versions, previous values, kept values and leases. */
import { expectEqual, expectError } from './expect.ts';
import { type ConformanceCase, group } from './suite.ts';
import { asDelete, asPut, type TestStore } from './test-store.ts';

export function writeCases(): readonly ConformanceCase[] {
  return [...group('put', PUTS), ...group('delete', DELETES)];
}

const PUTS = [
  {
    name: 'a put takes the next revision, also when nothing changes in value',
    run: async (store: TestStore) => {
      const first = await store.put('a', 'same');
      const second = await store.put('a', 'same');
      expectEqual(second, first + 1);
      expectEqual(await store.revision(), second);
    },
  },
  {
    name: 'version counts puts since creation and createRevision stays',
    run: async (store: TestStore) => {
      const created = await store.put('a', '1');
      await store.put('b', 'x');
      const changed = await store.put('a', '2');
      expectEqual(await store.get('a'), {
        key: 'a',
        value: '2',
        create: created,
        mod: changed,
        version: 2,
        lease: 0n,
      });
    },
  },
  {
    name: 'a put after a delete starts at version 1 with a new createRevision',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      await store.put('a', '2');
      await store.remove('a');
      const again = await store.put('a', '3');
      const kv = await store.get('a');
      expectEqual([kv?.version, kv?.create, kv?.mod], [1, again, again]);
    },
  },
  {
    name: 'prevKv answers the former pair, and nothing for a new key',
    run: async (store: TestStore) => {
      const r1 = await store.put('a', 'old');
      const prev = await store.putPrev('a', 'new');
      expectEqual(prev && store.plain(prev), {
        key: 'a',
        value: 'old',
        create: r1,
        mod: r1,
        version: 1,
        lease: 0n,
      });
      expectEqual(await store.putPrev('fresh', 'x'), undefined);
      await store.remove('a');
      expectEqual(await store.putPrev('a', 'y'), undefined);
      const silent = await store.run(store.putOp('a', 'z'));
      expectEqual(asPut(silent.results[0]).prevKv, undefined);
    },
  },
  {
    name: 'ignoreValue keeps the value and still counts as a put',
    run: async (store: TestStore) => {
      await store.put('a', 'kept');
      const lease = await store.grantLong();
      const { header } = await store.run(store.keepValueOp('a', { lease: lease.id }));
      const kv = await store.get('a');
      expectEqual([kv?.value, kv?.version, kv?.mod], ['kept', 2, header.revision]);
      expectEqual(kv?.lease, lease.id);
    },
  },
  {
    name: 'ignoreLease keeps the lease',
    run: async (store: TestStore) => {
      const lease = await store.grantLong();
      await store.put('a', '1', { lease: lease.id });
      await store.put('a', '2', { ignoreLease: true });
      expectEqual([(await store.get('a'))?.value, (await store.get('a'))?.lease], ['2', lease.id]);
      await store.engine.revokeLease(lease.id);
      expectEqual(await store.get('a'), undefined);
    },
  },
  {
    name: 'ignoreValue with a value and ignoreLease with a lease are refused',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const lease = await store.grantLong();
      const withValue = store.putOp('a', 'new', { ignoreValue: true });
      await expectError(store.run(withValue), 'value-provided', 'rejected');
      const withLease = store.putOp('a', 'new', { ignoreLease: true, lease: lease.id });
      await expectError(store.run(withLease), 'lease-provided', 'rejected');
      expectEqual((await store.get('a'))?.version, 1);
    },
  },
  {
    name: 'ignoreValue and ignoreLease need a key that exists',
    run: async (store: TestStore) => {
      await store.put('gone', '1');
      const before = await store.remove('gone');
      for (const name of ['never', 'gone']) {
        await expectError(store.run(store.keepValueOp(name)), 'key-not-found', 'rejected');
        const keepLease = store.putOp(name, 'x', { ignoreLease: true });
        await expectError(store.run(keepLease), 'key-not-found', 'rejected');
      }
      expectEqual(await store.revision(), before);
    },
  },
  {
    name: 'puts under way at once take different revisions',
    run: async (store: TestStore) => {
      const before = await store.revision();
      const revisions = await Promise.all(
        Array.from({ length: 50 }, (_, i) => store.put(`k${i}`, 'x')),
      );
      const sorted = [...revisions].sort((a, b) => a - b);
      expectEqual(
        sorted,
        sorted.map((_, i) => before + 1 + i),
      );
      for (const [i, revision] of revisions.entries()) {
        expectEqual((await store.get(`k${i}`))?.mod, revision);
      }
    },
  },
  {
    name: 'who has an answer reads its effect',
    run: async (store: TestStore) => {
      for (let i = 0; i < 30; i++) {
        const revision = await store.put('a', String(i));
        const { header } = await store.range();
        expectEqual([(await store.get('a'))?.value, header.revision], [String(i), revision]);
      }
    },
  },
];

const DELETES = [
  {
    name: 'a delete of nothing takes no revision',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const { header, results } = await store.run(store.deleteOp('b', { prevKv: true }));
      expectEqual([header.revision, asDelete(results[0]).deleted], [before, 0]);
      expectEqual(asDelete(results[0]).prevKvs.length, 0);
      const range = await store.run(store.deleteOp(['x', 'z']));
      expectEqual([range.header.revision, asDelete(range.results[0]).deleted], [before, 0]);
    },
  },
  {
    name: 'a range delete removes all its keys in one revision and counts them',
    run: async (store: TestStore) => {
      for (const name of ['a', 'b', 'c', 'd']) await store.put(name, name);
      const before = await store.revision();
      const { header, results } = await store.run(store.deleteOp(['a', 'd']));
      expectEqual([header.revision, asDelete(results[0]).deleted], [before + 1, 3]);
      expectEqual(asDelete(results[0]).prevKvs.length, 0);
      expectEqual(await store.names(), ['d']);
    },
  },
  {
    name: 'prevKv answers the deleted pairs in key order',
    run: async (store: TestStore) => {
      for (const name of ['c', 'a', 'b']) await store.put(name, name.toUpperCase());
      const { results } = await store.run(store.deleteOp(['a', 'z'], { prevKv: true }));
      const { prevKvs } = asDelete(results[0]);
      expectEqual(
        prevKvs.map((kv) => store.plain(kv)).map((kv) => [kv.key, kv.value]),
        [
          ['a', 'A'],
          ['b', 'B'],
          ['c', 'C'],
        ],
      );
    },
  },
  {
    name: 'a key is deleted once',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const results = await Promise.all([1, 2, 3].map(() => store.run(store.deleteOp('a'))));
      const deleted = results.map((result) => asDelete(result.results[0]).deleted);
      expectEqual([...deleted].sort(), [0, 0, 1]);
    },
  },
  {
    name: 'a delete of a prefix leaves its neighbours',
    run: async (store: TestStore) => {
      for (const name of ['dir', 'dir/a', 'dir/b', 'dir0', 'dis']) await store.put(name, '');
      await store.remove(['dir/', 'dir0']);
      expectEqual(await store.names(), ['dir', 'dir0', 'dis']);
    },
  },
];
