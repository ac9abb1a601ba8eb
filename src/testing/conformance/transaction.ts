/** Transactions: branches, order, atomicity, nesting, duplicate keys. */
import { text } from '../../base/bytes.ts';
import type { Operation } from '../../model/transaction.ts';
import { expectEqual, expectError } from './expect.ts';
import { type ConformanceCase, group } from './suite.ts';
import { asDelete, asNested, asPut, asRange, type TestStore } from './test-store.ts';

export function transactionCases(): readonly ConformanceCase[] {
  return [
    ...group('transaction', TRANSACTIONS),
    ...group('transaction: nested', NESTED),
    ...group('transaction: duplicate keys', DUPLICATES),
  ];
}

const TRANSACTIONS = [
  {
    name: 'an empty compare list holds, and an empty transaction changes nothing',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const { header, succeeded, results } = await store.txn({});
      expectEqual([header.revision, succeeded, results.length], [before, true, 0]);
    },
  },
  {
    name: 'only the taken branch runs, and results are one per operation in order',
    run: async (store: TestStore) => {
      const request = {
        compare: [store.missing('a')],
        success: [store.putOp('a', 'made'), store.rangeOp('a')],
        failure: [store.rangeOp('a'), store.deleteOp('a'), store.putOp('b', 'other')],
      };
      const first = await store.txn(request);
      expectEqual([first.succeeded, first.results.map((r) => r.type)], [true, ['put', 'range']]);
      const second = await store.txn(request);
      expectEqual(second.succeeded, false);
      expectEqual(
        second.results.map((r) => r.type),
        ['range', 'delete', 'put'],
      );
      expectEqual(await store.names(), ['b']);
    },
  },
  {
    name: 'all compares must hold',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const both = await store.txn({ compare: [store.missing('b'), store.missing('a')] });
      expectEqual(both.succeeded, false);
      const one = await store.txn({ compare: [store.missing('b'), store.missing('c')] });
      expectEqual(one.succeeded, true);
    },
  },
  {
    name: 'all writes of one transaction share one revision',
    run: async (store: TestStore) => {
      await store.put('old', 'x');
      const before = await store.revision();
      const { header } = await store.run(
        store.putOp('a', '1'),
        store.deleteOp('old'),
        store.putOp('b', '2'),
      );
      expectEqual(header.revision, before + 1);
      const { kvs } = await store.range();
      expectEqual(
        kvs.map((kv) => [store.name(kv.key), kv.modRevision]),
        [
          ['a', before + 1],
          ['b', before + 1],
        ],
      );
      expectEqual(await store.revision(), before + 1);
    },
  },
  {
    name: 'operations run in order, and a range sees earlier writes of its own transaction only',
    run: async (store: TestStore) => {
      await store.put('a', 'before');
      const { results, header } = await store.run(
        store.rangeOp(['a', 'z']),
        store.putOp('a', 'after', { prevKv: true }),
        store.rangeOp(['a', 'z']),
        store.deleteOp('c'),
        store.putOp('b', 'new'),
        store.rangeOp(['a', 'z']),
      );
      const seen = (i: number) =>
        asRange(results[i]).kvs.map((kv) => `${store.name(kv.key)}=${text(kv.value)}`);
      expectEqual(seen(0), ['a=before']);
      expectEqual(seen(2), ['a=after']);
      expectEqual(seen(5), ['a=after', 'b=new']);
      expectEqual(asRange(results[2]).kvs[0]?.modRevision, header.revision);
      const { prevKv } = asPut(results[1]);
      expectEqual(prevKv && text(prevKv.value), 'before');
    },
  },
  {
    name: 'a range after a delete in the same transaction does not see the deleted keys',
    run: async (store: TestStore) => {
      for (const name of ['a', 'b', 'c']) await store.put(name, name);
      const { results } = await store.run(
        store.deleteOp(['a', 'c'], { prevKv: true }),
        store.rangeOp(['a', 'z']),
        store.deleteOp(['a', 'z'], { prevKv: true }),
        store.rangeOp(['a', 'z'], { countOnly: true }),
      );
      expectEqual(asDelete(results[0]).deleted, 2);
      expectEqual([asRange(results[1]).count, asRange(results[1]).kvs.length], [1, 1]);
      expectEqual(
        asDelete(results[2]).prevKvs.map((kv) => store.name(kv.key)),
        ['c'],
      );
      expectEqual(asRange(results[3]).count, 0);
    },
  },
  {
    name: 'a range at a revision inside a transaction shows that revision, not the writes beside it',
    run: async (store: TestStore) => {
      const now = await store.put('a', 'before');
      const { results } = await store.run(
        store.putOp('a', 'after'),
        store.rangeOp('a', { revision: now }),
      );
      expectEqual(text(asRange(results[1]).kvs[0]!.value), 'before');
    },
  },
  {
    name: 'a transaction of ranges and of deletes of nothing takes no revision',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const { header } = await store.run(store.rangeOp('a'), store.deleteOp('nothing'));
      expectEqual(header.revision, before);
      expectEqual(await store.revision(), before);
    },
  },
  {
    name: 'a failing transaction changes nothing',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const cases: [string, Operation][] = [
        ['lease-not-found', store.putOp('z', 'x', { lease: 0x7eadn })],
        ['key-not-found', store.keepValueOp('z')],
        ['future-revision', store.rangeOp('a', { revision: before + 1 })],
        ['future-revision', store.rangeOp('a', { revision: before + 100 })],
      ];
      for (const [code, last] of cases) {
        const work = store.run(store.putOp('a', '2'), store.putOp('b', 'x'), last);
        await expectError(work, code as 'lease-not-found', 'rejected');
        expectEqual(await store.names(), ['a'], `the keys after ${code}`);
        expectEqual([(await store.get('a'))?.value, await store.revision()], ['1', before]);
      }
    },
  },
  {
    name: 'what the branch not taken would refuse at run time is no error',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const { succeeded } = await store.txn({
        compare: [store.missing('a')],
        success: [store.keepValueOp('z'), store.putOp('y', 'x', { lease: 0x7eadn })],
        failure: [store.putOp('b', '1')],
      });
      expectEqual([succeeded, await store.names()], [false, ['a', 'b']]);
    },
  },
  {
    name: 'a compare-and-set under way many times at once succeeds exactly once per round',
    run: async (store: TestStore) => {
      await store.put('a', '0');
      for (let round = 0; round < 5; round++) {
        const kv = await store.get('a');
        const attempts = Array.from({ length: 10 }, (_, i) =>
          store.txn({
            compare: [{ key: store.key('a'), target: 'mod', result: '=', value: kv!.mod }],
            success: [store.putOp('a', `${round}/${i}`)],
          }),
        );
        const won = (await Promise.all(attempts)).filter((result) => result.succeeded);
        expectEqual(won.length, 1);
      }
      expectEqual((await store.get('a'))?.version, 6);
    },
  },
];

