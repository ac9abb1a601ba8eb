/**
 * Lock cycles, acquire and release, durable, in this process on the embedded engine, and through our
 * client and server, side by side with redlock on one Redis that syncs every write; and what a
 * handover costs in a long line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { Context, Experiment, Figures, Report } from '../scripts/experiment.ts';
import { locate } from '../scripts/packages.mjs';
import { utf8 } from '../src/base/bytes.ts';
import { Client, connect } from '../src/client.ts';
import type { Engine } from '../src/engine/contract.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import { prefixRange } from '../src/model/range.ts';
import { freePort } from '../test/servers/daemon.ts';
import { startHoldfast } from './support/holdfast-server.ts';

const OUTSTANDING = [1, 64, 512];
const LINES = [2, 100, 1_000];
const HANDOVERS = 80;
const HANDOVER_TURNS = 4;
const TTL_MS = 60_000;
const TURNS = 8;

/** The part of redlock 4 that is used; it brings no types. */
interface RedlockLock {
  unlock(): Promise<void>;
}
interface Redlock {
  lock(resource: string, ttl: number): Promise<RedlockLock>;
}

export const experiment: Experiment = {
  about: 'lock cycles, embedded and served, beside redlock on a syncing Redis; handover in a line',
  needs: { 'redis-server': 'redis-server' },
  async run(context: Context): Promise<Report> {
    const ms = context.options.quick === true ? 2_000 : 8_000;
    const engine = await openLmdbEngine(join(context.scratch, 'store'));
    context.cleanup(() => engine.close());
    const hf = new Client(engine, { ttl: TTL_MS }, false);
    context.cleanup(() => hf.close());
    const served = await connectServed(context);
    const redlock = await startRedlock(context);
    const contenders = [
      (name: string) => cycle(hf, name),
      (name: string) => cycle(served, name),
      (name: string) => redlockCycle(redlock, name),
    ];
    const figures: Record<string, number> = {};
    const control: Record<string, number> = {};
    // The first second of each compiles.
    for (const run of contenders) await measure(64, 1_000, run);
    for (const outstanding of OUTSTANDING) {
      const [ours, through, theirs] = await inTurns(outstanding, ms, contenders);
      note(figures, outstanding, ours!);
      note(figures, outstanding, through!, 'through our server: ');
      note(control, outstanding, theirs!);
      const told = ({ perSecond, medianMs }: Measured): string => `${perSecond} (${medianMs} ms)`;
      context.log(
        `${outstanding} at once, cycles/s (median): ${told(ours!)}, through our server ${told(through!)}, redlock ${told(theirs!)}`,
      );
    }
    const handovers = new Map(LINES.map((length): [number, number[]] => [length, []]));
    for (let turn = 0; turn < HANDOVER_TURNS; turn++) {
      for (const [length, times] of handovers) times.push(...(await handover(engine, length)));
    }
    for (const [length, times] of handovers) {
      const medianMs = quantile(times, 0.5);
      figures[`handover with ${length} waiters, median ms`] = medianMs;
      context.log(`handover with ${length} waiters: median ${medianMs} ms`);
    }
    return verdict(figures, control);
  },
};

function verdict(figures: Figures, control: Figures): Report {
  const ratio = (name: string): number =>
    Number((Number(figures[name]) / Number(control[name])).toFixed(2));
  const of = (length: number): number =>
    Number(figures[`handover with ${length} waiters, median ms`]);
  const ratios = {
    'throughput against redlock, 64 at once (must be 2 or more)': ratio('cycles/s, 64 at once'),
    'median latency against redlock, 1 at a time (must be 1.3 or less)':
      ratio('median ms, 1 at once'),
    'handover, 1,000 waiters against 2 (must be 1.5 or less)': Number(
      (of(1_000) / of(2)).toFixed(2),
    ),
    'throughput through our server against redlock, 64 at once (must be 1 or more)': Number(
      (
        Number(figures['through our server: cycles/s, 64 at once']) /
        Number(control['cycles/s, 64 at once'])
      ).toFixed(2),
    ),
  };
  const [throughput = 0, latency = 0, handovers = 0, served = 0] = Object.values(ratios);
  return {
    ok: throughput >= 2 && latency <= 1.3 && handovers <= 1.5 && served >= 1,
    figures: { ...figures, ...ratios },
    control: { what: 'redlock 4.2.0, ioredis, Redis with appendfsync always', ...control },
  };
}

async function cycle(hf: Client, name: string): Promise<void> {
  const grant = await hf.lock(name).acquire();
  await grant.release();
}

async function redlockCycle(redlock: Redlock, name: string): Promise<void> {
  const lock = await redlock.lock(name, TTL_MS);
  await lock.unlock();
}

