/** Barriers, latch, counter, sequence, group, once, view, transactions, era. */
import { text, utf8 } from '../../base/bytes.ts';
import { makeToken } from '../../model/token.ts';
import type { GroupEvent } from '../../recipes/group.ts';
import { expectEqual, expectError, expectTrue } from '../conformance/expect.ts';
import { observed, type RecipeCase, type World } from './world.ts';

export function otherCases(): readonly RecipeCase[] {
  return [
    ...GATES.map((one) => ({ group: 'barriers and latch', ...one })),
    ...NUMBERS.map((one) => ({ group: 'counter and sequence', ...one })),
    ...GROUPS.map((one) => ({ group: 'group', ...one })),
    ...DATA.map((one) => ({ group: 'once, view and transactions', ...one })),
    ...ERAS.map((one) => ({ group: 'a restored authority', ...one })),
  ];
}

const GATES = [
  {
    name: 'a barrier holds everybody back until it is released',
    run: async (world: World) => {
      await world.client('one').barrier('b').wait();
      await world.client('one').barrier('b').hold();
      const waiting = ['x', 'y'].map((name) => observed(world.client(name).barrier('b').wait()));
      await world.pass(world.ttlMs / 2);
      expectEqual(
        waiting.map((one) => one.settled),
        [false, false],
      );
      await expectError(
        world.finish(
          world
            .client('z')
            .barrier('b')
            .wait({ wait: world.ttlMs / 4 }),
          'z',
        ),
        'deadline-exceeded',
      );
      await world.client('two').barrier('b').release();
      await world.until(() => waiting.every((one) => one.settled), 'the gate to open');
    },
  },
  {
    name: 'participants of a double barrier enter together and leave together',
    run: async (world: World) => {
      const barriers = ['a', 'b', 'c'].map((name) => world.client(name).doubleBarrier('d', 3));
      for (let round = 0; round < 2; round++) {
        const entering: ReturnType<typeof observed>[] = [];
        for (const barrier of barriers) {
          expectTrue(!entering.some((one) => one.settled), 'nobody enters before the last comes');
          entering.push(observed(barrier.enter()));
          await world.pass(world.ttlMs / 10);
        }
        await world.until(() => entering.every((one) => one.settled), 'all to enter');
        const leaving: ReturnType<typeof observed>[] = [];
        for (const barrier of barriers) {
          expectTrue(!leaving.some((one) => one.settled), 'nobody leaves before the last does');
          leaving.push(observed(barrier.leave()));
          await world.pass(world.ttlMs / 10);
        }
        await world.until(() => leaving.every((one) => one.settled), 'all to leave');
      }
    },
  },
  {
    name: 'a latch opens with the last count and stays open; a lost answer counts once',
    run: async (world: World) => {
      const { client, line } = world.connect('a');
      const latch = client.latch('l');
      await latch.set(3);
      const waiting = observed(world.client('w').latch('l').wait());
      line.loseAnswers = 2;
      expectEqual(await world.finish(latch.countDown(), 'the retry'), 2);
      expectEqual(await latch.countDown(), 1);
      await world.pass(world.ttlMs / 10);
      expectEqual(waiting.settled, false);
      expectEqual(await latch.countDown(), 0);
      await world.until(() => waiting.settled, 'the latch to open');
      await world.client('late').latch('l').wait();
      expectEqual(await latch.countDown(), 0);
    },
  },
];

const NUMBERS = [
  {
    name: 'additions of several processes and tasks all count',
    run: async (world: World) => {
      const clients = ['a', 'b', 'c'].map((name) => world.client(name));
      const works = clients.flatMap((client) =>
        Array.from({ length: 10 }, () => client.counter('c').add(1)),
      );
      const values = await world.finish(Promise.all(works), 'all additions', world.ttlMs * 50);
      expectEqual(new Set(values).size, 30);
      expectEqual(await clients[0]?.counter('c').get(), 30n);
    },
  },
  {
    name: 'an addition whose answer was lost counts once and answers the same',
    run: async (world: World) => {
      const { client, line } = world.connect('a');
      const counter = client.counter('c');
      await counter.add(10);
      for (const lost of [1, 2, 3]) {
        const before = await counter.get();
        line.loseAnswers = lost;
        expectEqual(await world.finish(counter.add(5), 'the retry'), before + 5n);
        expectEqual(await counter.get(), before + 5n);
      }
      await counter.set(-3n);
      expectEqual(await counter.add(1), -2n);
    },
  },
  {
    name: 'the numbers of a sequence are unique over all processes',
    run: async (world: World) => {
      const sequences = ['a', 'b'].map((name) => world.client(name).sequence('s', { block: 4 }));
      const all = new Set<bigint>();
      for (let i = 0; i < 10; i++) {
        for (const sequence of sequences) all.add(await sequence.next());
      }
      const block = await sequences[0]!.allocate(5);
      for (let i = 0n; i < block.count; i++) all.add(block.first + i);
      expectEqual(all.size, 25);
    },
  },
];

const GROUPS = [
  {
    name: 'members are told who joins, changes, leaves and fails',
    run: async (world: World) => {
      const events: [GroupEvent['type'], string][] = [];
      const controller = new AbortController();
      const watching = (async (): Promise<void> => {
        const group = world.client('watcher').group('g');
        for await (const { type, member } of group.events({ signal: controller.signal })) {
          events.push([type, member.value]);
        }
      })();
      const a = await world.client('a').group('g').join({ value: 'A' });
      const { client, line } = world.connect('b');
      const b = await client.group('g').join({ value: 'B' });
      await a.update('A2');
      await world.until(() => events.length === 3, 'the changes');
      await a.leave();
      await world.until(() => events.length === 4, 'the leaving');
      line.cut = true;
      await world.until(() => events.length === 5, 'the failure');
      expectEqual(b.held, false);
      expectEqual(
        events.map(([type]) => type),
        ['joined', 'joined', 'changed', 'left', 'failed'],
      );
      expectEqual(await world.client('x').group('g').members(), []);
      controller.abort();
      await watching;
    },
  },
];

