/** Compaction, quota and alarm, limits, aborts, era, status, restart and the end of an engine. */
import { concatBytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Operation } from '../../model/transaction.ts';
import { expectEqual, expectError, expectHoldfastError, expectTrue, fail } from './expect.ts';
import { type ConformanceCase, group, type Need } from './suite.ts';
import type { TestStore } from './test-store.ts';

export function keepingCases(): readonly ConformanceCase[] {
  return [
    ...group('compaction', COMPACTION),
    ...group('quota', QUOTA),
    ...group('limits', LIMITS),
    ...group('abort', ABORT),
    ...group('era and status', STATUS),
    ...group('restart', RESTART),
    ...group('close', CLOSE),
  ];
}

const compaction: readonly Need[] = ['compaction'];

const COMPACTION = [
  {
    name: 'a read below the compact revision is refused, one at it is answered',
    needs: compaction,
    run: async (store: TestStore) => {
      const base = await store.revision();
      await store.put('a', '1');
      await store.put('a', '2');
      await store.put('a', '3');
      await store.engine.compact(base + 2);
      const error = await expectError(store.range({ revision: base + 1 }), 'compacted', 'rejected');
      expectEqual(error.details.compactRevision, base + 2);
      expectEqual((await store.get('a', { revision: base + 2 }))?.value, '2');
      expectEqual((await store.get('a', { revision: base + 3 }))?.value, '3');
      const inTxn = store.run(store.putOp('b', '1'), store.rangeOp('a', { revision: base + 1 }));
      await expectError(inTxn, 'compacted', 'rejected');
      expectEqual(await store.get('b'), undefined);
    },
  },
  {
    name: 'what was newest at the compact revision stays readable there and later',
    needs: compaction,
    run: async (store: TestStore) => {
      const base = await store.revision();
      await store.put('kept', 'old');
      await store.put('gone', 'x');
      await store.remove('gone');
      await store.put('again', '1');
      await store.remove('again');
      await store.put('again', '2');
      await store.put('kept', 'new');
      await store.engine.compact(base + 5, { physical: true });
      const names = (revision: number) => store.names({ revision });
      expectEqual(await names(base + 5), ['kept']);
      expectEqual((await store.get('kept', { revision: base + 5 }))?.value, 'old');
      expectEqual(await names(base + 6), ['again', 'kept']);
      expectEqual(await names(base + 7), ['again', 'kept']);
      const again = await store.get('again');
      expectEqual([again?.version, again?.create], [1, base + 6]);
    },
  },
  {
    name: 'compaction changes neither the newest state nor the revision',
    needs: compaction,
    run: async (store: TestStore) => {
      for (let i = 0; i < 20; i++) await store.put(`k${i % 3}`, String(i));
      await store.remove('k1');
      const before = await store.range();
      const header = await store.engine.compact(before.header.revision, { physical: true });
      expectEqual(header.revision, before.header.revision);
      expectEqual(await store.range(), before);
    },
  },
  {
    name: 'compacting at or below the compact revision is refused as compacted',
    needs: compaction,
    run: async (store: TestStore) => {
      const base = await store.put('a', '1');
      await store.put('a', '2');
      await store.engine.compact(base + 1);
      for (const revision of [base + 1, base]) {
        await expectError(store.engine.compact(revision), 'compacted', 'rejected');
      }
    },
  },
  {
    name: 'compacting beyond the newest revision is refused as future',
    needs: compaction,
    run: async (store: TestStore) => {
      const now = await store.put('a', '1');
      await expectError(store.engine.compact(now + 1), 'future-revision', 'rejected');
      await store.engine.compact(now);
    },
  },
  {
    name: 'compaction may come again and again while keys come and go',
    needs: compaction,
    run: async (store: TestStore) => {
      for (let round = 0; round < 20; round++) {
        for (let i = 0; i < 10; i++) await store.put(`k${i}`, `${round}`);
        const now = await store.remove(['k3', 'k6']);
        await store.engine.compact(now, { physical: round % 2 === 0 });
        expectEqual((await store.names({ revision: now })).length, 7);
      }
      expectEqual(await store.names(), ['k0', 'k1', 'k2', 'k6', 'k7', 'k8', 'k9']);
    },
  },
  {
    name: 'the status tells the compact revision',
    needs: compaction,
    run: async (store: TestStore) => {
      const now = await store.put('a', '1');
      await store.engine.compact(now);
      expectEqual((await store.engine.status()).compactRevision, now);
    },
  },
];

