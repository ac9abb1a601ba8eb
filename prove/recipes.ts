/**
 * The real recipes in virtual time under pauses, partitions, lost and late messages and clocks that
 * drift. The control asks what would have happened to holders that do not look at their deadline.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { runScenario } from '../src/testing/simulation/scenario.ts';

const SHORT_SEEDS = 300;
const LONG_SEEDS = 10_000;
const YEAR_MS = 365.25 * 24 * 3_600_000;
const SHOWN_MAX = 20;

export const experiment: Experiment = {
  about: 'locks, elections and counters under simulated faults: one holder, rising tokens',
  async run({ long, seed, options, log }: Context): Promise<Report> {
    const seeds = Number(options.seeds ?? (long ? LONG_SEEDS : SHORT_SEEDS));
    const sum = { simulatedMs: 0, steps: 0, grants: 0, losses: 0, overlaps: 0, violations: 0 };
    for (let i = 0; i < seeds; i++) {
      const result = await runScenario({ seed: (seed + i) % 2 ** 31, ttls: long ? 40 : 16 });
      sum.simulatedMs += result.simulatedMs;
      sum.steps += result.steps;
      sum.grants += result.grants;
      sum.losses += result.losses;
      sum.overlaps += result.overlapsWithoutChecks;
      for (const violation of result.violations) {
        if (sum.violations++ < SHOWN_MAX) log(violation);
      }
      if ((i + 1) % 500 === 0) log(`${i + 1} seeds, ${sum.violations} violations`);
    }
    const years = sum.simulatedMs / YEAR_MS;
    const broke = sum.overlaps > 0;
    return {
      ok: sum.violations === 0 && broke && (!long || years >= 1),
      figures: {
        seeds,
        'first seed': seed,
        violations: sum.violations,
        'simulated years': Number(years.toFixed(3)),
        steps: sum.steps,
        grants: sum.grants,
        'grants lost to faults': sum.losses,
      },
      control: {
        broke,
        'steps with two holders that look at no deadline': sum.overlaps,
      },
    };
  },
};
