/**
 * What a guard costs: a guarded write against the plain write it replaces, one at a time and 16 at
 * once on resources of their own. Where the plain write is not durable the guard's mark still is.
 */
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { open as openFile, rename } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createConnection, createServer as createDevice } from 'node:net';
import { createInterface } from 'node:readline';
import { Redis } from 'ioredis';
import pg from 'pg';
import type { Context, Experiment } from '../scripts/experiment.ts';
import { FencedDirectory } from '../src/guard/file.ts';
import {
  createGuardProxy,
  guardListener,
  HttpGuard,
  LmdbMarks,
  MemoryMarks,
} from '../src/guard/http/index.ts';
import { ObjectGuard } from '../src/guard/object.ts';
import { PostgresGuard } from '../src/guard/postgres/index.ts';
import { RedisGuard } from '../src/guard/redis.ts';
import { StreamGuard } from '../src/guard/stream.ts';
import { ObjectServer } from '../src/testing/object-server.ts';
import { startPostgres } from '../test/servers/postgres.ts';
import { startRedis } from '../test/servers/redis.ts';

/** One write by one of the workers. */
type Write = (worker: number) => Promise<unknown>;

interface Pair {
  readonly name: string;
  readonly plain: Write;
  readonly guarded: Write;
  /** What the plain write is. */
  readonly against: string;
}

const AT_ONCE = [1, 16] as const;
const TOKEN = 42n;

export const experiment: Experiment = {
  about: 'a guarded against a plain write, for each guard',
  needs: { initdb: 'postgresql-15', 'redis-server': 'redis-server' },
  async run(context) {
    const ms = context.options.quick ? 400 : 2_000;
    const rows: string[] = [];
    const figures: Record<string, number> = {};
    for (const make of [postgres, redis, file, http, proxy, object, stream]) {
      for (const pair of await make(context)) {
        for (const atOnce of AT_ONCE) {
          const plain = await rate(pair.plain, atOnce, ms);
          const guarded = await rate(pair.guarded, atOnce, ms);
          const ratio = Number((guarded.perSecond / plain.perSecond).toFixed(2));
          const name = `${pair.name}, ${atOnce} at once`;
          figures[`${name}: × plain`] = ratio;
          figures[`${name}: guarded/s`] = Math.round(guarded.perSecond);
          const cells = [
            pair.name,
            pair.against,
            atOnce,
            `${Math.round(plain.perSecond)}/s, ${plain.medianMs.toFixed(2)} ms`,
            `${Math.round(guarded.perSecond)}/s, ${guarded.medianMs.toFixed(2)} ms`,
            ratio.toFixed(2),
          ];
          rows.push(`| ${cells.join(' | ')} |`);
          context.log(rows.at(-1)!);
        }
      }
    }
    if (!context.options.quick) writeFileSync('bench/results/guards.md', report(rows));
    return { ok: true, figures, control: {} };
  },
};

