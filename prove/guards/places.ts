/** Starts the real resource of each guard, and reads from it what took effect, in order. */

import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import {
  type AddressInfo,
  createConnection,
  createServer as createDevice,
  type Server as NetServer,
} from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import { CacheAgent, varnishCache, varnishVcl } from '../../src/guard/cache/index.ts';
import { createGuardProxy, HttpGuard, LmdbMarks } from '../../src/guard/http/index.ts';
import { PostgresGuard } from '../../src/guard/postgres/index.ts';
import { StreamGuard } from '../../src/guard/stream.ts';
import { ObjectServer } from '../../src/testing/object-server.ts';
import { startVarnish } from '../../test/servers/cache.ts';
import { startPostgres } from '../../test/servers/postgres.ts';
import { startRedis } from '../../test/servers/redis.ts';
import { type Entry, type GuardName, NOTHING, type Place } from './subjects.ts';

export interface Stage {
  readonly place: Place;
  /** Every write that took effect, in order. */
  history(): Promise<readonly Entry[]>;
  stop(): Promise<unknown>;
  /** A cache shows only what somebody read, so not every write need be seen. */
  readonly sampled?: boolean;
}

type Starter = (guarded: boolean, directory: string) => Promise<Stage>;

export const PLACES: Readonly<Record<GuardName, Starter>> = {
  postgres: async (guarded) => {
    const server = await startPostgres();
    const pool = new pg.Pool({ connectionString: server.url, max: 2 });
    await PostgresGuard.install(pool);
    await pool.query('create table state (n int, operation text, token text)');
    await pool.query('create table history (id bigserial, n int, operation text, token text)');
    await pool.query(`insert into state values (0, '', '0')`);
    return {
      place: { guard: 'postgres', guarded, at: server.url },
      history: async () =>
        (await pool.query('select n, operation, token from history order by id')).rows,
      stop: async () => {
        await pool.end();
        await server.stop();
      },
    };
  },

  redis: async (guarded) => {
    const server = await startRedis({ appendFsync: 'always' });
    return {
      place: { guard: 'redis', guarded, at: server.url },
      history: async () => {
        const client = new Redis(server.url);
        const list = await client.lrange('{s}:history', 0, -1);
        client.disconnect();
        return list.map((text) => JSON.parse(text));
      },
      stop: () => server.stop(),
    };
  },

  file: async (guarded, directory) => {
    await mkdir(directory, { recursive: true });
    await writeFile(`${directory}/state`, JSON.stringify(NOTHING));
    return {
      place: { guard: 'file', guarded, at: directory },
      history: async () =>
        (await readFile(`${directory}/history`, 'utf8'))
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line)),
      stop: async () => {},
    };
  },

  http: async (guarded, directory) => {
    const service = await startService();
    const marks = LmdbMarks.open(`${directory}/marks`);
    const proxy = await listening(
      // Reads pass the guard too: what is read before the mark has risen, an older holder may still
      // change rightfully.
      createGuardProxy(new HttpGuard(marks, { routes: [{ resource: 'http' }] }), {
        upstream: service.url,
      }),
    );
    return {
      place: { guard: 'http', guarded, at: guarded ? proxy.url : service.url },
      history: async () => service.history,
      stop: async () => {
        await proxy.stop();
        await service.stop();
        await marks.close();
      },
    };
  },

  object: async (guarded) => {
    const server = await ObjectServer.start();
    return {
      place: { guard: 'object', guarded, at: server.url },
      history: async () => {
        const contents = new Map(server.writes.map(({ key, body }) => [key, body]));
        const states = server.writes.filter(({ key, body }) => key === 'state' && body);
        return states.map(({ body }) => {
          const entry = JSON.parse(String(body)) as Entry & { readonly content?: string };
          if (!guarded || !entry.content) return entry;
          const kept = server.writes.find(({ key, body }) => key === entry.content && body);
          return JSON.parse(String(kept?.body ?? contents.get(entry.content))) as Entry;
        });
      },
      stop: () => server.close(),
    };
  },

  stream: async (guarded, directory) => {
    const device = await startDevice();
    const marks = LmdbMarks.open(`${directory}/marks`);
    const line = createConnection(device.port, '127.0.0.1');
    await once(line, 'connect');
    const guard = new StreamGuard(line, marks, { resource: 'device', delimiter: 10 });
    guard.server.listen(0, '127.0.0.1');
    await once(guard.server, 'listening');
    const { port } = guard.server.address() as AddressInfo;
    return {
      place: { guard: 'stream', guarded, at: String(guarded ? port : device.port) },
      history: async () => device.history,
      stop: async () => {
        await guard.close();
        line.destroy();
        await device.stop();
        await marks.close();
      },
    };
  },

  cache: async (guarded, directory) => {
    const service = await startService(40);
    const marks = LmdbMarks.open(`${directory}/marks`);
    const floors = LmdbMarks.open(`${directory}/floors`);
    const origin = await listening(
      // Reads pass the guard too: what is read before the mark has risen, an older holder may still
      // change rightfully.
      createGuardProxy(new HttpGuard(marks, { routes: [{ resource: 'http' }] }), {
        upstream: service.url,
      }),
    );
    const caches: ReturnType<typeof varnishCache>[] = [];
    const agent = new CacheAgent(floors, { origin: service.url, caches });
    const backend = await listening(
      createServer((request, response) => void agent.serve(request, response)),
    );
    const control = await listening(
      createServer((request, response) => void agent.control(request, response)),
    );
    const port = guarded ? backend.port : service.port;
    const varnish = await startVarnish(varnishVcl({ host: '127.0.0.1', port }));
    caches.push(varnishCache(varnish.url));
    const seen: Entry[] = [];
    const stop = watchCache(varnish.url, seen);
    return {
      sampled: true,
      place: {
        guard: 'cache',
        guarded,
        at: guarded ? origin.url : service.url,
        control: guarded ? control.url : varnish.url,
      },
      history: async () => seen,
      stop: async () => {
        await stop();
        await varnish.stop();
        for (const each of [control, backend, origin, service]) await each.stop();
        agent.close();
        await marks.close();
        await floors.close();
      },
    };
  },
};

