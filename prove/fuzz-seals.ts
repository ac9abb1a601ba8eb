/**
 * Fuzzes what a guard that requires seals is shown, and what it fetches as an authority's keys.
 * Short: 10 s; long: 11 minutes, or `--minutes N`. Control: guards with one fault each, which the
 * same fuzzer must find.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { judged, mebibytes } from '../test/fuzz-judge.ts';
import { fuzzSeals, PLANTED } from '../test/security/fuzz-seals.ts';

async function run(context: Context): Promise<Report> {
  const minutes = Number(context.options.minutes ?? (context.long ? 11 : 1 / 6));
  const judgement = await judged(
    'seals',
    () => fuzzSeals(context.seed, { inputs: 1_000 }),
    () => fuzzSeals(context.seed, { forMs: minutes * 60_000 }),
  );
  const { inputs, finding } = judgement.result;
  if (finding) context.log(`FOUND, seed ${finding.seed}: ${finding.what}`);
  const control: Record<string, number | string | boolean> = {};
  for (const [name, planted] of Object.entries(PLANTED)) {
    const found = fuzzSeals(context.seed, { inputs: 20_000 }, planted);
    control[`${name}: found after inputs`] = found.finding ? found.inputs : 'NOT FOUND';
  }
  const broke = !Object.values(control).includes('NOT FOUND');
  return {
    ok: !finding && broke && !judgement.holdsMemory,
    figures: {
      seconds: minutes * 60,
      'seals presented': inputs,
      disagreements: finding ? 1 : 0,
      'memory kept, MiB': mebibytes(judgement.retainedBytes),
      'memory grown, MiB': mebibytes(judgement.grownBytes),
    },
    control: { broke, ...control },
  };
}

export const experiment: Experiment = {
  about:
    'sealed tokens altered, mixed and invented, against a twin that knows every one (--minutes N)',
  run,
};
