/** Locks that more than one may hold: read-write lock and semaphore. */
import { HoldfastError } from '../../model/errors.ts';
import { expectEqual, expectError, expectTrue } from '../conformance/expect.ts';
import { observed, type RecipeCase, type World } from './world.ts';

export function sharedLockCases(): readonly RecipeCase[] {
  return [
    ...READ_WRITE.map((one) => ({ group: 'read-write lock', ...one })),
    ...SEMAPHORE.map((one) => ({ group: 'semaphore', ...one })),
  ];
}

const READ_WRITE = [
  {
    name: 'readers share, a writer is alone',
    run: async (world: World) => {
      const lock = world.client('one').readWriteLock('a');
      const other = world.client('other').readWriteLock('a');
      const reader = await lock.acquire('read');
      const second = await other.tryAcquire('read');
      expectTrue(second !== undefined, 'a second reader');
      expectEqual(await other.tryAcquire('write'), undefined);
      await reader.release();
      expectEqual(await other.tryAcquire('write'), undefined);
      await second?.release();
      const writer = await lock.tryAcquire('write');
      expectTrue(writer !== undefined, 'a writer when no reader is left');
      expectEqual(await other.tryAcquire('read'), undefined);
      expectEqual(await other.tryAcquire('write'), undefined);
    },
  },
  {
    name: 'a reader that comes after a waiting writer waits, so that writers do not starve',
    run: async (world: World) => {
      const reader = await world.client('r1').readWriteLock('a').acquire('read');
      const writer = observed(world.client('w').readWriteLock('a').acquire('write'));
      await world.pass(world.ttlMs / 10);
      const late = observed(world.client('r2').readWriteLock('a').acquire('read'));
      await world.pass(world.ttlMs / 4);
      expectEqual([writer.settled, late.settled], [false, false]);
      await reader.release();
      await world.until(() => writer.settled, 'the writer');
      expectEqual(late.settled, false);
      await writer.value?.release();
      await world.until(() => late.settled, 'the late reader');
    },
  },
  {
    name: 'a reader’s token is above that of every writer before it and below the next one’s',
    run: async (world: World) => {
      const lock = world.client('one').readWriteLock('a');
      const writer = await lock.acquire('write');
      await writer.release();
      const readers = [await lock.acquire('read'), await lock.acquire('read')];
      for (const reader of readers) expectTrue(reader.token > writer.token, 'after the writer');
      for (const reader of readers) await reader.release();
      const next = await lock.acquire('write');
      for (const reader of readers) expectTrue(reader.token < next.token, 'before the next');
    },
  },
  {
    name: 'a writer waits for all readers before it, in whatever order they leave',
    run: async (world: World) => {
      const readers = [];
      for (const name of ['r1', 'r2', 'r3']) {
        readers.push(await world.client(name).readWriteLock('a').acquire('read'));
      }
      const writer = observed(world.client('w').readWriteLock('a').acquire('write'));
      for (const index of [2, 0, 1]) {
        await world.pass(world.ttlMs / 10);
        expectEqual(writer.settled, false);
        await readers[index]?.release();
      }
      await world.until(() => writer.settled, 'the writer');
      writer.value?.ensureHeld();
    },
  },
];

const SEMAPHORE = [
  {
    name: 'as many as there are permits hold at once, each with a slot and a token',
    run: async (world: World) => {
      const permits = [];
      for (const name of ['a', 'b', 'c']) {
        permits.push(await world.client(name).semaphore('s', 3).acquire());
      }
      expectEqual(permits.map(({ slot }) => slot).sort(), [0, 1, 2]);
      expectEqual(new Set(permits.map(({ token }) => token)).size, 3);
      const late = world.client('late').semaphore('s', 3);
      expectEqual(await late.tryAcquire(), undefined);
      await permits[1]?.release();
      const next = await late.tryAcquire();
      expectEqual(next?.slot, permits[1]?.slot);
      expectTrue((next?.token ?? 0n) > (permits[1]?.token ?? 0n), 'the slot’s token rises');
    },
  },
  {
    name: 'waiters get permits in order of arrival',
    run: async (world: World) => {
      const held = await world.client('first').semaphore('s', 1).acquire();
      const order: string[] = [];
      const works = [];
      for (const name of ['b', 'c', 'd']) {
        works.push(
          world
            .client(name)
            .semaphore('s', 1)
            .run(() => void order.push(name)),
        );
        await world.pass(world.ttlMs / 10);
      }
      expectEqual(await world.client('late').semaphore('s', 1).tryAcquire(), undefined);
      await held.release();
      await world.finish(Promise.all(works), 'all to have a permit');
      expectEqual(order, ['b', 'c', 'd']);
    },
  },
  {
    name: 'the permit of a lost session comes free, after its holder has stopped',
    run: async (world: World) => {
      const { client, line } = world.connect('lost');
      const permit = await client.semaphore('s', 1).acquire();
      const waiting = observed(world.client('next').semaphore('s', 1).acquire());
      line.cut = true;
      await world.until(() => waiting.settled, 'the permit');
      expectEqual(permit.held, false);
      expectTrue((waiting.value?.token ?? 0n) > permit.token, 'the token rose');
    },
  },
  {
    name: 'a wait that is too short ends in not-acquired',
    run: async (world: World) => {
      await world.client('holder').semaphore('s', 1).acquire();
      for (const name of ['second', 'third']) {
        const attempt = world
          .client(name)
          .semaphore('s', 1)
          .acquire({ wait: world.ttlMs / 2 });
        await expectError(world.finish(attempt, 'the wait to end'), 'not-acquired');
      }
    },
  },
  {
    name: 'an acquire whose answer was lost takes one permit',
    run: async (world: World) => {
      const { client, line } = world.connect('p');
      await client.session();
      const semaphore = client.semaphore('s', 3);
      const attempt = semaphore.acquire();
      line.loseAnswers = 2;
      const permit = await world.finish(attempt, 'the retry');
      const others = [];
      for (let i = 0; i < 3; i++) {
        others.push(await world.client(`o${i}`).semaphore('s', 3).tryAcquire());
      }
      expectEqual(others.filter((one) => one !== undefined).length, 2);
      permit.ensureHeld();
    },
  },
  {
    name: 'another number of permits for the same name is refused',
    run: async (world: World) => {
      await world.client().semaphore('s', 2).acquire();
      const error = await expectError(
        world.client('x').semaphore('s', 3).acquire(),
        'invalid-argument',
      );
      expectTrue(HoldfastError.is(error), 'typed');
    },
  },
];