interface Listening {
  readonly url: string;
  readonly port: number;
  stop(): Promise<unknown>;
}

async function listening(server: Server): Promise<Listening> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const stop = (): Promise<unknown> =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${port}`, port, stop };
}

/** A service that knows nothing of tokens: it stores what it is sent, last writer wins. */
async function startService(slowMs = 0): Promise<Listening & { readonly history: Entry[] }> {
  const history: Entry[] = [];
  const listener: RequestListener = async (request, response) => {
    if (request.method === 'PUT') {
      let body = '';
      for await (const chunk of request) body += chunk;
      history.push(JSON.parse(body));
      response.end('stored');
      return;
    }
    const now = history.at(-1) ?? NOTHING;
    const headers: Record<string, string> = { 'cache-control': 'max-age=3600' };
    if (now.token !== '0') headers['holdfast-token'] = now.token;
    // A slow answer: what it holds may be old by the time it arrives.
    if (request.url === '/page') await pause(Math.random() * slowMs);
    response.writeHead(200, headers).end(JSON.stringify(now));
  };
  return { ...(await listening(createServer(listener))), history };
}

/** A device with one register: `get`, and `set ENTRY`. */
async function startDevice(): Promise<{
  readonly port: number;
  readonly history: Entry[];
  stop(): Promise<unknown>;
}> {
  const history: Entry[] = [];
  const device: NetServer = createDevice((socket) => {
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', (line) => {
      if (line === 'get') socket.write(`${JSON.stringify(history.at(-1) ?? NOTHING)}\n`);
      else if (line.startsWith('set ')) {
        const entry = JSON.parse(line.slice(4)) as Entry;
        history.push(entry);
        socket.write(`done ${entry.operation}\n`);
      }
    });
  });
  device.listen(0, '127.0.0.1');
  await once(device, 'listening');
  const { port } = device.address() as AddressInfo;
  return { port, history, stop: () => new Promise((resolve) => device.close(resolve)) };
}

/** A reader in front of the cache; notes each change of what it is served. */
function watchCache(url: string, seen: Entry[]): () => Promise<void> {
  let running = true;
  const loop = (async () => {
    while (running) {
      const response = await fetch(`${url}/page`).catch(() => undefined);
      if (response?.ok) {
        const entry = (await response.json()) as Entry;
        if (entry.token !== '0' && entry.operation !== seen.at(-1)?.operation) seen.push(entry);
      } else await response?.arrayBuffer();
      await pause(5);
    }
  })();
  return async () => {
    running = false;
    await loop.catch(() => {});
  };
}
