/**
 * Fuzzes what a guard that requires seals is shown, and what it fetches as an authority's keys.
 * Short: 10 s; long: 11 minutes, or `--minutes N`. Control: guards with one fault each, which the
 * same fuzzer must find.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { fuzzSeals, PLANTED } from '../test/security/fuzz-seals.ts';

const GROWN_BYTES_MAX = 256 * 2 ** 20;

async function run(context: Context): Promise<Report> {
  const minutes = Number(context.options.minutes ?? (context.long ? 11 : 1 / 6));
  fuzzSeals(context.seed, { inputs: 1_000 });
  const before = process.memoryUsage.rss();
  const { inputs, finding } = fuzzSeals(context.seed, { forMs: minutes * 60_000 });
  const grown = process.memoryUsage.rss() - before;
  if (finding) context.log(`FOUND, seed ${finding.seed}: ${finding.what}`);
  const control: Record<string, number | string | boolean> = {};
  for (const [name, planted] of Object.entries(PLANTED)) {
    const found = fuzzSeals(context.seed, { inputs: 20_000 }, planted);
    control[`${name}: found after inputs`] = found.finding ? found.inputs : 'NOT FOUND';
  }
  const broke = !Object.values(control).includes('NOT FOUND');
  return {
    ok: !finding && broke && grown < GROWN_BYTES_MAX,
    figures: {
      seconds: minutes * 60,
      'seals presented': inputs,
      disagreements: finding ? 1 : 0,
      'memory grown, MiB': Math.round(grown / 2 ** 20),
    },
    control: { broke, ...control },
  };
}

export const experiment: Experiment = {
  about:
    'sealed tokens altered, mixed and invented, against a twin that knows every one (--minutes N)',
  run,
};
