/**
 * The same for guards whose marks are with a server: PostgreSQL and Redis are killed, and the client
 * of an object store dies between any two of its requests.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import { ObjectGuard } from '../../src/guard/object.ts';
import { PostgresGuard } from '../../src/guard/postgres/index.ts';
import { RedisGuard } from '../../src/guard/redis.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { ObjectServer } from '../../src/testing/object-server.ts';
import { startPostgres } from '../../test/servers/postgres.ts';
import { startRedis } from '../../test/servers/redis.ts';

/** What stood after a crash: the newest effect, the mark, and whether an older token passed. */
export interface Aftermath {
  readonly step: string;
  readonly data: bigint;
  readonly mark: bigint;
  readonly stalePassed: boolean;
}

type Crashes = (guarded: boolean, rounds: number) => Promise<readonly Aftermath[]>;

export const REMOTE: Readonly<Record<string, Crashes>> = {
  postgres: async (guarded) => {
    let server = await startPostgres();
    const aftermath: Aftermath[] = [];
    try {
      await withClient(server.url, async (client) => {
        await PostgresGuard.install(client);
        await client.query('create table data (token bigint)');
        await client.query('insert into data values (0)');
      });
      const steps = guarded ? ['admitted', 'written', 'committed'] : ['written', 'committed'];
      let token = 10n;
      for (const step of steps) {
        token += 2n;
        await withClient(server.url, (client) => writeRow(client, token - 1n, guarded, () => {}));
        await withClient(server.url, async (client) => {
          await writeRow(client, token, guarded, async (name) => {
            if (name === step) await server.kill();
          }).catch(() => {});
        });
        server = await server.restart();
        const { data, mark } = await rowState(server.url);
        const stalePassed = await passes(() =>
          withClient(server.url, (client) => writeRow(client, data - 1n, guarded, () => {})),
        );
        aftermath.push({ step, data, mark, stalePassed });
      }
    } finally {
      await server.stop();
    }
    return aftermath;
  },

  redis: async (guarded, rounds) => {
    let server = await startRedis({ appendFsync: 'always' });
    const aftermath: Aftermath[] = [];
    try {
      let token = 10n;
      for (let round = 0; round < rounds; round++) {
        const client = new Redis(server.url, { retryStrategy: () => null, lazyConnect: true });
        client.on('error', () => {});
        await client.connect();
        const guard = await RedisGuard.open(client);
        // Killed in the middle of a stream of writes; where, chance decides.
        const killing = pause(5 + Math.random() * 60).then(() => server.kill());
        try {
          for (;;) {
            token += 1n;
            await writeKey(client, guard, token, guarded);
          }
        } catch {
          // The server is gone.
        }
        await killing;
        client.disconnect();
        server = await server.restart();
        const after = new Redis(server.url);
        const data = BigInt((await after.get('{r}')) ?? '0');
        const reopened = await RedisGuard.open(after);
        const mark = await reopened.mark('r');
        const stalePassed =
          data > 1n && (await passes(() => writeKey(after, reopened, data - 1n, guarded)));
        after.disconnect();
        aftermath.push({ step: `kill ${round + 1}`, data, mark, stalePassed });
      }
    } finally {
      await server.stop();
    }
    return aftermath;
  },

  object: async (guarded) => {
    await using server = await ObjectServer.start();
    const aftermath: Aftermath[] = [];
    let token = 10n;
    for (let at = 1; at <= (guarded ? 6 : 3); at++) {
      for (const when of ['before', 'after'] as const) {
        token += 2n;
        await writeObject(server.url, token - 1n, guarded);
        await Promise.race([
          writeObject(server.url, token, guarded, dying(at, when)).catch(() => {}),
          pause(300),
        ]);
        const { data, mark } = await objectState(server.url, guarded);
        const stalePassed = await passes(() => writeObject(server.url, data - 1n, guarded));
        aftermath.push({ step: `${when} request ${at}`, data, mark, stalePassed });
      }
    }
    return aftermath;
  },
};

