/**
 * Fuzzes what strangers send inside of HTTP/2: gRPC framing, every message, JSON, header fields.
 * Short: 6 s for each target; long: 11 minutes, or `--minutes N`; `--target NAME` for one alone.
 * Control: for each target a copy of the source with a planted bug, which it must find.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { judged, mebibytes, wantedTargets } from '../test/fuzz-judge.ts';
import { fuzz, TARGETS } from '../test/messages/fuzz.ts';
import { type Mutant, plant } from '../test/messages/mutants.ts';

const PLANTED: Readonly<Record<string, Mutant>> = {
  framing: ['grpc/message-reader.ts', 'available < PREFIX_BYTES + length', 'available < length'],
  messages: ['messages/reader.ts', 'if (high >= HIGH_MAX) return MAX;', ''],
  json: ['messages/json.ts', '!Object.hasOwn(names, value)', '!(value in names)'],
  headers: ['grpc/status.ts', 'if (ESCAPE.test(digits))', 'if (digits.length === 2)'],
};
const SLOWEST_MS_MAX = 2_000;

async function run(context: Context): Promise<Report> {
  const minutes = Number(context.options.minutes ?? (context.long ? 11 : 0.1));
  const figures: Record<string, number | string> = { 'seconds for each target': minutes * 60 };
  const control: Record<string, number | string | boolean> = {};
  let ok = true;
  let broke = true;
  const wanted = wantedTargets(TARGETS, context.options.target);
  for (const [i, target] of wanted.entries()) {
    const judgement = await judged(
      target.name,
      () => fuzz(target, context.seed, { inputs: 2_000 }),
      () => fuzz(target, context.seed, { forMs: minutes * 60_000 }),
    );
    const { finding, inputs, slowestMs } = judgement.result;
    if (finding) context.log(`FOUND in ${target.name}, seed ${finding.seed}: ${finding.what}`);
    ok &&= !finding && !judgement.holdsMemory && slowestMs < SLOWEST_MS_MAX;
    figures[`${target.name}: inputs`] = inputs;
    figures[`${target.name}: slowest, ms`] = Math.round(slowestMs);
    figures[`${target.name}: memory kept, MiB`] = mebibytes(judgement.retainedBytes);
    figures[`${target.name}: memory grown, MiB`] = mebibytes(judgement.grownBytes);
    const broken = await plant(context.scratch, PLANTED[target.name]!, i);
    const planted = fuzz(target, context.seed, { forMs: 6_000 }, broken);
    broke &&= planted.finding !== undefined;
    control[`${target.name}: found after inputs`] = planted.finding ? planted.inputs : 'NOT FOUND';
    if (planted.finding)
      context.log(`planted in ${target.name}: ${planted.finding.what.slice(0, 200)}`);
  }
  return { ok: ok && broke, figures, control: { broke, ...control } };
}

export const experiment: Experiment = {
  about: 'gRPC framing, every message, JSON and header fields under fuzzers (--minutes N for each)',
  run,
};
