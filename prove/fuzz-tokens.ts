/**
 * Fuzzes what callers prove themselves with: signed (JWT) and opaque tokens, and fencing tokens in
 * the header of a request. Short: 4 s for each target; long: 11 minutes, or `--minutes N`;
 * `--target NAME` for one alone. Control: checks with one fault each, which the same fuzzer must find.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { judged, mebibytes, wantedTargets } from '../test/fuzz-judge.ts';
import { fuzzTokens, PLANTED, TOKENS_TARGETS } from '../test/security/fuzz-tokens.ts';

const SLOWEST_MS_MAX = 2_000;

async function run(context: Context): Promise<Report> {
  const minutes = Number(context.options.minutes ?? (context.long ? 11 : 1 / 15));
  const wanted = wantedTargets(TOKENS_TARGETS, context.options.target);
  const figures: Record<string, number> = { 'seconds for each target': minutes * 60 };
  const control: Record<string, number | string> = {};
  let ok = true;
  for (const target of wanted) {
    const { name } = target;
    const judgement = await judged(
      name,
      () => fuzzTokens(target, context.seed, { inputs: 1_000 }),
      () => fuzzTokens(target, context.seed, { forMs: minutes * 60_000 }),
    );
    const { finding, inputs, slowestMs } = judgement.result;
    if (finding) context.log(`FOUND in ${name}, seed ${finding.seed}: ${finding.what}`);
    ok &&= !finding && !judgement.holdsMemory && slowestMs < SLOWEST_MS_MAX;
    figures[`${name}: inputs`] = inputs;
    figures[`${name}: slowest, ms`] = Math.round(slowestMs);
    figures[`${name}: memory kept, MiB`] = mebibytes(judgement.retainedBytes);
    figures[`${name}: memory grown, MiB`] = mebibytes(judgement.grownBytes);
  }
  for (const [fault, [name, planted]] of Object.entries(PLANTED)) {
    const target = wanted.find((one) => one.name === name);
    if (!target) continue;
    const found = await fuzzTokens(target, context.seed, { inputs: 20_000 }, planted);
    control[`${fault}: found after inputs`] = found.finding ? found.inputs : 'NOT FOUND';
  }
  const broke = !Object.values(control).includes('NOT FOUND');
  return { ok: ok && broke, figures, control: { broke, ...control } };
}

export const experiment: Experiment = {
  about: 'signed, opaque and fencing tokens altered, crafted and late (--minutes N for each)',
  run,
};
