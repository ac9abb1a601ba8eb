/** Recipes on a real etcd through a line that loses, doubles and delays: the fault kit unchanged. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import { type Etcd, startEtcd } from '../../../test/servers/etcd.ts';
import { seededRandom } from '../../base/random.ts';
import { systemRandom } from '../../base/system.ts';
import { Client } from '../../client.ts';
import { faultyEngine } from '../../testing/faults.ts';
import {
  delayAnswer,
  dropAnswer,
  dropRequest,
  duplicate,
  sometimes,
} from '../../testing/verdicts.ts';
import { open } from './open.ts';

const seed = Date.now() % 2 ** 31;
const CLIENTS = 4;
const TURNS = 12;

function urlOf(server: Etcd): string {
  return `etcd://${new URL(server.url).host}`;
}

describe.skipIf(!installed('etcd'))('with a real etcd', () => {
  let server: Etcd;

  beforeAll(async () => {
    server = await startEtcd();
  });

  afterAll(() => server?.stop());

  it(`locks exclude, tokens rise and nothing counts twice on a bad line (seed ${seed})`, async () => {
    const tokens: bigint[] = [];
    let inside = 0;
    let most = 0;
    let struck = 0;
    const work = async (n: number): Promise<void> => {
      const inner = await open(urlOf(server));
      const engine = faultyEngine(inner, { random: seededRandom(seed + n) });
      const guards = [dropRequest(20), dropAnswer(20), duplicate(), delayAnswer(30)].map(
        (verdict) => engine.inject(sometimes(0.05, verdict)),
      );
      const client = new Client(engine, { ttl: 10_000, random: systemRandom }, false);
      for (let turn = 0; turn < TURNS; turn++) {
        await client.lock('bad-line').run(async ({ token }) => {
          most = Math.max(most, ++inside);
          tokens.push(token);
          await client.counter('bad-line').add(1);
          inside--;
        });
      }
      struck += guards.reduce((sum, { hits }) => sum + hits, 0);
      for (const guard of guards) guard.uninstall();
      await client.close();
      await inner.close();
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, n) => work(n)));
    const reader = await open(urlOf(server));
    const client = new Client(reader, {}, false);
    const counted = await client.counter('bad-line').get();
    await client.close();
    await reader.close();
    expect(struck).toBeGreaterThan(0);
    expect(most).toBe(1);
    expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => Number(a - b)));
    expect(Number(counted)).toBe(CLIENTS * TURNS);
  });
});
