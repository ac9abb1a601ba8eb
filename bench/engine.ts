/**
 * The embedded engine by itself: durable puts, reads, ranges, and a million keys. Beside it LMDB
 * alone, with the same number of puts in flight and the same syncs, as the bound of what the disk
 * and the library give.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Context, Experiment, Figures, Report } from '../scripts/experiment.ts';
import { programArguments } from '../scripts/program.ts';
import { utf8 } from '../src/base/bytes.ts';
import { type Random, seededRandom } from '../src/base/random.ts';
import { type LmdbEngine, openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import { type Native, openNative } from '../src/engine/lmdb/native.ts';
import { openStore } from '../src/engine/lmdb/opening.ts';

const VALUE = new Uint8Array(100).fill(0x76);
const KEYS = 1_000;
const PUTS_PER_LOAD = 100;

export const experiment: Experiment = {
  about: 'the embedded engine: durable puts, reads, ranges, a million keys; beside LMDB alone',
  run,
};

/** Durable puts per second with 320 outstanding, and what of it must be left with many keys. */
const PUTS_MUST = 100_000;
const LARGE_MUST = 0.8;
const RESTART_MS_MAX = 2_000;

async function run(context: Context): Promise<Report> {
  const quick = context.options.quick === true;
  const ms = quick ? 1_000 : 4_000;
  const random = seededRandom(context.seed);
  const control = await plain(context, ms, random);
  const store = await bareStore(context, ms, random);
  const small = await smallEngine(context, ms, random);
  const large = await manyKeys(context, ms, random, quick ? 50_000 : 1_000_000);
  const before = Number(small['puts/s, 320 outstanding']);
  const after = Number(large['puts/s, 320 outstanding']);
  return {
    ok:
      before >= PUTS_MUST &&
      after >= before * LARGE_MUST &&
      Number(large['first answer after, ms']) <= RESTART_MS_MAX,
    figures: {
      ...small,
      ...store,
      ...Object.fromEntries(Object.entries(large).map(([k, v]) => [`many keys: ${k}`, v])),
      'many keys: puts/s against few keys': Number((after / before).toFixed(2)),
    },
    control: { what: 'LMDB alone, one record per put', ...control },
  };
}

function keyOf(index: number): Uint8Array {
  return utf8(`key/${String(index).padStart(8, '0')}`);
}

/** Runs `call` from so many callers for so long; answers calls per second. */
async function rate(
  outstanding: number,
  ms: number,
  call: () => Promise<unknown>,
): Promise<number> {
  const begun = performance.now();
  let calls = 0;
  const caller = async (): Promise<void> => {
    while (performance.now() - begun < ms) {
      await call();
      calls++;
    }
  };
  await Promise.all(Array.from({ length: outstanding }, caller));
  return Math.round((calls / (performance.now() - begun)) * 1_000);
}

function putInto(engine: LmdbEngine, random: Random, keys: number): () => Promise<unknown> {
  return () =>
    engine.txn({
      success: [{ type: 'put', key: keyOf(random.integer(0, keys)), value: VALUE }],
    });
}

async function plain(context: Context, ms: number, random: Random): Promise<Figures> {
  // Its transactions that share a commit; the engine needs none of them.
  const native = openNative(join(context.scratch, 'plain')) as Native & {
    transaction<T>(work: () => T): Promise<T>;
  };
  const put = (): Promise<unknown> => {
    const key = keyOf(random.integer(0, KEYS));
    return native.transaction(() => native.putSync(key, VALUE));
  };
  const figures: Record<string, number> = {};
  for (const outstanding of [1, 64, 320]) {
    figures[`puts/s, ${outstanding} outstanding`] = await rate(outstanding, ms, put);
  }
  await native.close();
  return figures;
}

/** The durable table below the rules: a key overwritten and a line appended per put. */
async function bareStore(context: Context, ms: number, random: Random): Promise<Figures> {
  const { store, close } = await openStore(join(context.scratch, 'bare'));
  let line = 0;
  const put = (): Promise<unknown> => {
    const key = keyOf(random.integer(0, KEYS));
    return store.commit((table) => {
      table.put(key, VALUE);
      table.put(utf8(`r${String(line++).padStart(10, '0')}`), key);
    });
  };
  const puts = await rate(320, ms, put);
  await close();
  return { 'table alone: works of 2 records/s, 320 outstanding': puts };
}

async function smallEngine(context: Context, ms: number, random: Random): Promise<Figures> {
  const engine = await openLmdbEngine(join(context.scratch, 'small'));
  const figures: Record<string, number> = {};
  for (const outstanding of [1, 64, 320]) {
    const name = `puts/s, ${outstanding} outstanding`;
    figures[name] = await rate(outstanding, ms, putInto(engine, random, KEYS));
    context.log(`${name}: ${figures[name]}`);
  }
  figures['reads of one key/s'] = await rate(64, ms, () =>
    engine.range({ key: keyOf(random.integer(0, KEYS)) }),
  );
  figures['ranges of 100 keys/s'] = await rate(64, ms, () => {
    const first = random.integer(0, KEYS - 100);
    return engine.range({ key: keyOf(first), end: keyOf(first + 100) });
  });
  await engine.close();
  return figures;
}

async function manyKeys(
  context: Context,
  ms: number,
  random: Random,
  keys: number,
): Promise<Figures> {
  const path = join(context.scratch, 'large');
  const engine = await openLmdbEngine(path);
  const begun = performance.now();
  let next = 0;
  const load = async (): Promise<void> => {
    while (next < keys) {
      const first = next;
      next += PUTS_PER_LOAD;
      const success = Array.from({ length: PUTS_PER_LOAD }, (_, i) => ({
        type: 'put' as const,
        key: keyOf(first + i),
        value: VALUE,
      }));
      await engine.txn({ success });
    }
  };
  await Promise.all(Array.from({ length: 32 }, load));
  const loadMs = performance.now() - begun;
  context.log(`${keys} keys loaded in ${Math.round(loadMs)} ms`);
  const { sizeBytes } = await engine.status();
  await engine.close();
  const restart = restarted(path, keys);
  const again = await openLmdbEngine(path);
  await again.scrubbed;
  const puts = await rate(320, ms, putInto(again, random, keys));
  const { rss } = process.memoryUsage();
  await again.close();
  return {
    keys,
    'puts/s while loading, 100 per transaction': Math.round((keys / loadMs) * 1_000),
    'MB on disk': Math.round(sizeBytes / 1e6),
    'first answer after, ms': Math.round(restart.firstAnswerMs),
    'scrubbed after, ms': Math.round(restart.scrubbedMs),
    'resident MB after the restart': Math.round(restart.rss / 1e6),
    'JavaScript heap MB after the restart': Math.round(restart.heapUsed / 1e6),
    'puts/s, 320 outstanding': puts,
    'resident MB of the loading process': Math.round(rss / 1e6),
  };
}

interface Restart {
  readonly firstAnswerMs: number;
  readonly scrubbedMs: number;
  readonly rss: number;
  readonly heapUsed: number;
}

function restarted(path: string, keys: number): Restart {
  const program = programArguments(join(import.meta.dirname, 'engine'), 'restart');
  const key = `key/${String(keys >> 1).padStart(8, '0')}`;
  const ran = spawnSync(process.execPath, [...program, path, key], { encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(ran.stderr);
  const answer = JSON.parse(ran.stdout) as Restart & { found: number };
  if (answer.found !== 1) throw new Error('the restarted store does not have its keys');
  return answer;
}
