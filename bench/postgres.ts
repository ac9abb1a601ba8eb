/**
 * Lock cycles on PostgreSQL: ours, durable, fair and fenced, against session advisory locks, which
 * are neither: what the server forgets with the connection it need not write to disk. Advisory locks
 * once on connections that are kept, and once with the cost of a connection for each cycle, which
 * is what they need behind a pooler in transaction mode.
 */
import pg from 'pg';
import type { Context, Experiment, Figures } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { connect } from '../src/client.ts';
import { open } from '../src/engine/postgres/open.ts';
import { startPostgres } from '../test/servers/postgres.ts';

type Cycle = (worker: number) => Promise<void>;

interface Rate {
  readonly perSecond: number;
  readonly medianMs: number;
}

export const experiment: Experiment = {
  about: 'lock cycles on PostgreSQL against session advisory locks, 1 and 64 at once',
  needs: { postgres: 'postgresql', psql: 'postgresql' },
  async run(context) {
    const ms = context.options.quick ? 1_500 : 5_000;
    const server = await startPostgres({ settings: { shared_buffers: '128MB' } });
    context.cleanup(() => server.stop());
    const figures: Record<string, number> = {};
    const measure = async (name: string, atOnce: number, cycle: Cycle): Promise<void> => {
      const { perSecond, medianMs } = await run(cycle, atOnce, ms);
      figures[`${name}, ${atOnce} at once: cycles/s`] = Math.round(perSecond);
      figures[`${name}, ${atOnce} at once: median ms`] = Number(medianMs.toFixed(2));
      context.log(
        `${name}, ${atOnce} at once: ${Math.round(perSecond)}/s, ${medianMs.toFixed(2)} ms`,
      );
    };

    for (const atOnce of [1, 64]) {
      await measure('holdfast lock', atOnce, await ours(context, server.url));
      await measure('holdfast engine', atOnce, await bare(context, server.url));
      const kept = await advisoryKept(context, server.url, atOnce);
      await measure('advisory, connection kept', atOnce, kept);
      await measure('advisory, new connection', atOnce, advisoryNew(server.url));
    }
    const ratio = (one: string, other: string, atOnce: number): number =>
      Number(
        (
          figures[`${one}, ${atOnce} at once: cycles/s`]! /
          figures[`${other}, ${atOnce} at once: cycles/s`]!
        ).toFixed(2),
      );
    const ratios: Figures = {
      '1 at once, × advisory kept': ratio('holdfast lock', 'advisory, connection kept', 1),
      '1 at once, × advisory new': ratio('holdfast lock', 'advisory, new connection', 1),
      '64 at once, × advisory kept': ratio('holdfast lock', 'advisory, connection kept', 64),
      '64 at once, × advisory new': ratio('holdfast lock', 'advisory, new connection', 64),
    };
    return { ok: true, figures: { ...figures, ...ratios }, control: {} };
  },
};

/** The recipe as users call it; each worker has a lock of its own name. */
async function ours(context: Context, url: string): Promise<Cycle> {
  const engine = await open(url, { direct: true });
  const client = await connect(engine, { ttl: 30_000 });
  context.cleanup(() => engine.close());
  context.cleanup(() => client.close());
  return async (worker) => {
    const grant = await client.lock(`bench/${worker}`).acquire();
    await grant.release();
  };
}

/** The two transactions below it: claim a key on a lease if it is free, and give it up. */
async function bare(context: Context, url: string): Promise<Cycle> {
  const engine = await open(url, { direct: true });
  context.cleanup(() => engine.close());
  const { id } = await engine.grantLease({ ttlMs: 3_600_000 });
  return async (worker) => {
    const key = utf8(`bare/${worker}`);
    await engine.txn({
      compare: [{ key, target: 'create', result: '=', value: 0 }],
      success: [{ type: 'put', key, lease: id }],
    });
    await engine.txn({ success: [{ type: 'delete', key }] });
  };
}

async function advisoryKept(context: Context, url: string, atOnce: number): Promise<Cycle> {
  const clients = await Promise.all(
    Array.from({ length: atOnce }, async () => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      context.cleanup(() => client.end());
      return client;
    }),
  );
  return async (worker) => {
    await clients[worker]!.query('select pg_advisory_lock($1)', [worker]);
    await clients[worker]!.query('select pg_advisory_unlock($1)', [worker]);
  };
}

function advisoryNew(url: string): Cycle {
  return async (worker) => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      await client.query('select pg_advisory_lock($1)', [worker]);
      await client.query('select pg_advisory_unlock($1)', [worker]);
    } finally {
      await client.end();
    }
  };
}

async function run(cycle: Cycle, atOnce: number, ms: number): Promise<Rate> {
  for (let worker = 0; worker < Math.min(atOnce, 4); worker++) await cycle(worker);
  const times: number[] = [];
  const start = performance.now();
  await Promise.all(
    Array.from({ length: atOnce }, async (_, worker) => {
      while (performance.now() - start < ms) {
        const from = performance.now();
        await cycle(worker);
        times.push(performance.now() - from);
      }
    }),
  );
  const seconds = (performance.now() - start) / 1_000;
  times.sort((a, b) => a - b);
  return { perSecond: times.length / seconds, medianMs: times[times.length >> 1] ?? 0 };
}