function nested(
  request: Omit<Extract<Operation, { type: 'txn' }>, 'type'>,
): Extract<Operation, { type: 'txn' }> {
  return { type: 'txn', ...request };
}

const NESTED = [
  {
    name: 'a nested transaction compares, branches and answers like an outer one',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const { results, header } = await store.run(
        nested({ compare: [store.missing('a')], success: [store.putOp('b', '1')] }),
        nested({ compare: [store.missing('c')], success: [store.putOp('c', '2')] }),
      );
      expectEqual(
        [asNested(results[0]).succeeded, asNested(results[0]).results.length],
        [false, 0],
      );
      expectEqual([asNested(results[1]).succeeded, asNested(results[1]).results.length], [true, 1]);
      expectEqual(
        [await store.names(), (await store.get('c'))?.mod],
        [['a', 'c'], header.revision],
      );
    },
  },
  {
    name: 'nested compares are evaluated on the state before the whole transaction',
    run: async (store: TestStore) => {
      const { results } = await store.run(
        store.putOp('a', 'made'),
        nested({
          compare: [store.missing('a')],
          success: [store.putOp('saw', 'missing')],
          failure: [store.putOp('saw', 'present')],
        }),
        nested({ success: [store.rangeOp('a')] }),
      );
      expectEqual(asNested(results[1]).succeeded, true);
      expectEqual((await store.get('saw'))?.value, 'missing');
      const inner = asNested(results[2]);
      expectEqual(asRange(inner.results[0]).kvs.length, 1, 'a nested range sees earlier writes');
    },
  },
  {
    name: 'transactions nest deeper, all in one revision and in order',
    run: async (store: TestStore) => {
      const before = await store.put('root', 'x');
      const { header, results } = await store.run(
        store.putOp('a', '1'),
        nested({
          success: [
            store.putOp('b', '2'),
            nested({ success: [store.putOp('c', '3'), store.rangeOp(['a', 'd'])] }),
          ],
        }),
        store.putOp('d', '4'),
      );
      expectEqual(header.revision, before + 1);
      const inner = asNested(asNested(results[1]).results[1]);
      expectEqual(
        asRange(inner.results[1]).kvs.map((kv) => store.name(kv.key)),
        ['a', 'b', 'c'],
      );
      for (const name of ['a', 'b', 'c', 'd']) {
        expectEqual((await store.get(name))?.mod, before + 1);
      }
    },
  },
  {
    name: 'an error inside a nested transaction undoes the outer one',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const inner = nested({ success: [nested({ success: [store.keepValueOp('nowhere')] })] });
      await expectError(store.run(store.putOp('a', '2'), inner), 'key-not-found', 'rejected');
      expectEqual([(await store.get('a'))?.value, await store.revision()], ['1', before]);
    },
  },
  {
    name: 'a nested transaction without effect takes no revision',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const { header } = await store.run(
        nested({ success: [store.rangeOp('a'), store.deleteOp('nothing')] }),
      );
      expectEqual([header.revision, await store.revision()], [before, before]);
    },
  },
];

