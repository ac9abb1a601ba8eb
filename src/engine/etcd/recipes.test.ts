/** The recipe suite on real etcd: every case on one member, those of the core on three. */
import { afterAll, beforeAll, describe, it, vi } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import { startEtcd, startEtcdCluster } from '../../../test/servers/etcd.ts';
import { systemClock } from '../../base/system.ts';
import { recipeCases } from '../../testing/recipes/cases.ts';
import { passReally } from '../../testing/recipes/real-stage.ts';
import { runRecipeCase } from '../../testing/recipes/run.ts';
import type { OpenStage, RecipeCase } from '../../testing/recipes/world.ts';
import { open } from './open.ts';
import { RECIPE_SKIPS } from './skips.ts';

/** The shortest that etcd grants is two seconds. */
const TTL_MS = 3_000;
let stages = 0;

interface Served {
  readonly urls: readonly string[];
  stop(): Promise<void>;
}

const alone: OpenStage = async () => {
  const server = await startEtcd();
  const stage = await stagedOn(() => ({ urls: [server.url], stop: () => server.stop() }))();
  const dispose = async (): Promise<void> => {
    await stage.dispose();
    await server.stop();
  };
  return { ...stage, dispose };
};

function stagedOn(served: () => Served): OpenStage {
  return async () => {
    const engine = await open(
      `etcd://${served()
        .urls.map((url) => new URL(url).host)
        .join(',')}`,
    );
    return {
      ...{ engine, clock: systemClock, namespace: `case-${++stages}/`, ttlMs: TTL_MS },
      pass: passReally,
      dispose: () => engine.close(),
    };
  };
}

/** Cases wait for leases in real time, so they wait together. */
vi.setConfig({ maxConcurrency: 40 });

/** What runs on three members, too. */
const CORE: ReadonlySet<string> = new Set(['lock', 'session', 'election']);
/** Cases that expect an era which nobody has lifted before. */
const ALONE: ReadonlySet<string> = new Set(['a restored authority']);

describe.skipIf(!installed('etcd'))('on a real etcd', () => {
  let single: Served;
  let cluster: Served;

  beforeAll(async () => {
    const [one, three] = await Promise.all([startEtcd(), startEtcdCluster()]);
    single = { urls: [one.url], stop: () => one.stop() };
    cluster = three;
  });

  afterAll(async () => {
    await Promise.all([single?.stop(), cluster?.stop()]);
  });

  const cases = recipeCases();
  register('etcd', cases, (one) => (ALONE.has(one.group) ? alone : stagedOn(() => single)));
  const core = cases.filter(({ group }) => CORE.has(group));
  register('etcd, three members', core, () => stagedOn(() => cluster));
});

function register(
  name: string,
  cases: readonly RecipeCase[],
  open: (one: RecipeCase) => OpenStage,
): void {
  describe.concurrent(`recipes on ${name}`, () => {
    for (const one of cases) {
      const reason = RECIPE_SKIPS[one.name];
      const title = `${one.group}: ${one.name}`;
      if (reason) it.skip(`${title} (${reason})`, () => {});
      else it(title, () => runRecipeCase(one, open(one)));
    }
  });
}
