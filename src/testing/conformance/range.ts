/** Reading: every form of range, order, filters, limits, and reads in the past. */
import { binaryString, utf8 } from '../../base/bytes.ts';
import { fromKey, prefixRange } from '../../model/range.ts';
import { expectEqual, expectError, expectTrue } from './expect.ts';
import { type ConformanceCase, group } from './suite.ts';
import { asDelete, type TestStore } from './test-store.ts';

async function abc(store: TestStore): Promise<number> {
  const first = await store.put('a', '1');
  await store.put('b', '2');
  await store.put('c', '3');
  return first - 1;
}

export function rangeCases(): readonly ConformanceCase[] {
  return [...group('range', FORMS), ...group('range: order, filters, limits', SHAPES)];
}

const FORMS = [
  {
    name: 'an absent or empty end is the single key',
    run: async (store: TestStore) => {
      await abc(store);
      await store.put('ab', 'x');
      expectEqual(await store.names({}, { key: store.key('a') }), ['a']);
      expectEqual(await store.names({}, { key: store.key('a'), end: new Uint8Array(0) }), ['a']);
      const nothing = await store.range({}, { key: store.key('zz') });
      expectEqual([nothing.kvs.length, nothing.count, nothing.more], [0, 0, false]);
    },
  },
  {
    name: 'a range includes its start and excludes its end',
    run: async (store: TestStore) => {
      await abc(store);
      expectEqual(await store.names({}, store.where(['a', 'c'])), ['a', 'b']);
      expectEqual(await store.names({}, store.where(['aa', 'b\0'])), ['b']);
    },
  },
  {
    name: 'an end of one zero byte is everything from the key on',
    run: async (store: TestStore) => {
      await abc(store);
      const { kvs, count } = await store.range({}, fromKey(store.key('b')));
      expectTrue(count >= 2, 'the count includes both keys');
      const names = kvs
        .filter((kv) => kv.key.length === store.prefix.length + 1)
        .slice(0, 2)
        .map((kv) => store.name(kv.key));
      expectEqual(names, ['b', 'c']);
    },
  },
  {
    name: 'key and end of one zero byte are all keys',
    run: async (store: TestStore) => {
      await abc(store);
      const whole = await store.range({}, prefixRange(new Uint8Array(0)));
      const mine = new Set(whole.kvs.map((kv) => binaryString(kv.key)));
      for (const name of ['a', 'b', 'c']) {
        const key = binaryString(store.key(name));
        expectTrue(mine.has(key), `${name} is among all keys`);
      }
    },
  },
  {
    name: 'a prefix is every key that begins with it, up to bytes of 0xff',
    run: async (store: TestStore) => {
      const inside = [Uint8Array.of(255), Uint8Array.of(255, 0), Uint8Array.of(255, 255, 7)];
      for (const tail of inside) await store.run({ type: 'put', key: store.key(tail) });
      await store.put('a', '1');
      const { kvs } = await store.range({}, prefixRange(store.key(Uint8Array.of(255))));
      expectEqual(
        kvs.map((kv) => kv.key),
        inside.map((tail) => store.key(tail)),
      );
    },
  },
  {
    name: 'an end at or before the key is an empty range',
    run: async (store: TestStore) => {
      await abc(store);
      for (const end of ['b', 'a']) {
        const { kvs, count, more } = await store.range({}, store.where(['b', end]));
        expectEqual([kvs.length, count, more], [0, 0, false]);
      }
      const gone = await store.run(store.deleteOp(['b', 'a'], { prevKv: true }));
      expectEqual(asDelete(gone.results[0]).deleted, 0);
      expectEqual(await store.names(), ['a', 'b', 'c']);
    },
  },
  {
    name: 'keys are ordered as unsigned bytes, a key before every longer one it begins',
    run: async (store: TestStore) => {
      const tails = [
        [0],
        [0, 0],
        [0, 1],
        [1],
        [127],
        [128],
        [128, 255],
        [255],
        [255, 0],
        [255, 255],
      ];
      for (const tail of [...tails].reverse()) {
        await store.run({ type: 'put', key: store.key(Uint8Array.from(tail)) });
      }
      const { kvs } = await store.range();
      expectEqual(
        kvs.map((kv) => [...kv.key.subarray(store.prefix.length)]),
        tails,
      );
      const above = await store.range({}, fromKey(store.key(Uint8Array.of(128))));
      expectEqual([...above.kvs[0]!.key.subarray(store.prefix.length)], [128]);
    },
  },
  {
    name: 'an empty key is refused in a range, a put, a delete and a compare',
    run: async (store: TestStore) => {
      const key = new Uint8Array(0);
      await expectError(store.engine.range({ key }), 'key-empty', 'rejected');
      await expectError(store.run({ type: 'put', key }), 'key-empty', 'rejected');
      await expectError(store.run({ type: 'delete', key }), 'key-empty', 'rejected');
      await expectError(store.run({ type: 'range', key }), 'key-empty', 'rejected');
      const compare = [{ key, target: 'version', result: '=', value: 0 }] as const;
      await expectError(store.txn({ compare }), 'key-empty', 'rejected');
    },
  },
  {
    name: 'a read at a revision shows the versions of that time, deleted and re-created keys included',
    run: async (store: TestStore) => {
      const r1 = await store.put('a', 'one');
      const r2 = await store.put('a', 'two');
      const r3 = await store.remove('a');
      const r4 = await store.put('a', 'three');
      const at = async (revision: number) => (await store.get('a', { revision }))?.value;
      expectEqual(await at(r1), 'one');
      expectEqual(await at(r2), 'two');
      expectEqual(await at(r3), undefined);
      expectEqual(await at(r4), 'three');
      expectEqual(await at(r1 - 1), undefined);
      const old = await store.get('a', { revision: r2 });
      expectEqual([old?.create, old?.mod, old?.version], [r1, r2, 2]);
      const again = await store.get('a');
      expectEqual([again?.create, again?.mod, again?.version], [r4, r4, 1]);
    },
  },
  {
    name: 'a read at a revision answers with the newest revision in its header',
    run: async (store: TestStore) => {
      const first = await store.put('a', '1');
      const last = await store.put('a', '2');
      expectEqual((await store.range({ revision: first })).header.revision, last);
    },
  },
  {
    name: 'a read at a negative revision is a read of the newest state',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      await store.put('a', '2');
      expectEqual((await store.get('a', { revision: -1 }))?.value, '2');
    },
  },
  {
    name: 'a read beyond the newest revision is refused as future',
    run: async (store: TestStore) => {
      const now = await store.put('a', '1');
      await expectError(store.range({ revision: now + 1 }), 'future-revision', 'rejected');
      await store.range({ revision: now });
    },
  },
  {
    name: 'a serializable read may be old but never older than a compaction forbids',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const { kvs, header } = await store.range({ serializable: true });
      expectTrue(kvs.length <= 1 && header.revision > 0, 'a serializable read is a range result');
    },
  },
];

