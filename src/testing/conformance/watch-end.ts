/** Watches when something is in their way: slow readers, compaction, and every way to end. */
import type { Revision } from '../../model/transaction.ts';
import { within } from '../waiting.ts';
import { expectEqual, expectHoldfastError, expectTrue } from './expect.ts';
import { type ConformanceCase, group, type Need } from './suite.ts';
import type { TestStore } from './test-store.ts';

export function watchEndCases(): readonly ConformanceCase[] {
  return [
    ...group('watch: slow readers', SLOW),
    ...group('watch: compaction', COMPACTION),
    ...group('watch: end', END),
  ];
}

const SLOW = [
  {
    name: 'a reader that falls far behind gets everything in order, or an error that says where to go on',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const watch = store.engine.watch({ ...store.everything, startRevision: base + 1 });
      await within(watch.created, 'the watch to stand');
      const value = new Uint8Array(64 * 1_024);
      for (let i = 0; i < 200; i++) await store.put('big', value);
      await store.put('last', '');
      const seen: Revision[] = [];
      let resumeAt: Revision | undefined;
      try {
        for await (const batch of watch) {
          seen.push(...batch.events.map(({ kv }) => kv.modRevision));
          if (seen.at(-1) === base + 201) break;
        }
      } catch (error) {
        const { details } = expectHoldfastError(error, 'watch-overrun');
        expectTrue(details.resumeRevision !== undefined, 'the error says where to go on');
        resumeAt = details.resumeRevision;
      }
      if (resumeAt !== undefined) {
        const rest = await store.watch({ startRevision: resumeAt });
        const more = await rest.take(base + 201 - resumeAt + 1);
        seen.push(...more.map(({ kv }) => kv.modRevision));
      }
      expectEqual(
        seen,
        Array.from({ length: 201 }, (_, i) => base + 1 + i),
      );
    },
  },
  {
    name: 'a slow reader does not hold up another one, nor a writer',
    run: async (store: TestStore) => {
      await using slow = store.engine.watch(store.everything);
      await within(slow.created, 'the watch to stand');
      const quick = await store.watch();
      const value = new Uint8Array(64 * 1_024);
      for (let i = 0; i < 200; i++) await store.put('big', value);
      expectEqual((await quick.take(200)).length, 200);
    },
  },
];

const COMPACTION = [
  {
    name: 'a watch from below the compact revision ends with compacted and says the bound',
    needs: ['compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      for (let i = 1; i <= 5; i++) await store.put('a', String(i));
      await store.engine.compact(base + 4);
      for (const startRevision of [base + 1, base + 3]) {
        const follower = store.watchUnsettled({ startRevision });
        const error = expectHoldfastError(await follower.failure(), 'compacted');
        expectEqual(error.details.compactRevision, base + 4);
        expectEqual(follower.events.length, 0);
      }
    },
  },
  {
    name: 'a watch from the compact revision itself tells a put of that revision',
    needs: ['compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      for (let i = 1; i <= 4; i++) await store.put('a', String(i));
      await store.engine.compact(base + 3, { physical: true });
      const follower = await store.watch({ startRevision: base + 3 });
      expectEqual(store.told(await follower.take(2), base), ['put a=3 @3', 'put a=4 @4']);
    },
  },
  {
    name: 'a watch from the compact revision itself tells a delete of that revision',
    needs: ['compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      await store.put('a', '1');
      await store.put('b', '1');
      await store.remove(['a', 'c']);
      await store.put('c', '1');
      await store.engine.compact(base + 3, { physical: true });
      const follower = await store.watch({ startRevision: base + 3, prevKv: true });
      const events = await follower.take(3);
      expectEqual(store.told(events, base), ['delete a @3', 'delete b @3', 'put c=1 @4']);
    },
  },
  {
    name: 'a delete before the compact revision and one after it are told only where they belong',
    needs: ['compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      await store.put('a', '1');
      await store.remove('a');
      await store.put('b', '1');
      await store.put('a', '2');
      await store.remove('a');
      await store.engine.compact(base + 3, { physical: true });
      const follower = await store.watch({ startRevision: base + 3 });
      const expected = ['put b=1 @3', 'put a=2 @4', 'delete a @5'];
      expectEqual(store.told(await follower.take(3), base), expected);
    },
  },
  {
    name: 'a running watch that has caught up is not disturbed by compaction',
    needs: ['compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      const follower = await store.watch({ prevKv: true });
      for (let i = 1; i <= 10; i++) {
        await store.put('a', String(i));
        await follower.take(i);
        await store.engine.compact(base + i, { physical: true });
      }
      await store.remove('a');
      const events = await follower.take(11);
      expectEqual(store.told(events.slice(9), base), ['put a=10 @10', 'delete a @11']);
    },
  },
  {
    name: 'compaction while a watch is catching up ends it with compacted or lets it tell everything',
    needs: ['compaction'] as readonly Need[],
    run: async (store: TestStore) => {
      const base = await store.revision();
      const names = Array.from({ length: 100 }, (_, i) => `k${i}`);
      for (let round = 0; round < 60; round++) {
        await store.run(...names.map((name) => store.putOp(name, String(round))));
      }
      await using watch = store.engine.watch({ ...store.everything, startRevision: base + 1 });
      const batches = watch[Symbol.asyncIterator]();
      const first = await within(batches.next(), 'the first batch');
      expectEqual(first.value.events[0].kv.modRevision, base + 1);
      await store.engine.compact(base + 60, { physical: true });
      let told: Revision = first.value.events.at(-1).kv.modRevision;
      try {
        while (told < base + 60) {
          const { value } = await within(batches.next(), 'the next batch');
          for (const { kv } of value.events) {
            expectTrue(kv.modRevision === told || kv.modRevision === told + 1, 'there is no gap');
            told = kv.modRevision;
          }
        }
      } catch (error) {
        const { details } = expectHoldfastError(error, 'compacted');
        expectEqual(details.compactRevision, base + 60);
      }
    },
  },
];

