/**
 * Makes the disk slow, one kind of call at a time, and looks meanwhile: no answer, no read and no
 * watch shows a write before the last call that makes it durable has come back.
 *
 * The control is LMDB as the package opens it by default; there a reader must see it early.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import type { Seen } from './durability/visibility.ts';
import { strace } from './durability/witness.ts';

const DELAY_MS = 300;

export const experiment: Experiment = {
  about: 'a slow disk: nothing is read, watched or acknowledged before it is durable',
  needs: { strace: 'strace' },
  run,
};

/** The kinds of delay: before a sync, after it, and after a batch was written but not yet synced. */
const DELAYS = [
  ['fdatasync', 'delay_enter'],
  ['fdatasync', 'delay_exit'],
  ['pwritev', 'delay_exit'],
] as const;

async function run(context: Context): Promise<Report> {
  const figures: Record<string, number> = {};
  let early = 0;
  for (const [call, kind] of DELAYS) {
    const { acknowledgedMs, readMs, watchedMs } = look(context, 'engine', call, kind);
    const first = Math.min(acknowledgedMs, readMs, watchedMs ?? Number.POSITIVE_INFINITY);
    figures[`${call} ${kind}: acknowledged after, ms`] = Math.round(acknowledgedMs);
    figures[`${call} ${kind}: read after, ms`] = Math.round(readMs);
    figures[`${call} ${kind}: watched after, ms`] = Math.round(watchedMs ?? Number.NaN);
    if (first < DELAY_MS) early++;
  }
  const bare = look(context, 'bare', 'fdatasync', 'delay_enter');
  const broke = bare.readMs < DELAY_MS;
  return {
    ok: early === 0 && broke,
    figures: { 'delay, ms': DELAY_MS, ...figures, 'seen too early': early },
    control: {
      what: 'LMDB as its package opens it by default',
      'read after, ms': Math.round(bare.readMs),
      broke,
    },
  };
}

let runs = 0;

function look(context: Context, mode: string, call: string, kind: string): Seen {
  const program = join(import.meta.dirname, 'durability', 'visibility.ts');
  const path = join(context.scratch, `store-${runs++}`);
  const [command, ...flags] = [
    ...strace(call, `${kind}=${DELAY_MS * 1_000}`),
    process.execPath,
    '--conditions=holdfast/source',
    '--import',
    'tsx',
    program,
    mode,
    path,
  ];
  const ran = spawnSync(command!, flags, { encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(`the process failed: ${ran.stderr}`);
  return JSON.parse(ran.stdout) as Seen;
}