/** Fills the store until it refuses, and answers how many puts it took. */
async function fill(store: TestStore): Promise<number> {
  const value = new Uint8Array(32 * 1_024);
  for (let i = 0; i < 2_000; i++) {
    try {
      await store.put(`fill${String(i).padStart(5, '0')}`, value);
    } catch (error) {
      expectHoldfastError(error, 'no-space', 'rejected');
      return i;
    }
  }
  return fail('the store took 64 MB without minding its quota');
}

const QUOTA = [
  {
    name: 'a full store refuses puts and grants and says so in its status',
    needs: ['quota'] as readonly Need[],
    options: { quotaBytes: 4 * 1_024 * 1_024 },
    run: async (store: TestStore) => {
      const lease = await store.grantLong();
      const puts = await fill(store);
      expectTrue(puts > 10, `the store took ${puts} puts before it was full`);
      expectTrue((await store.engine.status()).alarms.includes('no-space'), 'the alarm stands');
      await expectError(store.put('more', 'x'), 'no-space', 'rejected');
      await expectError(store.engine.grantLease({ ttlMs: 60_000 }), 'no-space', 'rejected');
      const txn = store.txn({ compare: [store.missing('m')], success: [store.putOp('m', 'x')] });
      await expectError(txn, 'no-space', 'rejected');
      await store.engine.keepAlive(lease.id);
    },
  },
  {
    name: 'a full store still reads, deletes, revokes and compacts',
    needs: ['quota'] as readonly Need[],
    options: { quotaBytes: 4 * 1_024 * 1_024 },
    run: async (store: TestStore) => {
      const lease = await store.grantLong();
      await store.put('leased', 'x', { lease: lease.id });
      await fill(store);
      expectEqual((await store.get('leased'))?.version, 1);
      await store.engine.revokeLease(lease.id);
      expectEqual(await store.get('leased'), undefined);
      const now = await store.remove(['fill', 'film']);
      await store.engine.compact(now, { physical: true });
      expectEqual(await store.names(), []);
    },
  },
  {
    name: 'after deleting, compacting and disarming a full store takes writes again',
    needs: ['quota', 'operator'] as readonly Need[],
    options: { quotaBytes: 4 * 1_024 * 1_024 },
    run: async (store: TestStore) => {
      await fill(store);
      const now = await store.remove(['fill', 'film']);
      await store.engine.compact(now, { physical: true });
      await expectError(store.put('early', 'x'), 'no-space', 'rejected');
      await store.engine.operator!.disarm('no-space');
      expectEqual((await store.engine.status()).alarms, []);
      await store.put('more', 'x');
      expectEqual(await store.names(), ['more']);
    },
  },
  {
    name: 'an alarm set by hand stops puts until it is taken back',
    needs: ['operator'] as readonly Need[],
    run: async (store: TestStore) => {
      await store.put('a', '1');
      await store.engine.operator!.arm('no-space');
      await expectError(store.put('a', '2'), 'no-space', 'rejected');
      await store.run(store.deleteOp('a'));
      await store.engine.operator!.disarm('no-space');
      await store.put('a', '3');
    },
  },
];

