/** Sessions: the holder stops first, and knows why. */
import { HoldfastError } from '../../model/errors.ts';
import { expectEqual, expectError, expectTrue } from '../conformance/expect.ts';
import type { RecipeCase, World } from './world.ts';

export function sessionCases(): readonly RecipeCase[] {
  return SESSIONS.map((one) => ({ group: 'session', ...one }));
}

const SESSIONS = [
  {
    name: 'a session lives on far beyond its TTL while it renews',
    run: async (world: World) => {
      const grant = await world.client().lock('a').acquire();
      await world.pass(world.ttlMs * 4);
      grant.ensureHeld();
      const rival = await world.client('rival').lock('a').tryAcquire();
      expectEqual(rival, undefined, 'a rival');
    },
  },
  {
    name: 'a holder that is cut off stops before the authority lets anybody else in',
    run: async (world: World) => {
      const { client, line } = world.connect('first');
      const grant = await client.lock('a').acquire();
      const { signal } = grant;
      const next = world.client('next').lock('a').acquire();
      let overlap = false;
      void next.then(() => {
        overlap = !signal.aborted || grant.held;
      });
      line.cut = true;
      const second = await world.finish(next, 'the lock to be free');
      expectTrue(!overlap, 'the first holder still believed when the second had the lock');
      expectEqual(grant.lossReason, 'unreachable');
      expectTrue(second.token > grant.token, 'the token rose');
      expectTrue(HoldfastError.is(signal.reason, 'grant-lost'), 'the signal carries the loss');
    },
  },
  {
    name: 'a lost renewal answer does not lose the lease',
    run: async (world: World) => {
      const { client, line } = world.connect('first');
      const grant = await client.lock('a').acquire();
      for (let i = 0; i < 6; i++) {
        line.loseAnswers = 1;
        await world.pass(world.ttlMs / 2);
      }
      grant.ensureHeld();
    },
  },
  {
    name: 'a revoked lease ends the session with its reason at the next renewal',
    run: async (world: World) => {
      const client = world.client();
      const grant = await client.lock('a').acquire();
      await world.stage.engine.revokeLease(grant.session.id);
      await world.until(() => !grant.held, 'the loss');
      expectEqual(grant.lossReason, 'revoked');
      expectEqual(grant.session.lossReason, 'revoked');
    },
  },
  {
    name: 'after a loss the client comes back with a new session and a higher token',
    run: async (world: World) => {
      const client = world.client();
      const grant = await client.lock('a').acquire();
      await world.stage.engine.revokeLease(grant.session.id);
      await world.until(() => !grant.held, 'the loss');
      const again = await client.lock('a').acquire();
      expectTrue(again.token > grant.token, 'the token rose');
      expectTrue(again.session.id !== grant.session.id, 'the session is another');
    },
  },
  {
    name: 'an unhealthy process lets its lease run out and says so',
    run: async (world: World) => {
      let healthy = true;
      const client = world.client('sick', { health: { healthy: () => healthy } });
      const grant = await client.lock('a').acquire();
      await world.pass(world.ttlMs * 2);
      grant.ensureHeld();
      healthy = false;
      await world.until(() => !grant.held, 'the loss');
      expectEqual(grant.lossReason, 'unhealthy');
    },
  },
  {
    name: 'sessions of one client end separately',
    run: async (world: World) => {
      const client = world.client();
      const one = await client.lock('a').acquire();
      const other = await client.lock('b').acquire({ ttl: world.ttlMs * 2 });
      expectTrue(one.session.id !== other.session.id, 'the sessions differ');
      await one.session.close();
      expectEqual(one.lossReason, 'closed');
      other.ensureHeld();
    },
  },
  {
    name: 'closing a client frees at once what it held',
    run: async (world: World) => {
      const first = world.client('first');
      const grant = await first.lock('a').acquire();
      await first.close();
      expectEqual(grant.held, false);
      const second = await world.client('second').lock('a').tryAcquire();
      expectTrue(second !== undefined, 'the lock is free');
      await expectError(first.lock('a').acquire(), 'closed');
    },
  },
];