interface Measured {
  readonly perSecond: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

/** One after the other and again, so that what else the machine does falls on all. */
async function inTurns(
  outstanding: number,
  ms: number,
  runs: readonly ((name: string) => Promise<void>)[],
): Promise<Measured[]> {
  const taken = runs.map((run) => ({ run, times: [] as number[], ms: 0 }));
  for (let turn = 0; turn < TURNS; turn++) {
    // Each turn begins with another, so that none is always the last.
    for (let at = 0; at < taken.length; at++) {
      const one = taken[(turn + at) % taken.length]!;
      await measure(outstanding, ms / TURNS, one.run, one);
    }
  }
  return taken.map(measured);
}

interface Taken {
  readonly times: number[];
  ms: number;
}

async function measure(
  outstanding: number,
  ms: number,
  run: (name: string) => Promise<void>,
  taken: Taken = { times: [], ms: 0 },
): Promise<void> {
  const { times } = taken;
  const begun = performance.now();
  const worker = async (_: unknown, index: number): Promise<void> => {
    while (performance.now() - begun < ms) {
      const at = performance.now();
      await run(`bench/${index}`);
      times.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: outstanding }, worker));
  taken.ms += performance.now() - begun;
}

function measured({ times, ms }: Taken): Measured {
  return {
    perSecond: Math.round((times.length / ms) * 1_000),
    medianMs: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
  };
}

function quantile(times: number[], part: number): number {
  times.sort((a, b) => a - b);
  return Number((times[Math.floor(times.length * part)] ?? 0).toFixed(3));
}

function note(
  into: Record<string, number>,
  outstanding: number,
  measured: Measured,
  prefix = '',
): void {
  into[`${prefix}cycles/s, ${outstanding} at once`] = measured.perSecond;
  into[`${prefix}median ms, ${outstanding} at once`] = measured.medianMs;
  into[`${prefix}p99 ms, ${outstanding} at once`] = measured.p99Ms;
}

/**
 * From the call of `release` until the next one has its grant. The line is filled up again between
 * the handovers, outside the measured time.
 */
async function handover(engine: Engine, length: number): Promise<number[]> {
  const clients = Array.from(
    { length: length + 1 },
    (_, i) => new Client(engine, { ttl: TTL_MS * 10, holder: `w${i}` }, false),
  );
  const times: number[] = [];
  const controllers = new Set<AbortController>();
  const join = async (client: Client): Promise<{ readonly grant: Promise<Turn | undefined> }> => {
    const controller = new AbortController();
    controllers.add(controller);
    const before = await standing(engine);
    const grant = client
      .lock('line')
      .acquire({ signal: controller.signal })
      .then(({ release }): Turn => ({ client, release, atMs: performance.now() }))
      .catch(() => undefined)
      .finally(() => controllers.delete(controller));
    while ((await standing(engine)) <= before) await new Promise((soon) => setTimeout(soon, 1));
    return { grant };
  };
  const line: Promise<Turn | undefined>[] = [];
  for (const client of clients) line.push((await join(client)).grant);
  let holder = await line.shift();
  while (holder && times.length < HANDOVERS) {
    const releasedAt = performance.now();
    const releasing = holder.release();
    const next: Turn | undefined = await line.shift();
    if (next) times.push(next.atMs - releasedAt);
    await releasing;
    line.push((await join(holder.client)).grant);
    holder = next;
  }
  for (const controller of controllers) controller.abort();
  await holder?.release();
  await Promise.all(clients.map((client) => client.close()));
  return times.slice(10);
}

async function standing(engine: Engine): Promise<number> {
  const { count } = await engine.range({ ...prefixRange(utf8('line/')), countOnly: true });
  return count;
}

interface Turn {
  readonly client: Client;
  readonly release: () => Promise<void>;
  readonly atMs: number;
}

/** The same locks in another process, by way of our client. */
async function connectServed(context: Context): Promise<Client> {
  const server = await startHoldfast(join(context.scratch, 'served'));
  context.cleanup(() => server.stop());
  const client = await connect(`etcd://127.0.0.1:${server.port}`, { ttl: TTL_MS });
  context.cleanup(() => client.close());
  return client;
}

async function startRedlock(context: Context): Promise<Redlock> {
  const port = await freePort();
  const dir = join(context.scratch, 'redis');
  await mkdir(dir);
  const command = locate('redis-server') ?? 'redis-server';
  const server: ChildProcess = spawn(
    command,
    ['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--save', ''].concat([
      '--appendonly',
      'yes',
      '--appendfsync',
      'always',
    ]),
    { stdio: 'ignore' },
  );
  const exited = new Promise((resolve) => server.once('exit', resolve));
  context.cleanup(async () => {
    server.kill('SIGKILL');
    await exited;
  });
  const redis = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50 });
  // Until the server listens there are refusals, which the client repeats.
  redis.on('error', () => {});
  context.cleanup(() => redis.disconnect());
  await redis.ping();
  const name = 'redlock';
  const { default: Made } = (await import(name)) as {
    default: new (clients: readonly Redis[], settings: object) => Redlock;
  };
  return new Made([redis], { retryCount: 0 });
}