const LIMITS = [
  {
    name: 'a transaction takes operationsMax operations and refuses one more',
    run: async (store: TestStore) => {
      const { operationsMax } = store.engine.capabilities;
      const puts = (count: number) =>
        Array.from({ length: count }, (_, i) => store.putOp(`k${i}`, ''));
      const compares = (count: number) =>
        Array.from({ length: count }, (_, i) => store.missing(`c${i}`));
      const success = puts(operationsMax);
      await store.txn({ compare: compares(operationsMax), success, failure: success });
      expectEqual((await store.range({ countOnly: true })).count, operationsMax);
      const before = await store.revision();
      const over = puts(operationsMax + 1);
      const refused = [
        { success: over },
        { failure: over },
        { compare: compares(operationsMax + 1) },
      ];
      for (const request of refused) {
        await expectError(store.txn(request), 'too-many-operations', 'rejected');
      }
      expectEqual(await store.revision(), before);
    },
  },
  {
    name: 'a nested transaction may use what the longest list around it leaves',
    run: async (store: TestStore) => {
      const { operationsMax } = store.engine.capabilities;
      const reads = (count: number): Operation[] =>
        Array.from({ length: count }, () => store.rangeOp('a', { countOnly: true }));
      const nest = (outer: number, inner: number) =>
        store.run(...reads(outer - 1), { type: 'txn', success: reads(inner) });
      await nest(10, operationsMax - 10);
      await expectError(nest(10, operationsMax - 9), 'too-many-operations', 'rejected');
      let deep: Operation = store.rangeOp('a');
      for (let i = 0; i < operationsMax + 5; i++) deep = { type: 'txn', success: [deep] };
      await expectError(store.run(deep), 'too-many-operations', 'rejected');
    },
  },
  {
    name: 'a key of keyBytesMax bytes is stored and one byte more is refused',
    run: async (store: TestStore) => {
      const max = Math.min(store.engine.capabilities.keyBytesMax, 64 * 1_024);
      const room = max - store.prefix.length;
      const longest = store.key(new Uint8Array(room).fill(97));
      await store.run({ type: 'put', key: longest, value: Uint8Array.of(1) });
      expectEqual((await store.range({}, { key: longest })).kvs[0]?.value, Uint8Array.of(1));
      if (max < store.engine.capabilities.keyBytesMax) return;
      const longer = concatBytes(longest, Uint8Array.of(97));
      const put = store.run({ type: 'put', key: longer, value: Uint8Array.of(1) });
      await expectError(put, ['key-too-large', 'request-too-large'], 'rejected');
      expectEqual((await store.range()).count, 1);
    },
  },
  {
    name: 'a request larger than requestBytesMax is refused and one well below it is stored',
    run: async (store: TestStore) => {
      const { requestBytesMax } = store.engine.capabilities;
      if (requestBytesMax > 64 * 1_024 * 1_024) return;
      await store.put('large', new Uint8Array(requestBytesMax - 4_096));
      const { kvs } = await store.range();
      expectEqual(kvs[0]?.value.length, requestBytesMax - 4_096);
      const over = store.put('larger', new Uint8Array(requestBytesMax + 1));
      await expectError(over, 'request-too-large', 'rejected');
      const half = new Uint8Array(Math.ceil(requestBytesMax / 2) + 1);
      const both = store.run(store.putOp('a', half), store.putOp('b', half));
      await expectError(both, 'request-too-large', 'rejected');
      expectEqual(await store.names(), ['large']);
    },
  },
];

