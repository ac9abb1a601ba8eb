/**
 * Lock cycles (acquire and release, each worker on a name of its own) through our client and through
 * npm `etcd3`, in turns on the same etcd in the same run.
 *
 * Both are used as their documentation says. `etcd3` makes a lease for every lock and revokes it to
 * release; ours keeps one lease for all and needs two transactions, which travel together with those
 * of other locks. What that gains is shown by the same two transactions sent each by itself.
 */
import { Etcd3 } from 'etcd3';
import type { Context, Experiment } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { connect, openEngine } from '../src/client.ts';
import { type Etcd, startEtcd } from '../test/servers/etcd.ts';

type Cycle = (worker: number) => Promise<void>;

interface Rate {
  readonly perSecond: number;
  readonly medianMs: number;
}

const AT_ONCE = [1, 64] as const;
const ROUNDS = 3;
const OURS = 'holdfast';
const THEIRS = 'etcd3';
/** The aim with 64 at once. */
const TIMES_MIN = 8;

export const experiment: Experiment = {
  about: 'lock cycles on a real etcd, ours against npm etcd3, 1 and 64 at once',
  needs: { etcd: 'etcd-server' },
  async run(context) {
    const ms = context.options.quick ? 1_000 : 4_000;
    const server = await startEtcd();
    context.cleanup(() => server.stop());
    const ways: readonly (readonly [string, Cycle])[] = [
      [THEIRS, theirs(context, server)],
      [OURS, await ours(context, server)],
      ['two transactions', await bare(context, server)],
    ];
    const figures: Record<string, number> = {};
    for (const atOnce of AT_ONCE) {
      for (const [, cycle] of ways) await run(cycle, atOnce, ms / 4);
      const rates = new Map<string, Rate[]>();
      for (let round = 0; round < ROUNDS; round++) {
        for (const [name, cycle] of ways) {
          const rate = await run(cycle, atOnce, ms);
          rates.set(name, [...(rates.get(name) ?? []), rate]);
        }
      }
      for (const [name, all] of rates) {
        const middle = [...all].sort((a, b) => a.perSecond - b.perSecond)[ROUNDS >> 1]!;
        figures[label(name, atOnce, 'cycles/s')] = Math.round(middle.perSecond);
        figures[label(name, atOnce, 'median ms')] = Number(middle.medianMs.toFixed(2));
      }
      figures[`${atOnce} at once: times etcd3`] = Number(
        (
          figures[label(OURS, atOnce, 'cycles/s')]! / figures[label(THEIRS, atOnce, 'cycles/s')]!
        ).toFixed(2),
      );
    }
    return { ok: figures['64 at once: times etcd3']! >= TIMES_MIN, figures, control: {} };
  },
};

function label(name: string, atOnce: number, unit: string): string {
  return `${name}, ${atOnce} at once: ${unit}`;
}

function theirs(context: Context, server: Etcd): Cycle {
  const client = new Etcd3({ hosts: server.url });
  context.cleanup(() => client.close());
  return async (worker) => {
    const lock = client.lock(`theirs/${worker}`).ttl(10);
    await lock.acquire();
    await lock.release();
  };
}

async function ours(context: Context, server: Etcd): Promise<Cycle> {
  const client = await connect(urlOf(server), { ttl: 10_000 });
  context.cleanup(() => client.close());
  return async (worker) => {
    const grant = await client.lock(`ours/${worker}`).acquire();
    await grant.release();
  };
}

async function bare(context: Context, server: Etcd): Promise<Cycle> {
  const engine = await openEngine(urlOf(server));
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

function urlOf(server: Etcd): string {
  return `etcd://${new URL(server.url).host}`;
}

async function run(cycle: Cycle, atOnce: number, ms: number): Promise<Rate> {
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
