/**
 * The disk refuses one call: a sync, the write of a batch, of a blank segment, of a root, of pages.
 * From then on nothing may be acknowledged, the process lives and says what happened, and the store
 * opened again holds everything that had been acknowledged; whoever waits for syncs.
 *
 * One end of the process is not ours: LMDB writes its message about a refused page past the end of a
 * buffer, which the C library may notice (ADR 0026). It is counted by itself, and loses nothing.
 *
 * The control takes an error for a success; it must lose.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import type { SyncPlace } from '../src/engine/lmdb/pace.ts';
import type { Script } from './durability/child.ts';
import { judge, type Ran, start, strace } from './durability/witness.ts';

const CALLS = ['fdatasync', 'pwritev', 'pwrite64', 'writev'] as const;
const ERRORS = ['EIO', 'ENOSPC'] as const;
const PLACES: readonly SyncPlace[] = ['elsewhere', 'here'];
const PUTS = 40;
/** Full after a few puts, so that the tree is written as well. */
const SEGMENT_BYTES = 8_192;

export const experiment: Experiment = {
  about: 'the disk fails once; nothing more is acknowledged, nothing acknowledged is lost',
  needs: { strace: 'strace' },
  run,
};

interface Tally {
  failures: number;
  acknowledged: number;
  lost: number;
  acknowledgedAfterError: number;
  died: number;
  overrun: number;
  refused: number;
  codes: Set<string>;
}

function fresh(): Tally {
  return {
    failures: 0,
    acknowledged: 0,
    lost: 0,
    acknowledgedAfterError: 0,
    died: 0,
    overrun: 0,
    refused: 0,
    codes: new Set(),
  };
}

async function run(context: Context): Promise<Report> {
  const indexes = context.long ? Array.from({ length: 12 }, (_, i) => i + 1) : [3];
  const tally = fresh();
  for (const call of CALLS) {
    for (const error of ERRORS) {
      for (const index of indexes) {
        for (const syncs of PLACES) {
          await disturb(context, { call, error, index, syncs }, 'after', tally);
        }
      }
    }
    context.log(`${call}: ${tally.failures} failures so far, ${tally.lost} lost`);
  }
  const control = fresh();
  // Opening makes three syncs: a claim in two commits, and a fold.
  for (const index of [4, 5, 6]) {
    const failure = { call: 'fdatasync', error: 'EIO', index, syncs: 'elsewhere' } as const;
    await disturb(context, failure, 'swallow', control);
  }
  const ok =
    tally.failures > 0 &&
    tally.lost === 0 &&
    tally.acknowledgedAfterError === 0 &&
    tally.died === 0 &&
    tally.refused === 0 &&
    control.lost > 0;
  return {
    ok,
    figures: {
      'runs in which the disk failed': tally.failures,
      'acknowledged writes': tally.acknowledged,
      'acknowledged writes lost': tally.lost,
      'runs with an acknowledgement after the failure': tally.acknowledgedAfterError,
      'processes that died': tally.died,
      'processes that LMDB’s message ended': tally.overrun,
      'stores refused afterwards': tally.refused,
      'codes of the errors': [...tally.codes].join(', '),
    },
    control: {
      what: 'takes a failed commit for a success',
      lost: control.lost,
      broke: control.lost > 0,
    },
  };
}

/** 9: the store was refused at its opening, and the process says why. */
function hasDied({ ended, errors, signal, code }: Ran): boolean {
  return signal !== null || (code !== 0 && code !== 9) || (!ended && errors.length === 0);
}

function isOverrun({ signal, complaint }: Ran): boolean {
  return signal === 'SIGABRT' && complaint.startsWith('Write error: ');
}

interface Failure {
  readonly call: string;
  readonly error: string;
  readonly index: number;
  readonly syncs: SyncPlace;
}

let runs = 0;

async function disturb(
  context: Context,
  { call, error, index, syncs }: Failure,
  ack: Script['ack'],
  tally: Tally,
): Promise<void> {
  const path = join(context.scratch, `store-${runs++}`);
  await openLmdbEngine(path).then((engine) => engine.close());
  const script: Script = {
    path,
    from: 0,
    count: PUTS,
    outstanding: 2,
    ack,
    valueBytes: 200,
    segmentBytes: SEGMENT_BYTES,
    syncs,
  };
  const ran = await start(script, strace(call, `error=${error}:when=${index}`)).finished;
  if (ran.errors.length > 0) tally.failures++;
  if (ran.afterError) tally.acknowledgedAfterError++;
  if (isOverrun(ran)) tally.overrun++;
  else if (hasDied(ran)) {
    tally.died++;
    context.log(`  ${call} ${error} ${index} ${syncs}: ended with ${ran.signal ?? ran.code}`);
    context.log(ran.complaint);
  }
  for (const code of ran.errors) tally.codes.add(code);
  const verdict = await judge(path, ran.acknowledged);
  tally.acknowledged += ran.acknowledged.size;
  tally.lost += verdict.lost;
  if (verdict.refused !== undefined) {
    tally.refused++;
    context.log(`  ${call} ${error} ${index}: ${verdict.refused}`);
  }
  rmSync(path, { recursive: true, force: true });
}
