/** The fair lock, the multi-lock, and the operator's view of both. */
import { utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import { expectEqual, expectError, expectTrue } from '../conformance/expect.ts';
import { observed, type RecipeCase, type World } from './world.ts';

export function lockCases(): readonly RecipeCase[] {
  return [
    ...LOCKS.map((one) => ({ group: 'lock', ...one })),
    ...RETRIES.map((one) => ({ group: 'lock under lost answers', ...one })),
    ...OPERATOR.map((one) => ({ group: 'lock, seen and broken by an operator', ...one })),
    ...FOREIGN.map((one) => ({ group: 'lock beside foreign clients', ...one })),
  ];
}

const LOCKS = [
  {
    name: 'run holds the lock, gives the result, and releases',
    run: async (world: World) => {
      const hf = world.client();
      const result = await hf.lock('orders/42').run(({ token, signal, ensureHeld }) => {
        ensureHeld();
        expectTrue(token > 0n && !signal.aborted, 'a token and a quiet signal');
        return 'done';
      });
      expectEqual(result, 'done');
      expectTrue((await hf.lock('orders/42').tryAcquire()) !== undefined, 'free again');
    },
  },
  {
    name: 'run passes on the error of the work and still releases',
    run: async (world: World) => {
      const hf = world.client();
      const thrown = await hf
        .lock('a')
        .run(() => {
          throw new RangeError('the work failed');
        })
        .catch((error: unknown) => error);
      expectTrue(thrown instanceof RangeError, 'the own error of the work');
      expectTrue((await hf.lock('a').tryAcquire()) !== undefined, 'free again');
    },
  },
  {
    name: 'run says so when the grant was lost before the work ended',
    run: async (world: World) => {
      const hf = world.client();
      const work = hf.lock('a').run(async ({ session }) => {
        await world.stage.engine.revokeLease(session.id);
        await world.until(() => !session.alive, 'the loss');
      });
      const error = await expectError(work, 'grant-lost');
      expectEqual(error.details.reason, 'revoked');
    },
  },
  {
    name: 'holders follow each other in order of arrival with rising tokens',
    run: async (world: World) => {
      const order: string[] = [];
      const tokens: bigint[] = [];
      const first = await world.client('p0').lock('a').acquire();
      const waiting = [];
      for (const name of ['p1', 'p2', 'p3', 'p4']) {
        let queued = false;
        const grant = world
          .client(name)
          .lock('a')
          .acquire({
            onWait: () => {
              queued = true;
            },
          });
        waiting.push(
          grant.then(async (held) => {
            order.push(name);
            tokens.push(held.token);
            await held.release();
          }),
        );
        await world.until(() => queued, `${name} to stand in line`);
      }
      await first.release();
      await world.finish(Promise.all(waiting), 'all to have their turn');
      expectEqual(order, ['p1', 'p2', 'p3', 'p4']);
      for (const [i, token] of tokens.entries()) {
        expectTrue(token > (tokens[i - 1] ?? first.token), 'tokens rise');
      }
    },
  },
  {
    name: 'tasks of one process exclude each other',
    run: async (world: World) => {
      const hf = world.client();
      let inside = 0;
      let most = 0;
      const task = () =>
        hf.lock('a').run(async () => {
          inside++;
          most = Math.max(most, inside);
          await world.stage.engine.status();
          inside--;
        });
      await world.finish(Promise.all(Array.from({ length: 10 }, task)), 'ten tasks');
      expectEqual(most, 1);
    },
  },
  {
    name: 'tryAcquire answers undefined at once and leaves no trace in the line',
    run: async (world: World) => {
      const grant = await world.client('first').lock('a').acquire();
      const second = world.client('second');
      expectEqual(await second.lock('a').tryAcquire(), undefined);
      const { claims } = await second.lock('a').inspect();
      expectEqual(claims.length, 1);
      await grant.release();
      expectTrue((await second.lock('a').tryAcquire()) !== undefined, 'free now');
    },
  },
  {
    name: 'a wait that is too short ends in not-acquired, and the claim leaves the line',
    run: async (world: World) => {
      const grant = await world.client('holder').lock('a').acquire();
      const second = world.client('second');
      const attempt = second.lock('a').acquire({ wait: world.ttlMs / 2 });
      const error = await expectError(world.finish(attempt, 'the wait to end'), 'not-acquired');
      expectTrue(error.message.includes('holder'), 'the message names who holds');
      await world.pass(world.ttlMs / 10);
      expectEqual((await second.lock('a').inspect()).claims.length, 1);
      grant.ensureHeld();
    },
  },
  {
    name: 'an aborted wait rejects with the abort and never with a lock',
    run: async (world: World) => {
      const grant = await world.client('holder').lock('a').acquire();
      const controller = new AbortController();
      const waiting = observed(
        world.client('second').lock('a').acquire({ signal: controller.signal }),
      );
      await world.pass(world.ttlMs / 10);
      controller.abort();
      await world.until(() => waiting.settled, 'the abort');
      expectTrue(HoldfastError.is(waiting.error, 'cancelled'), 'a typed error');
      await grant.release();
      await world.pass(world.ttlMs / 10);
      expectTrue(
        (await world.client('third').lock('a').tryAcquire()) !== undefined,
        'nobody holds it',
      );
    },
  },
  {
    name: 'a waiter whose lease died gets an error, not a lock',
    run: async (world: World) => {
      const first = await world.client('first').lock('a').acquire();
      const { client, line } = world.connect('second');
      const session = await client.session();
      const waiting = observed(client.lock('a').acquire());
      await world.pass(world.ttlMs / 10);
      line.cut = true;
      await world.until(() => !session.alive, 'the session to be lost');
      line.cut = false;
      await first.release();
      await world.until(() => waiting.settled, 'the waiter to be told');
      expectTrue(HoldfastError.is(waiting.error, 'session-lost'), 'session-lost');
    },
  },
  {
    name: 'a waiter that goes away does not let the next one pass the holder',
    run: async (world: World) => {
      const first = await world.client('first').lock('a').acquire();
      const controller = new AbortController();
      const second = observed(
        world.client('second').lock('a').acquire({ signal: controller.signal }),
      );
      await world.pass(world.ttlMs / 10);
      const third = observed(world.client('third').lock('a').acquire());
      await world.pass(world.ttlMs / 10);
      controller.abort();
      await world.pass(world.ttlMs / 2);
      expectTrue(second.settled && !third.settled, 'the third one still waits');
      await first.release();
      await world.until(() => third.settled, 'the third to have its turn');
      third.value?.ensureHeld();
    },
  },
  {
    name: 'release is idempotent and ends the grant before the claim is gone',
    run: async (world: World) => {
      const grant = await world.client().lock('a').acquire();
      const { signal } = grant;
      const releasing = Promise.all([grant.release(), grant.release()]);
      expectTrue(signal.aborted && !grant.held, 'ended first');
      await releasing;
      await grant.release();
      await expectError(
        Promise.resolve().then(() => grant.ensureHeld()),
        'grant-lost',
      );
    },
  },
  {
    name: 'a late release does not take the lock from the next holder',
    run: async (world: World) => {
      const hf = world.client();
      const first = await hf.lock('a').acquire();
      await hf.lock('a').forceRelease({ reason: 'a test' });
      const second = await world.client('second').lock('a').acquire();
      await first.release();
      await world.pass(world.ttlMs / 10);
      second.ensureHeld();
      expectEqual((await hf.lock('a').inspect()).holder?.token, second.token);
    },
  },
  {
    name: 'a re-entrant lock is given to its owner again and freed with the last release',
    run: async (world: World) => {
      const lock = world.client().lock('a', { reentrant: true });
      const outer = await lock.acquire();
      const inner = await lock.acquire();
      expectEqual(inner.token, outer.token);
      const rival = world.client('rival').lock('a');
      await outer.release();
      inner.ensureHeld();
      expectEqual(await rival.tryAcquire(), undefined);
      await inner.release();
      expectTrue((await rival.tryAcquire()) !== undefined, 'free');
    },
  },
  {
    name: 'locks whose names begin alike do not disturb each other',
    run: async (world: World) => {
      const hf = world.client();
      const child = await hf.lock('orders/42').acquire();
      const parent = await hf.lock('orders').tryAcquire();
      expectTrue(parent !== undefined, 'the parent name is free');
      await expectTrue(child.held, 'and the child is held');
      const rival = world.client('rival');
      expectEqual(await rival.lock('orders').tryAcquire(), undefined);
      await parent?.release();
      await rival.lock('orders').acquire();
    },
  },
  {
    name: 'ownership holds in a transaction while the grant stands and not afterwards',
    run: async (world: World) => {
      const grant = await world.client().lock('a').acquire();
      const write = {
        compare: [grant.ownership()],
        success: [{ type: 'put' as const, key: utf8(`${world.stage.namespace}row`) }],
      };
      expectEqual((await world.stage.engine.txn(write)).succeeded, true);
      await grant.release();
      expectEqual((await world.stage.engine.txn(write)).succeeded, false);
    },
  },
  {
    name: 'lock-delay holds the lock back after an unclean loss and not after a release',
    run: async (world: World) => {
      const delay = world.ttlMs * 2;
      const next = world.client('next');
      const clean = await world.client('clean').lock('a', { lockDelay: delay }).acquire();
      await clean.release();
      const { client, line } = world.connect('unclean');
      const grant = await client.lock('a', { lockDelay: delay }).acquire();
      const waiting = observed(next.lock('a').acquire());
      await world.pass(world.ttlMs / 10);
      line.cut = true;
      await world.until(() => !grant.held, 'the loss');
      await world.pass(delay - world.ttlMs / 10);
      expectEqual(waiting.settled, false);
      await world.until(() => waiting.settled, 'the delay to end');
      waiting.value?.ensureHeld();
    },
  },
  {
    name: 'a circle of owners that wait for each other is found, and one of them is told',
    run: async (world: World) => {
      const left = world.client('left');
      const right = world.client('right');
      const a = await left.lock('a').acquire({ owner: 'job-1' });
      const b = await right.lock('b').acquire({ owner: 'job-2' });
      const waitsForB = observed(left.lock('b').acquire({ owner: 'job-1' }));
      await world.pass(world.ttlMs / 10);
      const waitsForA = observed(right.lock('a').acquire({ owner: 'job-2' }));
      await world.pass(world.ttlMs / 10);
      const [cycle] = await left.deadlocks();
      expectEqual([...(cycle?.names ?? [])].sort(), ['a', 'b']);
      await world.until(() => waitsForA.settled || waitsForB.settled, 'the search', 20_000);
      expectTrue(HoldfastError.is(waitsForA.error, 'deadlock'), 'the last to come gives way');
      expectEqual(waitsForB.settled, false);
      await b.release();
      await world.until(() => waitsForB.settled, 'the other one to go on');
      a.ensureHeld();
      waitsForB.value?.ensureHeld();
    },
  },
  {
    name: 'a multi-lock is all or nothing and queues with single locks',
    run: async (world: World) => {
      const single = await world.client('single').lock('b').acquire();
      const many = world.client('many');
      expectEqual(await many.locks(['a', 'b', 'c']).tryAcquire(), undefined);
      expectTrue((await world.client('x').lock('a').tryAcquire()) !== undefined, 'nothing taken');
      const waiting = observed(many.locks(['c', 'b']).acquire());
      await world.pass(world.ttlMs / 10);
      expectEqual(waiting.settled, false);
      await single.release();
      await world.until(() => waiting.settled, 'its turn');
      expectTrue((waiting.value?.tokens.get('b') ?? 0n) > single.token, 'a token per lock');
      expectEqual(waiting.value?.ownerships().length, 2);
    },
  },
  {
    name: 'multi-locks in opposite order do not deadlock',
    run: async (world: World) => {
      const names = ['a', 'b', 'c'];
      const rounds = [names, [...names].reverse(), ['b', 'c'], ['a', 'c'], names];
      let inside = 0;
      const works = rounds.map((wanted, i) =>
        world
          .client(`p${i}`)
          .locks(wanted)
          .run(async () => {
            expectEqual(++inside, 1, 'holders');
            await world.stage.engine.status();
            inside--;
          }),
      );
      await world.finish(Promise.all(works), 'all multi-locks', world.ttlMs * 20);
    },
  },
];

const RETRIES = [
  {
    name: 'an acquire whose answer was lost gives one grant with the token it had',
    run: async (world: World) => {
      const { client, line } = world.connect('p');
      await client.session();
      line.loseAnswers = 1;
      const grant = await world.finish(client.lock('a').acquire(), 'the retry');
      const { claims } = await world.client('other').lock('a').inspect();
      expectEqual(claims.length, 1);
      expectEqual(claims[0]?.token, grant.token);
      await grant.release();
      await world.pass(world.ttlMs);
      expectTrue((await world.client('x').lock('a').tryAcquire()) !== undefined, 'free');
    },
  },
  {
    name: 'a release whose answer was lost has happened once',
    run: async (world: World) => {
      const { client, line } = world.connect('p');
      const grant = await client.lock('a').acquire();
      line.loseAnswers = 1;
      await world.finish(grant.release(), 'the retry');
      const next = await client.lock('a').acquire();
      expectTrue(next.token > grant.token, 'a new claim');
    },
  },
  {
    name: 'an acquire that is given up while its answer is lost leaves nothing behind',
    run: async (world: World) => {
      const { client, line } = world.connect('p');
      await client.session();
      line.loseAnswers = 1;
      const controller = new AbortController();
      const attempt = observed(client.lock('a').acquire({ signal: controller.signal }));
      controller.abort();
      await world.until(() => attempt.settled, 'the abort');
      await world.pass(world.ttlMs);
      const grant = await world.client('other').lock('a').tryAcquire();
      expectTrue(grant !== undefined, 'the line is empty');
    },
  },
];

const OPERATOR = [
  {
    name: 'an inspection names the holder and every waiter in order, with what is left of leases',
    run: async (world: World) => {
      const grant = await world.client('holder').lock('a').acquire();
      observed(
        world
          .client('second')
          .lock('a')
          .acquire()
          .then((held) => held.release()),
      );
      await world.pass(world.ttlMs / 10);
      const { holder, waiters } = await world.client('operator').lock('a').inspect();
      expectEqual(holder?.holder, 'holder');
      expectEqual(holder?.token, grant.token);
      expectTrue(typeof holder?.heldMs === 'number', 'since when');
      expectTrue((holder?.ttlLeftMs ?? 0) > 0, 'what is left');
      expectEqual(
        waiters.map(({ holder: who, position }) => [who, position]),
        [['second', 1]],
      );
      await grant.release();
      await world.pass(world.ttlMs / 10);
    },
  },
  {
    name: 'a waiter is told who holds and how many are before it',
    run: async (world: World) => {
      const grant = await world.client('holder').lock('a').acquire();
      const reports: [string | undefined, number][] = [];
      const waiting = observed(
        world
          .client('second')
          .lock('a')
          .acquire({ onWait: ({ holder, ahead }) => void reports.push([holder?.holder, ahead]) }),
      );
      await world.until(() => reports.length > 0, 'a report');
      expectEqual(reports[0], ['holder', 1]);
      await grant.release();
      await world.until(() => waiting.settled, 'its turn');
    },
  },
  {
    name: 'a broken lock tells its holder why, and the next one has it',
    run: async (world: World) => {
      const grant = await world.client('holder').lock('a').acquire();
      const { signal } = grant;
      const operator = world.client('operator');
      expectEqual(await operator.lock('a').forceRelease({ reason: 'stuck' }), true);
      await world.until(() => signal.aborted, 'the holder to be told');
      expectEqual(grant.lossReason, 'broken');
      expectTrue(String(signal.reason).includes('stuck'), 'the reason');
      const next = await world.client('next').lock('a').acquire();
      expectTrue(next.token > grant.token, 'the token rose');
      expectEqual(await operator.lock('b').forceRelease({ reason: 'nobody' }), false);
    },
  },
  {
    name: 'a holder whose key was deleted by hand learns it with its next renewal',
    run: async (world: World) => {
      const grant = await world.client('holder').lock('a').acquire();
      await world.stage.engine.txn({ success: [{ type: 'delete', key: grant.key }] });
      await world.until(() => !grant.held, 'the loss');
      expectEqual(grant.lossReason, 'broken');
    },
  },
];

const FOREIGN = [
  {
    name: 'the key has the form that other clients of etcd use',
    run: async (world: World) => {
      const grant = await world.client().lock('orders/42').acquire();
      const wanted = `${world.stage.namespace}orders/42/${leaseHex(grant.session.id)}`;
      expectEqual(grant.key, utf8(wanted));
      const { kvs, header } = await world.stage.engine.range({ key: utf8(wanted) });
      expectEqual(kvs[0]?.lease, grant.session.id);
      expectEqual(grant.token, BigInt(kvs[0]?.createRevision ?? 0) + (BigInt(header.era) << 48n));
    },
  },
  {
    name: 'a foreign holder with an empty value is waited for, and a foreign waiter is before us',
    run: async (world: World) => {
      const { engine, namespace, ttlMs } = world.stage;
      const keys: Uint8Array[] = [];
      for (let i = 0; i < 2; i++) {
        const { id } = await engine.grantLease({ ttlMs: ttlMs * 100 });
        const key = utf8(`${namespace}a/${leaseHex(id)}`);
        await engine.txn({ success: [{ type: 'put', key, value: utf8(''), lease: id }] });
        keys.push(key);
      }
      const waiting = observed(world.client().lock('a').acquire());
      await world.pass(ttlMs / 10);
      await engine.txn({ success: [{ type: 'delete', key: keys[1]! }] });
      await world.pass(ttlMs / 2);
      expectEqual(waiting.settled, false);
      await engine.txn({ success: [{ type: 'delete', key: keys[0]! }] });
      await world.until(() => waiting.settled, 'its turn');
      waiting.value?.ensureHeld();
    },
  },
];