const END = [
  {
    name: 'close ends the iteration without an error, also while the reader waits',
    run: async (store: TestStore) => {
      const follower = await store.watch();
      await store.put('a', '1');
      await follower.take(1);
      await follower.close();
      await follower.finished();
      expectEqual(follower.events.length, 1);
    },
  },
  {
    name: 'a closed watch tells nothing more, and closing twice is no error',
    run: async (store: TestStore) => {
      const watch = store.engine.watch(store.everything);
      await within(watch.created, 'the watch to stand');
      await watch.close();
      await watch.close();
      await store.put('a', '1');
      const batches = [];
      for await (const batch of watch) batches.push(batch);
      expectEqual(batches, []);
    },
  },
  {
    name: 'leaving the loop closes the watch',
    run: async (store: TestStore) => {
      const watch = store.engine.watch(store.everything);
      await within(watch.created, 'the watch to stand');
      await store.put('a', '1');
      for await (const batch of watch) if (batch.events.length > 0) break;
      const again = await within(watch[Symbol.asyncIterator]().next(), 'the closed watch');
      expectEqual(again.done, true);
    },
  },
  {
    name: 'aborting the signal of a watch ends it with cancelled',
    run: async (store: TestStore) => {
      const controller = new AbortController();
      const watch = store.engine.watch(store.everything, { signal: controller.signal });
      await within(watch.created, 'the watch to stand');
      const next = watch[Symbol.asyncIterator]().next();
      controller.abort();
      const error = await within(
        next.then(
          () => undefined,
          (reason: unknown) => reason,
        ),
        'the aborted watch to end',
      );
      expectHoldfastError(error, 'cancelled');
    },
  },
  {
    name: 'a watch whose signal is aborted already is refused with cancelled',
    run: async (store: TestStore) => {
      const watch = store.engine.watch(store.everything, { signal: AbortSignal.abort() });
      const next = watch[Symbol.asyncIterator]().next();
      const reason = await next.then(
        () => undefined,
        (error: unknown) => error,
      );
      expectHoldfastError(reason, 'cancelled');
    },
  },
  {
    name: 'a refused watch whose created nobody looks at disturbs nothing',
    run: async (store: TestStore) => {
      const watch = store.engine.watch(store.where(['b', 'a']));
      await within(watch.close(), 'the refused watch to close');
      await store.put('a', '1');
    },
  },
];
