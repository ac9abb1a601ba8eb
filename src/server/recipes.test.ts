/**
 * The recipe suite through our own client and server: what holds on an engine must survive the wire.
 * Time is the server's, and real, so cases wait for their leases together.
 */
import { afterAll, beforeAll, describe, it, vi } from 'vitest';
import { systemClock } from '../base/system.ts';
import type { Engine } from '../engine/contract.ts';
import { open as openEtcd } from '../engine/etcd/open.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { recipeCases } from '../testing/recipes/cases.ts';
import { passReally } from '../testing/recipes/real-stage.ts';
import { runRecipeCase } from '../testing/recipes/run.ts';
import type { OpenStage, Stage } from '../testing/recipes/world.ts';
import { AuthService } from '../wire/messages/services.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';
import { serve } from './serve.ts';

/** Long enough for a machine with much else to do. */
const TTL_MS = 3_000;
let stages = 0;

interface Served {
  readonly url: string;
  stop(): Promise<void>;
}

async function served(behind: Engine): Promise<Served & { readonly port: number }> {
  const server = await serve({ engine: behind, listen: { port: 0 } });
  const stop = async (): Promise<void> => {
    await server.close();
    await behind.close();
  };
  return { url: `etcd://127.0.0.1:${server.port}`, port: server.port, stop };
}

async function open(): Promise<Served> {
  return served(await openMemoryEngine());
}

/** With access control on, by a user of a tenant, whose keys and leases are its own. */
async function openForTenant(): Promise<Served> {
  const { port, stop } = await served(await openMemoryEngine());
  const client = new GrpcClient({ port });
  for (const name of ['root', 'acme/ann']) {
    await client.unary(AuthService.UserAdd, { name, password: 'pw' });
    await client.unary(AuthService.UserGrantRole, { user: name, role: 'root' });
  }
  await client.unary(AuthService.AuthEnable, {});
  client.destroy();
  return { url: `etcd://acme%2Fann:pw@127.0.0.1:${port}`, stop };
}

vi.setConfig({ maxConcurrency: 40 });

interface Suite {
  readonly name: string;
  readonly open: () => Promise<Served>;
  /** Cases share one engine: a login of each at once would only measure the hash. */
  readonly oneEngine?: boolean;
  /** Groups that this caller may not do, with the reason. */
  readonly skip?: Readonly<Record<string, string>>;
}

/** Cases that expect an era which nobody has lifted before. */
const ALONE: ReadonlySet<string> = new Set(['a restored authority']);

function register({ name, open, oneEngine = false, skip = {} }: Suite): void {
  describe.concurrent(`recipes on ${name}`, () => {
    let shared: Served;
    let engine: Engine | undefined;
    beforeAll(async () => {
      shared = await open();
      if (oneEngine) engine = await openEtcd(shared.url);
    });
    afterAll(async () => {
      await engine?.close();
      await shared.stop();
    });

    const together: OpenStage = async () => {
      if (engine) return stageOn(engine, async () => {});
      const own = await openEtcd(shared.url);
      return stageOn(own, () => own.close());
    };
    const alone: OpenStage = async () => {
      const { url, stop } = await open();
      const own = await openEtcd(url);
      return stageOn(own, async () => {
        await own.close();
        await stop();
      });
    };
    for (const one of recipeCases()) {
      const title = `${one.group}: ${one.name}`;
      const reason = skip[one.group];
      if (reason) it.skip(`${title} (${reason})`, () => {});
      else it(title, () => runRecipeCase(one, ALONE.has(one.group) ? alone : together));
    }
  });
}

function stageOn(engine: Engine, dispose: () => Promise<void>): Stage {
  const namespace = `case-${++stages}/`;
  return { engine, clock: systemClock, namespace, ttlMs: TTL_MS, pass: passReally, dispose };
}

register({ name: 'our server through the etcd engine', open });

describe.skipIf(!process.env.HOLDFAST_TEST_LONG)('(long: HOLDFAST_TEST_LONG=1)', () => {
  register({
    name: 'our server, by a user of a tenant',
    open: openForTenant,
    oneEngine: true,
    skip: { 'a restored authority': 'only an operator lifts the era' },
  });
});