const DATA = [
  {
    name: 'a unique claim is its first claimant’s, again and again, until it is given up',
    run: async (world: World) => {
      const once = world.client('a').once('user/ada');
      const { token } = await once.claim('ada-1');
      expectEqual((await world.client('b').once('user/ada').claim('ada-1')).token, token);
      await expectError(world.client('b').once('user/ada').claim('ada-2'), 'taken');
      expectEqual(await once.release('ada-2'), false);
      expectEqual((await once.owner())?.by, 'ada-1');
      expectEqual(await once.release('ada-1'), true);
      expectTrue((await once.claim('ada-2')).token > token, 'the token rose');
    },
  },
  {
    name: 'a view shows what stands below its prefix and follows every change',
    run: async (world: World) => {
      const { engine, namespace } = world.stage;
      const put = async (key: string, value: string): Promise<number> => {
        const operation = { type: 'put' as const, key: utf8(namespace + key), value: utf8(value) };
        return (await engine.txn({ success: [operation] })).header.revision;
      };
      await put('v/a', '1');
      await put('w/other', 'x');
      const view = world.client().view('v/');
      await world.finish(view.waitFor(), 'the first reading');
      expectEqual(view.size, 1);
      const revision = await put('v/b', '2');
      await world.finish(view.waitFor(revision), 'the change');
      expectEqual(
        view.entries().map(({ value }) => text(value)),
        ['1', '2'],
      );
      expectEqual(text(view.get('v/b')?.value ?? utf8('')), '2');
      const elsewhere = await put('w/other', 'y');
      await world.finish(view.waitFor(elsewhere), 'a change elsewhere');
      expectTrue(view.revision >= elsewhere, 'the view knows how far it is');
      await view.close();
      await expectError(view.waitFor(elsewhere + 1_000_000), 'closed');
    },
  },
  {
    name: 'a transaction function applies once, also when its answer was lost',
    run: async (world: World) => {
      const { client, line } = world.connect('a');
      const key = `${world.stage.namespace}account`;
      const deposit = (amount: number) =>
        client.transact(async (transaction) => {
          const kv = await transaction.get(key);
          transaction.put(key, String(Number(kv ? text(kv.value) : '0') + amount));
        });
      await deposit(1);
      for (const lost of [1, 2]) {
        line.loseAnswers = lost;
        await world.finish(deposit(10), 'the retry');
      }
      const { kvs } = await world.stage.engine.range({ key: utf8(key) });
      expectEqual(text(kvs[0]?.value ?? utf8('')), '21');
      expectEqual(kvs[0]?.version, 3);
    },
  },
  {
    name: 'transaction functions that meet run again until each has had its effect',
    run: async (world: World) => {
      const key = `${world.stage.namespace}sum`;
      const clients = ['a', 'b', 'c'].map((name) => world.client(name));
      const works = clients.flatMap((client) =>
        Array.from({ length: 5 }, () =>
          client.transact(async (transaction) => {
            const kv = await transaction.get(key);
            transaction.put(key, String(Number(kv ? text(kv.value) : '0') + 1));
          }),
        ),
      );
      await world.finish(Promise.all(works), 'all transactions', world.ttlMs * 100);
      const { kvs } = await world.stage.engine.range({ key: utf8(key) });
      expectEqual(text(kvs[0]?.value ?? utf8('')), '15');
    },
  },
  {
    name: 'a transaction that requires a grant fails when the grant is gone',
    run: async (world: World) => {
      const hf = world.client();
      const key = `${world.stage.namespace}row`;
      const grant = await hf.lock('a').acquire();
      const write = () =>
        hf.transact((transaction) => {
          transaction.require(grant.ownership());
          transaction.put(key, 'x');
        });
      await write();
      await grant.release();
      await expectError(write(), 'grant-lost');
    },
  },
  {
    name: 'compare-and-set changes a key only from the revision it was read at',
    run: async (world: World) => {
      const cell = world.client().cell('cell');
      expectEqual(await cell.get(), undefined);
      const first = await cell.compareAndSet(0, 'a');
      expectTrue(first !== undefined, 'created');
      expectEqual(await cell.compareAndSet(0, 'b'), undefined);
      expectTrue((await cell.compareAndSet(first ?? 0, 'b')) !== undefined, 'changed');
      expectEqual(text(await cell.update((value) => `${text(value ?? utf8(''))}c`)), 'bc');
    },
  },
];

const ERAS = [
  {
    name: 'a mark above all that was granted lifts the era, and the next token passes it',
    run: async (world: World) => {
      const hf = world.client();
      const grant = await hf.lock('a').acquire();
      const era = Number(grant.token >> 48n);
      const mark = makeToken(era, 2 ** 40);
      const report = await grant.reportStale(mark);
      expectEqual(report, { lifted: true, era: era + 1 });
      await grant.release();
      const next = await hf.lock('a').acquire();
      expectTrue(next.token > mark, 'above the mark');
      expectEqual((await next.reportStale(mark)).lifted, false);
    },
  },
  {
    name: 'an implausible mark stops with an error instead of using up the eras',
    run: async (world: World) => {
      const hf = world.client();
      const grant = await hf.lock('a').acquire();
      await expectError(grant.reportStale(2n ** 62n), 'era-regressed');
      const again = await hf.lock('b').acquire();
      expectEqual(again.token >> 48n, grant.token >> 48n);
    },
  },
];