function report(rows: readonly string[]): string {
  return [
    '# What a guard costs',
    '',
    '`npm run bench -- guards`; both sides in one run on one machine, clients and servers on the same',
    'cores. Rate and median of one write.',
    '',
    '| guard | plain write | at once | plain | guarded | ratio |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

async function rate(
  write: Write,
  atOnce: number,
  ms: number,
): Promise<{ perSecond: number; medianMs: number }> {
  const until = (end: number, times: number[]) => async (_: unknown, worker: number) => {
    for (let now = performance.now(); now < end; ) {
      await write(worker);
      const then = performance.now();
      times.push(then - now);
      now = then;
    }
  };
  const workers = Array.from({ length: atOnce });
  await Promise.all(workers.map(until(performance.now() + ms / 5, [])));
  const times: number[] = [];
  const begun = performance.now();
  await Promise.all(workers.map(until(begun + ms, times)));
  const seconds = (performance.now() - begun) / 1_000;
  times.sort((a, b) => a - b);
  return { perSecond: times.length / seconds, medianMs: times[times.length >> 1] ?? 0 };
}

async function postgres(context: Context): Promise<Pair[]> {
  const server = await startPostgres();
  context.cleanup(() => server.stop());
  const pool = new pg.Pool({ connectionString: server.url, max: 16 });
  context.cleanup(() => pool.end());
  await PostgresGuard.install(pool);
  const guard = await PostgresGuard.open(pool);
  await pool.query('create table t as select i as id, 0 as n from generate_series(0, 15) i');
  await pool.query('create table p as select i as id, 0 as n from generate_series(0, 15) i');
  await pool.query(`select holdfast_guard.protect_rows('p', 'r', 'id')`);
  const within = async (body: (tx: pg.PoolClient) => Promise<unknown>): Promise<void> => {
    const tx = await pool.connect();
    await tx.query('begin');
    await body(tx);
    await tx.query('commit');
    tx.release();
  };
  const update = (tx: pg.PoolClient, table: string, i: number): Promise<unknown> =>
    tx.query(`update ${table} set n = n + 1 where id = $1`, [i]);
  const plain: Write = (i) => within((tx) => update(tx, 't', i));
  const guarded = (table: string): Write => {
    return (i) =>
      within(async (tx) => {
        await guard.admit(tx, TOKEN, `r${i}`);
        await update(tx, table, i);
      });
  };
  const against = 'begin, update, commit';
  return [
    { name: 'postgres', against, plain, guarded: guarded('t') },
    { name: 'postgres, protected table', against, plain, guarded: guarded('p') },
  ];
}

async function redis(context: Context): Promise<Pair[]> {
  const server = await startRedis({ appendFsync: 'always' });
  context.cleanup(() => server.stop());
  const client = new Redis(server.url);
  context.cleanup(() => client.disconnect());
  const guard = await RedisGuard.open(client);
  const guarded: Write = (i) =>
    guard.run(TOKEN, { resource: `r${i}`, keys: [`{r${i}}`], commands: [['SET', `{r${i}}`, 'x']] });
  const plain: Write = (i) => client.set(`{r${i}}`, 'x');
  return [{ name: 'redis', against: '`SET`, `appendfsync always`', plain, guarded }];
}

async function file(context: Context): Promise<Pair[]> {
  const roots = Array.from({ length: 16 }, (_, i) => `${context.scratch}/files-${i}`);
  const fenced = await Promise.all(roots.map((root) => FencedDirectory.open(root)));
  context.cleanup(() => Promise.all(fenced.map((each) => each.close())));
  const plain: Write = async (i) => {
    const path = `${roots[i]}/plain`;
    const writer = await openFile(`${path}.new`, 'w');
    await writer.writeFile('x');
    await writer.sync();
    await writer.close();
    await rename(`${path}.new`, path);
    const folder = await openFile(roots[i]!, 'r');
    await folder.sync();
    await folder.close();
  };
  const guarded: Write = (i) => fenced[i]!.write(TOKEN, 'guarded', 'x');
  return [{ name: 'file', against: 'write, sync, rename, sync', plain, guarded }];
}

async function http(context: Context): Promise<Pair[]> {
  const guard = new HttpGuard(lmdb(context, 'http'), { routes: perPath });
  const listener = (_request: unknown, response: { end(): unknown }): unknown => response.end();
  const bare = await listen(context, createServer(listener));
  const behind = await listen(context, createServer(guardListener(guard, listener)));
  const pair = { plain: poster(bare), guarded: poster(behind) };
  return [{ name: 'http middleware', against: 'the same handler, bare', ...pair }];
}

async function proxy(context: Context): Promise<Pair[]> {
  const guard = new HttpGuard(lmdb(context, 'proxy'), { routes: perPath });
  const service = createServer((_request, response) => response.end());
  const upstream = await listen(context, service);
  const behind = await listen(context, createGuardProxy(guard, { upstream }));
  const pair = { plain: poster(upstream), guarded: poster(behind) };
  return [{ name: 'http proxy', against: 'the service, directly', ...pair }];
}

const perPath = [{ path: /^\/(.+)$/, resource: (match: RegExpExecArray) => match[1]! }];

function poster(url: string): Write {
  const init = { method: 'POST', headers: { 'holdfast-token': String(TOKEN) } };
  return async (i) => {
    const response = await fetch(`${url}/r${i}`, init);
    await response.arrayBuffer();
    if (response.status !== 200) throw new Error(`${url} answered ${response.status}`);
  };
}

async function object(context: Context): Promise<Pair[]> {
  const server = await ObjectServer.start();
  context.cleanup(() => server.close());
  const guard = await ObjectGuard.open({ store: { url: server.url } });
  const plain: Write = async (i) => {
    await (await fetch(`${server.url}/plain-${i}`, { method: 'PUT', body: 'x' })).arrayBuffer();
  };
  const guarded: Write = (i) => guard.write(TOKEN, `name-${i}`, 'x');
  return [{ name: 'object', against: 'one PUT, in-memory server', plain, guarded }];
}

async function stream(context: Context): Promise<Pair[]> {
  const device = createDevice((socket) => {
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', () => socket.write('done\n'));
  }).listen(0, '127.0.0.1');
  await once(device, 'listening');
  context.cleanup(() => device.close());
  const { port } = device.address() as AddressInfo;
  const direct = await Promise.all(Array.from({ length: 16 }, () => line(context, port, '')));
  const guarded = await Promise.all(
    Array.from({ length: 16 }, async () => {
      const held = createConnection(port, '127.0.0.1');
      context.cleanup(() => held.destroy());
      await once(held, 'connect');
      const guard = new StreamGuard(held, new MemoryMarks(), { resource: 'd', delimiter: 10 });
      guard.server.listen(0, '127.0.0.1');
      await once(guard.server, 'listening');
      context.cleanup(() => guard.close());
      const at = (guard.server.address() as AddressInfo).port;
      return await line(context, at, `holdfast ${TOKEN}\n`);
    }),
  );
  const pair = { plain: (i: number) => direct[i]!(), guarded: (i: number) => guarded[i]!() };
  return [{ name: 'stream', against: 'a line to the device and back', ...pair }];
}

async function line(
  context: Context,
  port: number,
  greeting: string,
): Promise<() => Promise<unknown>> {
  const socket = createConnection(port, '127.0.0.1');
  context.cleanup(() => socket.destroy());
  await once(socket, 'connect');
  if (greeting) {
    socket.write(greeting);
    await once(socket, 'data');
  }
  return async () => {
    const answered = once(socket, 'data');
    socket.write('x\n');
    await answered;
  };
}

function lmdb(context: Context, name: string): LmdbMarks {
  const directory = `${context.scratch}/${name}`;
  mkdirSync(directory);
  const marks = LmdbMarks.open(directory);
  context.cleanup(() => marks.close());
  return marks;
}

async function listen(context: Context, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.cleanup(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
