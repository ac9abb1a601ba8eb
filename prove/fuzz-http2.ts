/**
 * Fuzzes the HTTP/2 machine: header blocks, frames, whole connections, and what comes before. Short:
 * 8 s for each target; long: 11 minutes, or `--minutes N`; `--target NAME` for one alone. Control: for each target a machine with a
 * planted bug, which it must find.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { judged, mebibytes, wantedTargets } from '../test/fuzz-judge.ts';
import { fuzz, TARGETS } from '../test/http2/fuzz.ts';
import { type Mutant, plant } from '../test/http2/mutants.ts';

const PLANTED: Readonly<Record<string, Mutant>> = {
  'header blocks': ['hpack/decode.ts', 'memory.version !== version || ', ''],
  frames: [
    'receiver.ts',
    'this.#connection.retire(stream);\n    this.#handler.onReset(stream, getUint32',
    'this.#handler.onReset(stream, getUint32',
  ],
  connections: [
    'receiver.ts',
    '!stream?.canReceive || !stream.openedByPeer',
    'stream === undefined',
  ],
  beginnings: ['connection.ts', 'this.#streams.clear();', ''],
};
const SLOWEST_MS_MAX = 2_000;

async function run(context: Context): Promise<Report> {
  const minutes = Number(context.options.minutes ?? (context.long ? 11 : 8 / 60));
  const figures: Record<string, number | string> = { 'seconds for each target': minutes * 60 };
  const control: Record<string, number | string | boolean> = {};
  let ok = true;
  let broke = true;
  const wanted = wantedTargets(TARGETS, context.options.target);
  for (const [i, target] of wanted.entries()) {
    const judgement = await judged(
      target.name,
      () => fuzz(target, context.seed, { inputs: 200 }),
      () => fuzz(target, context.seed, { forMs: minutes * 60_000 }),
    );
    const { result } = judgement;
    const { finding } = result;
    if (finding) context.log(`FOUND in ${target.name}, seed ${finding.seed}: ${finding.what}`);
    ok &&= !finding && !judgement.holdsMemory && result.slowestMs < SLOWEST_MS_MAX;
    figures[`${target.name}: inputs`] = result.inputs;
    figures[`${target.name}: slowest, ms`] = Math.round(result.slowestMs);
    figures[`${target.name}: memory kept, MiB`] = mebibytes(judgement.retainedBytes);
    figures[`${target.name}: memory grown, MiB`] = mebibytes(judgement.grownBytes);
    const machine = await plant(context.scratch, PLANTED[target.name]!, i);
    const planted = fuzz(
      target,
      context.seed,
      { inputs: 20_000, forMs: 120_000 },
      machine.make,
      machine.decoder,
    );
    broke &&= planted.finding !== undefined;
    control[`${target.name}: found after inputs`] = planted.finding ? planted.inputs : 'NOT FOUND';
    if (planted.finding) context.log(`planted in ${target.name}: ${planted.finding.what}`);
  }
  return { ok: ok && broke, figures, control: { broke, ...control } };
}

export const experiment: Experiment = {
  about: 'HTTP/2 header blocks, frames and connections under fuzzers (--minutes N for each)',
  run,
};
