/** Elections: one leader per term, terms that rise, nobody who leads without its claim. */
import { text } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Leader } from '../../recipes/election.ts';
import { expectEqual, expectError, expectTrue } from '../conformance/expect.ts';
import { observed, type RecipeCase, type World } from './world.ts';

export function electionCases(): readonly RecipeCase[] {
  return ELECTIONS.map((one) => ({ group: 'election', ...one }));
}

/** Keeps what an observer is told until the case is over. */
function watching(world: World, name: string) {
  const seen: (Leader | undefined)[] = [];
  const controller = new AbortController();
  const { signal } = controller;
  const run = async (): Promise<void> => {
    for await (const leader of world.client('observer').election(name).observe({ signal })) {
      seen.push(leader);
    }
  };
  const done = run();
  return { seen, stop: () => controller.abort(), done };
}

const ELECTIONS = [
  {
    name: 'the first candidate leads, the next one follows when it resigns, with a higher token',
    run: async (world: World) => {
      const first = await world.client('a').election('e').campaign({ value: 'A' });
      const second = observed(world.client('b').election('e').campaign({ value: 'B' }));
      await world.pass(world.ttlMs / 10);
      expectEqual(second.settled, false);
      await first.resign();
      await world.until(() => second.settled, 'the second to lead');
      expectTrue((second.value?.token ?? 0n) > first.token, 'the token rose');
      expectEqual(first.held, false);
    },
  },
  {
    name: 'a candidate whose lease ended while it waited is not told that it leads',
    run: async (world: World) => {
      const first = await world.client('a').election('e').campaign();
      const { client, line } = world.connect('b');
      const session = await client.session();
      const waiting = observed(client.election('e').campaign());
      await world.pass(world.ttlMs / 10);
      line.cut = true;
      await world.until(() => !session.alive, 'the session to be lost');
      line.cut = false;
      await first.resign();
      await world.until(() => waiting.settled, 'the candidate to be told');
      expectTrue(HoldfastError.is(waiting.error, 'session-lost'), 'session-lost');
    },
  },
  {
    name: 'observers see each leader and what it proclaims, terms rising',
    run: async (world: World) => {
      const { seen, stop, done } = watching(world, 'e');
      await world.until(() => seen.length === 1, 'no leader yet');
      const first = await world.client('a').election('e').campaign({ value: 'A' });
      await world.until(() => seen.length === 2, 'the first leader');
      await first.proclaim('A2');
      await world.until(() => seen.length === 3, 'what it proclaims');
      const second = observed(world.client('b').election('e').campaign({ value: 'B' }));
      await world.pass(world.ttlMs / 10);
      await first.resign();
      await world.until(() => seen.length === 4, 'the second leader');
      await world.until(() => second.settled, 'the second leader to know');
      expectEqual(
        seen.map((leader) => leader && text(leader.value)),
        [undefined, 'A', 'A2', 'B'],
      );
      expectEqual(seen[3]?.token, second.value?.token);
      stop();
      await done;
    },
  },
  {
    name: 'who does not lead any more cannot proclaim',
    run: async (world: World) => {
      const leader = await world.client('a').election('e').campaign();
      await world.stage.engine.txn({ success: [{ type: 'delete', key: leader.key }] });
      await expectError(leader.proclaim('x'), ['not-leader', 'grant-lost']);
      const other = await world.client('b').election('e').campaign();
      await other.resign();
      await expectError(other.proclaim('x'), 'grant-lost');
    },
  },
  {
    name: 'a proclamation whose answer was lost is seen once, and the term stays',
    run: async (world: World) => {
      const { client, line } = world.connect('a');
      const leader = await client.election('e').campaign({ value: '1' });
      line.loseAnswers = 1;
      await world.finish(leader.proclaim('2'), 'the retry');
      const now = await world.client('b').election('e').leader();
      expectEqual([now && text(now.value), now?.token], ['2', leader.token]);
    },
  },
  {
    name: 'a campaign whose answer was lost ends in one candidacy',
    run: async (world: World) => {
      const { client, line } = world.connect('a');
      await client.session();
      line.loseAnswers = 1;
      const leader = await world.finish(client.election('e').campaign({ value: '1' }), 'the retry');
      await leader.resign();
      expectEqual(await world.client('b').election('e').leader(), undefined);
    },
  },
  {
    name: 'a transfer makes the named candidate lead, whoever stood before it',
    run: async (world: World) => {
      const first = await world.client('a').election('e').campaign({ candidate: 'a' });
      const waiting = new Map<string, ReturnType<typeof observed>>();
      for (const candidate of ['b', 'c', 'd']) {
        const campaign = world.client(candidate).election('e').campaign({ candidate });
        waiting.set(candidate, observed(campaign));
        await world.pass(world.ttlMs / 10);
      }
      await expectError(first.transfer('nobody'), 'invalid-argument');
      first.ensureHeld();
      await first.transfer('d');
      await world.until(() => waiting.get('d')?.settled === true, 'd to lead');
      await world.pass(world.ttlMs);
      expectEqual([waiting.get('b')?.settled, waiting.get('c')?.settled], [false, false]);
      const d = waiting.get('d')?.value as { token: bigint; resign(): Promise<void> };
      expectTrue(d.token > first.token, 'the token rose');
      await d.resign();
      await world.until(() => waiting.get('b')?.settled === true, 'b, which was moved, to lead');
      const b = waiting.get('b')?.value as { token: bigint; resign(): Promise<void> };
      expectTrue(b.token > d.token, 'the token rose again');
      await b.resign();
      await world.until(() => waiting.get('c')?.settled === true, 'c to lead in the end');
    },
  },
  {
    name: 'a candidate with a higher priority goes before those that wait',
    run: async (world: World) => {
      const leader = await world.client('a').election('e').campaign();
      const low = observed(world.client('low').election('e').campaign({ candidate: 'low' }));
      await world.pass(world.ttlMs / 10);
      const high = observed(
        world.client('high').election('e').campaign({ candidate: 'high', priority: 5 }),
      );
      await world.pass(world.ttlMs / 10);
      leader.ensureHeld();
      await leader.resign();
      await world.until(() => high.settled, 'the higher priority to lead');
      expectEqual(low.settled, false);
      await high.value?.resign();
      await world.until(() => low.settled, 'the lower one after it');
    },
  },
  {
    name: 'the leader’s value may be anything, also what looks like a claim of ours',
    run: async (world: World) => {
      const value = '{"holder":"x","held":1,"holdfast-held":1}';
      const first = await world.client('a').election('e').campaign({ value });
      const second = observed(world.client('b').election('e').campaign({ value }));
      await world.pass(world.ttlMs / 10);
      const third = observed(world.client('c').election('e').campaign({ value }));
      await world.pass(world.ttlMs / 10);
      await world.stage.engine.revokeLease(await leaseOfSecond(world));
      await world.pass(world.ttlMs / 2);
      expectEqual(third.settled, false);
      await first.resign();
      await world.until(() => third.settled, 'the third to lead');
      expectTrue(second.error !== undefined || !second.settled, 'the second one is gone');
    },
  },
];

async function leaseOfSecond(world: World): Promise<bigint> {
  const { claims } = await world.client('looker').lock('e').inspect();
  return claims[1]?.lease ?? 0n;
}