async function passes(write: () => Promise<unknown>): Promise<boolean> {
  try {
    await write();
    return true;
  } catch (error) {
    if (HoldfastError.is(error, 'stale')) return false;
    throw error;
  }
}

async function withClient<T>(url: string, body: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    return await body(client);
  } finally {
    await client.end().catch(() => {});
  }
}

async function writeRow(
  client: pg.Client,
  token: bigint,
  guarded: boolean,
  step: (name: string) => unknown,
): Promise<void> {
  const guard = await PostgresGuard.open(client);
  const update = (): Promise<unknown> =>
    client.query('update data set token = $1', [String(token)]);
  if (!guarded) {
    // Mark and effect in two transactions, the effect first.
    const mark = await guard.mark(client, 'r');
    if (token < mark) throw new HoldfastError('stale', `stale: token ${token} < mark ${mark}`);
    await update();
    await step('written');
    await guard.admit(client, token, 'r');
    await step('committed');
    return;
  }
  await client.query('begin');
  try {
    await guard.admit(client, token, 'r');
    await step('admitted');
    await update();
    await step('written');
    await client.query('commit');
    await step('committed');
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}

async function rowState(url: string): Promise<{ data: bigint; mark: bigint }> {
  return await withClient(url, async (client) => {
    const { rows } = await client.query('select token::text from data');
    const guard = await PostgresGuard.open(client);
    return { data: BigInt(rows[0].token), mark: await guard.mark(client, 'r') };
  });
}

async function writeKey(
  client: Redis,
  guard: RedisGuard,
  token: bigint,
  guarded: boolean,
): Promise<void> {
  if (guarded) {
    const commands = [['SET', '{r}', String(token)]];
    await guard.run(token, { resource: 'r', keys: ['{r}'], commands });
    return;
  }
  const mark = await guard.mark('r');
  if (token < mark) throw new HoldfastError('stale', `stale: token ${token} < mark ${mark}`);
  await client.set('{r}', String(token));
  await client.hset('holdfast:mark:{r}', 't', String(token));
}

type Fetch = (request: Request) => Promise<Response>;

/** The process ends at its n-th request: from then on nothing leaves it, and nothing comes back. */
function dying(at: number, when: 'before' | 'after'): Fetch {
  let count = 0;
  return async (request) => {
    count++;
    const dead = count > at || (count === at && when === 'before');
    if (!dead) {
      const response = await fetch(request);
      if (count < at) return response;
    }
    return await new Promise(() => {});
  };
}

async function writeObject(
  url: string,
  token: bigint,
  guarded: boolean,
  through: Fetch = fetch,
): Promise<void> {
  if (guarded) {
    const guard = await ObjectGuard.open({ store: { url } });
    if (through === fetch) await guard.write(token, 'r', String(token));
    // Dies within the write, not within the probe.
    else await (await openLate(url, through)).write(token, 'r', String(token));
    return;
  }
  const marked = await through(new Request(`${url}/mark`));
  const mark = marked.ok ? BigInt(await marked.text()) : 0n;
  if (token < mark) throw new HoldfastError('stale', `stale: token ${token} < mark ${mark}`);
  await through(new Request(`${url}/data`, { method: 'PUT', body: String(token) }));
  await through(new Request(`${url}/mark`, { method: 'PUT', body: String(token) }));
}

async function openLate(url: string, through: Fetch): Promise<ObjectGuard> {
  let open = false;
  const guard = await ObjectGuard.open({
    store: { url, fetch: (request) => (open ? through(request) : fetch(request)) },
  });
  open = true;
  return guard;
}

async function objectState(url: string, guarded: boolean): Promise<{ data: bigint; mark: bigint }> {
  if (guarded) {
    const guard = await ObjectGuard.open({ store: { url } });
    const found = await guard.read('r');
    return { data: BigInt(String(found?.data ?? '0')), mark: await guard.mark('r') };
  }
  const value = async (name: string): Promise<bigint> => {
    const response = await fetch(`${url}/${name}`);
    return response.ok ? BigInt(await response.text()) : 0n;
  };
  return { data: await value('data'), mark: await value('mark') };
}