const ABORT = [
  {
    name: 'a call whose signal is aborted already does nothing',
    run: async (store: TestStore) => {
      const before = await store.put('a', '1');
      const signal = AbortSignal.abort();
      const { engine } = store;
      const put = engine.txn({ success: [store.putOp('a', '2')] }, { signal });
      await expectError(put, 'cancelled', 'rejected');
      await expectError(engine.range(store.everything, { signal }), 'cancelled', 'rejected');
      await expectError(engine.grantLease({ ttlMs: 60_000 }, { signal }), 'cancelled', 'rejected');
      await expectError(engine.status({ signal }), 'cancelled', 'rejected');
      expectEqual([await store.revision(), (await store.get('a'))?.value], [before, '1']);
    },
  },
  {
    name: 'an aborted write happened as a whole or not at all, and a rejected one not',
    run: async (store: TestStore) => {
      for (let i = 0; i < 20; i++) {
        const controller = new AbortController();
        const request = { success: [store.putOp(`a${i}`, 'x'), store.putOp(`b${i}`, 'x')] };
        const work = store.engine.txn(request, { signal: controller.signal });
        if (i % 3 > 0) await Promise.resolve();
        if (i % 3 > 1) await store.range();
        controller.abort();
        const error = await work.then(
          () => undefined,
          (reason: unknown) => expectHoldfastError(reason, 'cancelled'),
        );
        await store.put('after', String(i));
        const { count } = await store.range({ countOnly: true }, store.where([`a${i}`, `a${i}\0`]));
        const both = [await store.get(`a${i}`), await store.get(`b${i}`)].filter(Boolean).length;
        expectTrue(both === 0 || both === 2, 'the write is there as a whole or not at all');
        if (!error) expectEqual(both, 2, 'an answered write is there');
        if (error?.outcome === 'rejected') expectEqual(count, 0, 'a rejected write is not there');
      }
    },
  },
  {
    name: "the caller's own HoldfastError as the reason of an abort is what it gets back",
    run: async (store: TestStore) => {
      const reason = new HoldfastError('deadline-exceeded', 'enough');
      const work = store.engine.range(store.everything, { signal: AbortSignal.abort(reason) });
      await expectError(work, 'deadline-exceeded');
    },
  },
];

const STATUS = [
  {
    name: 'every answer tells the newest revision and the era',
    run: async (store: TestStore) => {
      const { header } = await store.run(store.putOp('a', '1'));
      const status = await store.engine.status();
      const lease = await store.grantLong();
      const headers = [
        (await store.range()).header,
        status.header,
        lease.header,
        (await store.engine.keepAlive(lease.id)).header,
        (await store.engine.leaseInfo(lease.id)).header,
      ];
      for (const other of headers) expectEqual(other, header);
    },
  },
  {
    name: 'the status names the history and stays the same store',
    run: async (store: TestStore) => {
      const one = await store.engine.status();
      await store.put('a', '1');
      const two = await store.engine.status();
      expectEqual(one.clusterId, two.clusterId);
      expectTrue(two.header.revision === one.header.revision + 1, 'the revision has risen by one');
      expectTrue(two.sizeBytes > 0 && two.version.length > 0, 'size and version are told');
      expectEqual(two.alarms, []);
    },
  },
  {
    name: 'liftEra raises the era, never lowers it, and takes no revision',
    needs: ['era'] as readonly Need[],
    run: async (store: TestStore) => {
      const { header } = await store.range();
      const lifted = await store.engine.liftEra(header.era + 3);
      expectEqual(lifted.era, header.era + 3);
      expectEqual((await store.engine.liftEra(header.era + 1)).era, header.era + 3);
      expectEqual((await store.engine.liftEra(0)).era, header.era + 3);
      const after = await store.run(store.putOp('a', '1'));
      expectEqual(after.header.era, header.era + 3);
      expectTrue(after.header.revision > header.revision, 'revisions go on rising');
    },
  },
  {
    name: 'an era that is none is refused',
    needs: ['era'] as readonly Need[],
    run: async (store: TestStore) => {
      const { header } = await store.range();
      for (const era of [2 ** 15, -1, 1.5]) {
        await expectError(store.engine.liftEra(era), ['invalid-argument'], 'rejected');
      }
      expectEqual((await store.range()).header.era, header.era);
    },
  },
  {
    name: 'a watch tells the era of its time',
    needs: ['era'] as readonly Need[],
    run: async (store: TestStore) => {
      const follower = await store.watch();
      const { era } = await store.engine.liftEra((await store.range()).header.era + 1);
      await store.put('a', '1');
      await follower.take(1);
      expectEqual(follower.batches.at(-1)?.header.era, era);
    },
  },
];

const reopen: readonly Need[] = ['reopen'];

