/** Watches: where they start and what they tell, in which order. */
import { text, utf8 } from '../../base/bytes.ts';
import { fromKey } from '../../model/range.ts';
import type { Revision } from '../../model/transaction.ts';
import type { Follower } from '../follower.ts';
import { type Replay, replayOf, validateWatch } from '../validators.ts';
import { within } from '../waiting.ts';
import { expectEqual, expectHoldfastError, expectTrue } from './expect.ts';
import { type ConformanceCase, group } from './suite.ts';
import type { TestStore } from './test-store.ts';

export function watchCases(): readonly ConformanceCase[] {
  return [
    ...group('watch: start', START),
    ...group('watch: events', EVENTS),
    ...group('watch: progress', PROGRESS),
  ];
}

/** Every rule that holds for any watch whatever, against a second watch that saw everything. */
function expectValid(follower: Follower, replay: Replay): void {
  expectEqual(validateWatch(follower, replay), [], 'the violations of the watch rules');
}

const START = [
  {
    name: 'a watch without a start tells what comes after it stands, and nothing older',
    run: async (store: TestStore) => {
      await store.put('a', 'old');
      const base = await store.revision();
      const follower = await store.watch();
      await store.put('a', 'new');
      await store.put('b', 'x');
      const events = await follower.take(2);
      expectEqual(store.told(events, base), ['put a=new @1', 'put b=x @2']);
    },
  },
  {
    name: 'created tells the revision the watch starts after',
    run: async (store: TestStore) => {
      const base = await store.put('a', '1');
      const request = store.everything;
      await using watch = store.engine.watch(request);
      expectEqual((await within(watch.created, 'the watch to stand')).revision, base);
    },
  },
  {
    name: 'a watch that stands misses nothing of what is answered afterwards',
    run: async (store: TestStore) => {
      for (let round = 0; round < 10; round++) {
        const follower = await store.watch();
        const revision = await store.put('a', String(round));
        const [event] = await follower.take(1);
        expectEqual(event?.kv.modRevision, revision);
        await follower.close();
      }
    },
  },
  {
    name: 'a watch from the past tells everything since, the start included, then goes on live',
    run: async (store: TestStore) => {
      const base = (await store.put('a', '1')) - 1;
      await store.put('b', '1');
      await store.remove('a');
      const follower = await store.watch({ startRevision: base + 2 });
      await store.put('c', '1');
      const events = await follower.take(3);
      expectEqual(store.told(events, base), ['put b=1 @2', 'delete a @3', 'put c=1 @4']);
    },
  },
  {
    name: 'a watch from the newest revision tells that one first',
    run: async (store: TestStore) => {
      const base = (await store.put('a', '1')) - 1;
      const follower = await store.watch({ startRevision: base + 1 });
      await store.put('a', '2');
      expectEqual(store.told(await follower.take(2), base), ['put a=1 @1', 'put a=2 @2']);
    },
  },
  {
    name: 'a watch from the future is silent until then and tells no older event',
    run: async (store: TestStore) => {
      const base = await store.put('a', 'old');
      const follower = await store.watch({ startRevision: base + 4 });
      const witness = await store.watch({ startRevision: base + 1 });
      for (let i = 1; i <= 5; i++) await store.put('a', String(i));
      expectEqual((await witness.take(5)).length, 5);
      expectEqual(store.told(await follower.take(2), base), ['put a=4 @4', 'put a=5 @5']);
      const early = follower.batches.filter(({ header }) => header.revision < base + 3);
      expectEqual(early, [], 'batches from before the start');
    },
  },
  {
    name: 'a watch of an empty range is refused',
    run: async (store: TestStore) => {
      const follower = store.watchUnsettled({}, store.where(['b', 'a']));
      expectHoldfastError(await follower.failure(), 'invalid-argument');
    },
  },
  {
    name: 'a watch from a negative revision is refused',
    run: async (store: TestStore) => {
      const follower = store.watchUnsettled({ startRevision: -1 });
      expectHoldfastError(await follower.failure(), ['compacted', 'invalid-argument']);
    },
  },
];

