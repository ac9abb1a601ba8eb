/**
 * Bugs that peers have had, planted one by one into the client: the simulation must catch each.
 * The control runs the same seeds without a bug, and must find nothing.
 */
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { PLANTED_BUGS } from '../src/testing/simulation/plants.ts';
import { runScenario } from '../src/testing/simulation/scenario.ts';

/** The rarest shows in one seed of forty: so many that missing it by chance is out of the question. */
const SEEDS_MAX = 400;
const TTLS = 16;

export const experiment: Experiment = {
  about: 'each of the bugs planted from the pitfalls of others is caught, with its seed',
  async run({ seed, options, log }: Context): Promise<Report> {
    let caught = 0;
    let seedsNeeded = 0;
    for (const { name, seen, ...bug } of PLANTED_BUGS) {
      if (typeof options.only === 'string' && !name.includes(options.only)) continue;
      const found = await firstViolation(seed, bug);
      if (found) {
        caught++;
        seedsNeeded = Math.max(seedsNeeded, found.seed - seed + 1);
        log(`caught  ${name} (${seen})`);
        log(`        ${found.violation}`);
      } else log(`MISSED  ${name}, in ${SEEDS_MAX} seeds from ${seed}`);
    }
    const clean = await firstViolation(seed, {}, Math.max(seedsNeeded, 20));
    if (clean) log(`without a bug: ${clean.violation}`);
    const bugs = PLANTED_BUGS.length;
    return {
      ok: caught === bugs && !clean,
      figures: { bugs, caught, 'seeds needed at most': seedsNeeded },
      control: { broke: caught > 0, 'violations without a bug': clean ? 1 : 0 },
    };
  },
};

async function firstViolation(
  seed: number,
  bug: Omit<Parameters<typeof runScenario>[0], 'seed'>,
  seeds = SEEDS_MAX,
): Promise<{ readonly seed: number; readonly violation: string } | undefined> {
  for (let i = 0; i < seeds; i++) {
    const result = await runScenario({ seed: seed + i, ttls: TTLS, ...bug });
    const [violation] = result.violations;
    if (violation) return { seed: seed + i, violation };
  }
  return undefined;
}