const RESTART = [
  {
    name: 'a restart keeps every key, its history, the revision and the era',
    needs: reopen,
    run: async (store: TestStore) => {
      const base = await store.revision();
      await store.put('a', '1');
      await store.put('a', '2');
      await store.put('b', '1');
      await store.remove('b');
      await store.engine.liftEra(2);
      const before = await store.range();
      const past = await store.range({ revision: base + 3 });
      const identity = (await store.engine.status()).clusterId;
      await store.reopen();
      expectEqual(await store.range(), before);
      expectEqual((await store.range({ revision: base + 3 })).kvs, past.kvs);
      expectEqual((await store.engine.status()).clusterId, identity);
      expectEqual(await store.put('a', '3'), base + 5);
      expectEqual((await store.get('a'))?.version, 3);
    },
  },
  {
    name: 'a watch resumes over a restart without gap or duplicate',
    needs: reopen,
    run: async (store: TestStore) => {
      const base = await store.revision();
      const before = await store.watch({ startRevision: base + 1 });
      await store.put('a', '1');
      await store.put('a', '2');
      await before.take(2);
      await store.remove('a');
      await store.reopen();
      const after = await store.watch({ startRevision: base + 3 });
      await store.put('a', '4');
      expectEqual(store.told(await after.take(2), base), ['delete a @3', 'put a=4 @4']);
    },
  },
  {
    name: 'a restart keeps the compact revision',
    needs: ['reopen', 'compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      for (let i = 0; i < 5; i++) await store.put('a', String(i));
      await store.engine.compact(base + 4);
      await store.reopen();
      expectEqual((await store.engine.status()).compactRevision, base + 4);
      await expectError(store.range({ revision: base + 3 }), 'compacted');
      expectEqual((await store.get('a', { revision: base + 4 }))?.value, '3');
    },
  },
  {
    name: 'a restart keeps an alarm',
    needs: ['reopen', 'operator'] as readonly Need[],
    run: async (store: TestStore) => {
      await store.engine.operator!.arm('no-space');
      await store.reopen();
      expectEqual((await store.engine.status()).alarms, ['no-space']);
      await expectError(store.put('a', '1'), 'no-space');
      await store.engine.operator!.disarm('no-space');
    },
  },
];

const CLOSE = [
  {
    name: 'closing an engine ends its watches with closed',
    run: async (store: TestStore) => {
      const follower = await store.watch();
      await store.put('a', '1');
      await follower.take(1);
      await store.engine.close();
      expectHoldfastError(await follower.failure(), 'closed');
    },
  },
  {
    name: 'a closed engine refuses every verb with closed, and closing twice is no error',
    run: async (store: TestStore) => {
      const { engine } = store;
      await engine.close();
      await engine.close();
      await expectError(engine.range(store.everything), 'closed', 'rejected');
      await expectError(store.run(store.putOp('a', '1')), 'closed', 'rejected');
      await expectError(engine.grantLease({ ttlMs: 60_000 }), 'closed', 'rejected');
      await expectError(engine.keepAlive(1n), 'closed', 'rejected');
      await expectError(engine.revokeLease(1n), 'closed', 'rejected');
      await expectError(engine.leaseInfo(1n), 'closed', 'rejected');
      await expectError(engine.compact(1), 'closed', 'rejected');
      await expectError(engine.status(), 'closed', 'rejected');
      const follower = store.watchUnsettled();
      expectHoldfastError(await follower.failure(), 'closed');
    },
  },
  {
    name: 'writes under way when an engine closes are answered or refused, never left waiting',
    run: async (store: TestStore) => {
      const writes = Array.from({ length: 20 }, (_, i) => store.put(`k${i}`, 'x'));
      const closed = store.engine.close();
      const ends = await Promise.allSettled(writes);
      await closed;
      for (const end of ends) {
        if (end.status === 'rejected') expectHoldfastError(end.reason, ['closed', 'unavailable']);
      }
    },
  },
];