const EVENTS = [
  {
    name: 'a put event carries the pair, a delete event only key and revision',
    run: async (store: TestStore) => {
      const lease = await store.grantLong();
      const follower = await store.watch();
      const r1 = await store.put('a', '1');
      const r2 = await store.put('a', '2', { lease: lease.id });
      const r3 = await store.remove('a');
      const events = await follower.take(3);
      expectEqual(
        events.map(({ type, kv }) => ({ type, ...store.plain(kv) })),
        [
          { type: 'put', key: 'a', value: '1', create: r1, mod: r1, version: 1, lease: 0n },
          { type: 'put', key: 'a', value: '2', create: r1, mod: r2, version: 2, lease: lease.id },
          { type: 'delete', key: 'a', value: '', create: 0, mod: r3, version: 0, lease: 0n },
        ],
      );
      expectEqual(
        events.map((event) => event.prevKv),
        [undefined, undefined, undefined],
      );
    },
  },
  {
    name: 'the events of one transaction come in one batch, in the order of its operations',
    run: async (store: TestStore) => {
      await store.put('y', 'x');
      await store.put('x', 'x');
      const base = await store.revision();
      const live = await store.watch();
      await store.run(store.putOp('b', '1'), store.deleteOp(['x', 'z']), store.putOp('a', '2'), {
        type: 'txn',
        success: [store.putOp('c', '3')],
      });
      await store.put('after', '');
      const late = await store.watch({ startRevision: base + 1 });
      for (const follower of [live, late]) {
        await follower.take(6);
        const first = follower.batches[0]?.events.slice(0, 5) ?? [];
        const expected = ['put b=1 @1', 'delete x @1', 'delete y @1', 'put a=2 @1', 'put c=3 @1'];
        expectEqual(store.told(first, base), expected);
      }
    },
  },
  {
    name: 'one revision is never split over two batches, live and while catching up',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const live = await store.watch({ startRevision: base + 1 });
      const many = Array.from({ length: 100 }, (_, i) => `k${String(i).padStart(3, '0')}`);
      for (let round = 0; round < 25; round++) {
        await store.run(...many.map((name) => store.putOp(name, String(round))));
      }
      const late = await store.watch({ startRevision: base + 1 });
      for (const follower of [live, late]) {
        await follower.take(2_500);
        for (const { events } of follower.batches) {
          const perRevision = new Map<Revision, number>();
          for (const { kv } of events) {
            perRevision.set(kv.modRevision, (perRevision.get(kv.modRevision) ?? 0) + 1);
          }
          const counts = [...perRevision.values()];
          expectTrue(
            counts.every((count) => count === 100),
            `counts in a batch: ${counts}`,
          );
        }
      }
    },
  },
  {
    name: 'a watch tells only its range: one key, a prefix, everything from a key',
    run: async (store: TestStore) => {
      const one = await store.watch({}, store.where('b'));
      const some = await store.watch({}, store.where(['b', 'd']));
      const open = await store.watch({}, fromKey(store.key('c')));
      const base = await store.revision();
      for (const name of ['a', 'b', 'b\0', 'c', 'd']) await store.put(name, '');
      await store.remove('b');
      expectEqual(store.told(await one.take(2), base), ['put b= @2', 'delete b @6']);
      expectEqual(store.told(await some.take(4), base), [
        'put b= @2',
        'put b\0= @3',
        'put c= @4',
        'delete b @6',
      ]);
      expectEqual(store.told(await open.take(2), base), ['put c= @4', 'put d= @5']);
    },
  },
  {
    name: 'filters leave out puts or deletes, live and while catching up',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const live = [await store.watch({ noPut: true }), await store.watch({ noDelete: true })];
      await store.put('a', '1');
      await store.remove('a');
      await store.put('a', '2');
      await store.remove('a');
      const startRevision = base + 1;
      const late = [
        await store.watch({ startRevision, noPut: true }),
        await store.watch({ startRevision, noDelete: true }),
      ];
      for (const [deletes, puts] of [live, late]) {
        expectEqual(store.told(await deletes!.take(2), base), ['delete a @2', 'delete a @4']);
        expectEqual(store.told(await puts!.take(2), base), ['put a=1 @1', 'put a=2 @3']);
      }
    },
  },
  {
    name: 'prevKv brings the version just before, live and while catching up',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const live = await store.watch({ prevKv: true });
      const r1 = await store.put('a', '1');
      await store.put('a', '2');
      await store.remove('a');
      await store.put('a', '3');
      const late = await store.watch({ startRevision: base + 1, prevKv: true });
      for (const follower of [live, late]) {
        const events = await follower.take(4);
        expectEqual(
          events.map(({ prevKv }) => prevKv && text(prevKv.value)),
          [undefined, '1', '2', undefined],
        );
        const second = events[1]?.prevKv;
        expectEqual([second?.modRevision, second?.version], [r1, 1]);
      }
    },
  },
  {
    name: 'an event is told only when a read at its revision is answered',
    run: async (store: TestStore) => {
      const follower = await store.watch();
      const puts = Array.from({ length: 20 }, (_, i) => store.put('a', String(i)));
      await follower.take(20);
      for (const { kv } of follower.events) {
        const read = await store.get('a', { revision: kv.modRevision });
        expectEqual(read?.value, text(kv.value));
      }
      await Promise.all(puts);
    },
  },
  {
    name: 'catching up while writes go on leaves no gap and tells nothing twice',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const witness = await store.watch({ startRevision: base + 1, prevKv: true });
      for (let i = 0; i < 300; i++) void store.put(`k${i % 7}`, String(i)).catch(() => {});
      await witness.take(50);
      const followers: Follower[] = [];
      for (let i = 0; i < 300; i++) {
        const write = i % 5 ? store.put(`k${i % 7}`, String(i)) : store.remove(`k${i % 7}`);
        if (i % 30 === 0) {
          followers.push(store.watchUnsettled({ startRevision: base + 1 + i, prevKv: true }));
        }
        await write;
      }
      const last = await store.put('last', '');
      const seenLast = (follower: Follower) => () =>
        follower.events.some(({ kv }) => kv.modRevision === last);
      for (const follower of [witness, ...followers]) {
        await follower.until(seenLast(follower), 'the last event');
      }
      const replay = replayOf(witness.events);
      for (const follower of [witness, ...followers]) expectValid(follower, replay);
    },
  },
  {
    name: 'many watches of one key and of one range all hear the same',
    run: async (store: TestStore) => {
      const followers = await Promise.all(
        Array.from({ length: 50 }, (_, i) =>
          store.watch({}, i % 2 ? store.where('a') : store.everything),
        ),
      );
      const base = await store.revision();
      for (let i = 1; i <= 20; i++) await store.put('a', String(i));
      const expected = Array.from({ length: 20 }, (_, i) => `put a=${i + 1} @${i + 1}`);
      for (const follower of followers) {
        expectEqual(store.told(await follower.take(20), base), expected);
      }
    },
  },
  {
    name: 'a watch created by the same turn as a write tells that write at most once',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const writes = Promise.all([store.put('a', '1'), store.put('a', '2')]);
      const follower = store.watchUnsettled({ startRevision: base + 1 });
      const [one, two] = await writes;
      const three = await store.put('a', '3');
      // Which of two writes under way at once comes first is for the engine to say.
      const expected = [`put a=1 @${one - base}`, `put a=2 @${two - base}`];
      if (two < one) expected.reverse();
      expected.push(`put a=3 @${three - base}`);
      expectEqual(store.told(await follower.take(3), base), expected);
    },
  },
  {
    name: 'values and previous values told to one reader are not changed under another',
    run: async (store: TestStore) => {
      const bytes = utf8('mine');
      const follower = await store.watch();
      const put = store.run({ type: 'put', key: store.key('a'), value: bytes });
      await put;
      bytes.fill(0);
      const [event] = await follower.take(1);
      expectEqual(text(event!.kv.value), 'mine');
      expectEqual((await store.get('a'))?.value, 'mine');
    },
  },
];