const SHAPES = [
  {
    name: 'without an order keys ascend',
    run: async (store: TestStore) => {
      for (const name of ['c', 'a', 'b']) await store.put(name, name);
      expectEqual(await store.names(), ['a', 'b', 'c']);
    },
  },
  {
    name: 'ranges sort by every target in both orders',
    run: async (store: TestStore) => {
      // key order a b c; value order c a b; version a=1 b=3 c=2; create b c a; mod c b a
      await store.put('b', 'x');
      await store.put('c', 'x');
      await store.put('b', 'x');
      await store.put('c', 'k');
      await store.put('b', 'm');
      await store.put('a', 'l');
      const expected = {
        key: ['a', 'b', 'c'],
        version: ['a', 'c', 'b'],
        create: ['b', 'c', 'a'],
        mod: ['c', 'b', 'a'],
        value: ['c', 'a', 'b'],
      } as const;
      for (const [target, names] of Object.entries(expected)) {
        const sortTarget = target as keyof typeof expected;
        const up = await store.names({ sortTarget, sortOrder: 'ascend' });
        const down = await store.names({ sortTarget, sortOrder: 'descend' });
        expectEqual(up, names, `ascending by ${target}`);
        expectEqual(down, [...names].reverse(), `descending by ${target}`);
      }
    },
  },
  {
    name: 'a sort target without an order ascends',
    run: async (store: TestStore) => {
      await store.put('b', '1');
      await store.put('a', '2');
      expectEqual(await store.names({ sortTarget: 'mod' }), ['b', 'a']);
      expectEqual(await store.names({ sortTarget: 'value' }), ['b', 'a']);
    },
  },
  {
    name: 'values sort as unsigned bytes',
    run: async (store: TestStore) => {
      await store.put('high', Uint8Array.of(200));
      await store.put('low', Uint8Array.of(100));
      await store.put('longer', Uint8Array.of(100, 0));
      const names = await store.names({ sortTarget: 'value', sortOrder: 'ascend' });
      expectEqual(names, ['low', 'longer', 'high']);
    },
  },
  {
    name: 'a limit cuts, says more, and leaves the count alone',
    run: async (store: TestStore) => {
      await abc(store);
      const cut = await store.range({ limit: 2 });
      expectEqual([cut.kvs.length, cut.more, cut.count], [2, true, 3]);
      const exact = await store.range({ limit: 3 });
      expectEqual([exact.kvs.length, exact.more, exact.count], [3, false, 3]);
      const wide = await store.range({ limit: 4 });
      expectEqual([wide.kvs.length, wide.more, wide.count], [3, false, 3]);
      const none = await store.range({ limit: 0 });
      expectEqual([none.kvs.length, none.more, none.count], [3, false, 3]);
    },
  },
  {
    name: 'sorting comes before the limit',
    run: async (store: TestStore) => {
      await abc(store);
      const newest = await store.names({ sortTarget: 'mod', sortOrder: 'descend', limit: 1 });
      expectEqual(newest, ['c']);
      const first = await store.names({ sortTarget: 'create', sortOrder: 'ascend', limit: 1 });
      expectEqual(first, ['a']);
      expectEqual(await store.names({ sortOrder: 'descend', limit: 2 }), ['c', 'b']);
    },
  },
  {
    name: 'revision filters bound both ends, come before the limit and leave the count alone',
    run: async (store: TestStore) => {
      const base = await abc(store);
      await store.put('a', 'new');
      const names = (options: object) => store.names(options);
      expectEqual(await names({ minModRevision: base + 3 }), ['a', 'c']);
      expectEqual(await names({ maxModRevision: base + 3 }), ['b', 'c']);
      expectEqual(await names({ minModRevision: base + 2, maxModRevision: base + 3 }), ['b', 'c']);
      expectEqual(await names({ minCreateRevision: base + 2 }), ['b', 'c']);
      expectEqual(await names({ maxCreateRevision: base + 1 }), ['a']);
      const cut = await store.range({ minModRevision: base + 3, limit: 1 });
      expectEqual([cut.kvs.length, cut.more, cut.count], [1, true, 3]);
      const fits = await store.range({ minModRevision: base + 3, limit: 2 });
      expectEqual([fits.kvs.length, fits.more, fits.count], [2, false, 3]);
    },
  },
  {
    name: 'keysOnly strips values and keeps the rest, after sorting by value',
    run: async (store: TestStore) => {
      await store.put('a', '2');
      await store.put('b', '1');
      const { kvs } = await store.range({
        keysOnly: true,
        sortTarget: 'value',
        sortOrder: 'ascend',
      });
      expectEqual(
        kvs.map((kv) => [store.name(kv.key), kv.value.length, kv.version]),
        [
          ['b', 0, 1],
          ['a', 0, 1],
        ],
      );
    },
  },
  {
    name: 'countOnly answers the count and no keys, whatever the limit',
    run: async (store: TestStore) => {
      const base = await abc(store);
      const counted = await store.range({ countOnly: true, limit: 1 });
      expectEqual([counted.kvs.length, counted.count], [0, 3]);
      const then = await store.range({ countOnly: true, revision: base + 2 });
      expectEqual([then.kvs.length, then.count], [0, 2]);
    },
  },
  {
    name: 'a limit with a read in the past counts the keys of the past',
    run: async (store: TestStore) => {
      const base = await abc(store);
      await store.remove(['a', 'z']);
      const then = await store.range({ revision: base + 3, limit: 1 });
      expectEqual([then.kvs.length, then.more, then.count], [1, true, 3]);
      expectEqual((await store.range()).count, 0);
    },
  },
  {
    name: 'a value is kept byte for byte, empty and binary ones too',
    run: async (store: TestStore) => {
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
      await store.put('binary', bytes);
      await store.put('empty', utf8(''));
      await store.run({ type: 'put', key: store.key('absent') });
      const value = async (name: string) =>
        (await store.range({}, store.where(name))).kvs[0]?.value;
      expectEqual(await value('binary'), bytes);
      expectEqual(await value('empty'), new Uint8Array(0));
      expectEqual(await value('absent'), new Uint8Array(0));
    },
  },
  {
    name: 'a range over thousands of keys is whole and in order',
    run: async (store: TestStore) => {
      const names = Array.from({ length: 2_000 }, (_, i) => `n${String(i).padStart(5, '0')}`);
      for (let from = 0; from < names.length; from += 100) {
        await store.run(...names.slice(from, from + 100).map((name) => store.putOp(name, name)));
      }
      expectEqual(await store.names(), names);
      const page = await store.range({ limit: 10 }, store.where(['n00500', 'n01500']));
      expectEqual([page.kvs.length, page.count, page.more], [10, 1_000, true]);
    },
  },
];