const DUPLICATES = [
  {
    name: 'one branch may not put a key twice',
    run: async (store: TestStore) => {
      const before = await store.revision();
      const twice = [store.putOp('a', '1'), store.putOp('a', '2')];
      await expectError(store.run(...twice), 'duplicate-key', 'rejected');
      const untaken = store.txn({ success: [store.rangeOp('a')], failure: twice });
      await expectError(untaken, 'duplicate-key', 'rejected');
      expectEqual([await store.names(), await store.revision()], [[], before]);
    },
  },
  {
    name: 'one branch may not put a key that it deletes, in either order',
    run: async (store: TestStore) => {
      await store.put('b', '1');
      const put = store.putOp('b', '2');
      for (const where of ['b', ['a', 'c']] as const) {
        const remove = store.deleteOp(where);
        await expectError(store.run(put, remove), 'duplicate-key', 'rejected');
        await expectError(store.run(remove, put), 'duplicate-key', 'rejected');
      }
      await store.run(put, store.deleteOp(['b\0', 'c']), store.deleteOp(['a', 'b']));
      expectEqual((await store.get('b'))?.value, '2');
    },
  },
  {
    name: 'the two branches of one transaction may write the same key',
    run: async (store: TestStore) => {
      const { succeeded } = await store.txn({
        compare: [store.missing('a')],
        success: [store.putOp('a', 'yes')],
        failure: [store.putOp('a', 'no')],
      });
      expectEqual([succeeded, (await store.get('a'))?.value], [true, 'yes']);
    },
  },
  {
    name: 'deletes may overlap, and a range may read what is put',
    run: async (store: TestStore) => {
      for (const name of ['a', 'b', 'c']) await store.put(name, name);
      const { results } = await store.run(
        store.deleteOp(['a', 'c']),
        store.deleteOp(['b', 'z']),
        store.deleteOp('a'),
      );
      expectEqual(
        results.map((result) => asDelete(result).deleted),
        [2, 1, 0],
      );
      await store.run(store.rangeOp('a'), store.putOp('a', '1'), store.rangeOp('a'));
    },
  },
  {
    name: 'a nested put counts against the puts and deletes around it',
    run: async (store: TestStore) => {
      const before = await store.put('a', '0');
      const put = store.putOp('a', '1');
      const inner = nested({ success: [put] });
      const otherwise = nested({ failure: [put] });
      const remove = nested({ success: [store.deleteOp(['a', 'b'])] });
      const refused: Operation[][] = [
        [put, inner],
        [inner, put],
        [inner, inner],
        [put, otherwise],
        [inner, otherwise],
        [store.deleteOp('a'), inner],
        [inner, store.deleteOp('a')],
        [put, remove],
        [remove, put],
        [nested({ success: [inner] }), put],
      ];
      for (const operations of refused) {
        await expectError(store.run(...operations), 'duplicate-key', 'rejected');
      }
      expectEqual(await store.revision(), before);
    },
  },
  {
    name: 'the two branches of a nested transaction exclude each other',
    run: async (store: TestStore) => {
      const either = nested({
        compare: [store.missing('a')],
        success: [store.putOp('a', 'new')],
        failure: [store.putOp('a', 'again')],
      });
      await store.run(either);
      await store.run(either);
      expectEqual((await store.get('a'))?.value, 'again');
      const deleteOrPut = nested({
        compare: [store.missing('a')],
        success: [store.putOp('a', 'new')],
        failure: [store.deleteOp('a')],
      });
      await store.run(deleteOrPut);
      expectEqual(await store.get('a'), undefined);
    },
  },
];