const PROGRESS = [
  {
    name: 'a progress notification comes after every event up to its revision',
    run: async (store: TestStore) => {
      const base = await store.revision();
      const follower = await store.watch({ startRevision: base + 1 });
      for (let i = 1; i <= 50; i++) {
        await store.put('a', String(i));
        if (i % 10 === 0) follower.requestProgress();
      }
      const caughtUp = () =>
        follower.batches.some((b) => b.events.length === 0 && b.header.revision >= base + 50);
      follower.requestProgress();
      await follower.until(caughtUp, 'a progress notification of the newest revision');
      let told = 0;
      for (const { header, events } of follower.batches) {
        told += events.length;
        if (events.length === 0) expectTrue(header.revision - base <= told, 'progress overtook');
      }
      expectEqual(told, 50);
    },
  },
  {
    name: 'progress asked for while catching up waits until everything before was told',
    run: async (store: TestStore) => {
      const base = await store.revision();
      for (let round = 0; round < 30; round++) {
        const names = Array.from({ length: 100 }, (_, i) => `k${i}`);
        await store.run(...names.map((name) => store.putOp(name, String(round))));
      }
      const follower = store.watchUnsettled({ startRevision: base + 1 });
      follower.requestProgress();
      await follower.take(3_000);
      follower.requestProgress();
      await follower.until(
        () => follower.batches.some((batch) => batch.events.length === 0),
        'a progress notification',
      );
      expectValid(follower, replayOf(follower.events));
    },
  },
  {
    name: 'progress of a watch on other keys tells the newest revision without events',
    run: async (store: TestStore) => {
      const follower = await store.watch({}, store.where('quiet'));
      const revision = await store.put('loud', '1');
      follower.requestProgress();
      await follower.until(() => follower.batches.length > 0, 'a progress notification');
      expectEqual(follower.events.length, 0);
      expectTrue(follower.batches[0]!.header.revision >= revision, 'the newest revision is told');
    },
  },
  {
    name: 'no progress is told below the start of a watch from the future',
    run: async (store: TestStore) => {
      const base = await store.put('a', '0');
      const follower = await store.watch({ startRevision: base + 5 });
      follower.requestProgress();
      for (let i = 1; i <= 6; i++) await store.put('a', String(i));
      await follower.take(2);
      const early = follower.batches.filter(({ header }) => header.revision < base + 4);
      expectEqual(early, [], 'batches from before the start');
    },
  },
];
