/**
 * Every rule of the engine contract on the embedded engines: the named cases, and random histories
 * against the model. The control is a row of engines with a known bug each; the same histories and
 * the same cases must catch every one of them.
 */
import type { Context, Experiment, Figures } from '../scripts/experiment.ts';
import { conformanceCases } from '../src/testing/conformance/cases.ts';
import { runCase, skipReason } from '../src/testing/conformance/run.ts';
import type { Open, Skip } from '../src/testing/conformance/suite.ts';
import {
  type Agreement,
  agreeWithModel,
  describeAgreement,
} from '../src/testing/random-histories.ts';
import { openLmdbIn, openMemory } from '../test/engines.ts';
import { MUTANTS, type Mutant } from './conformance/mutants.ts';

const MEMORY_SKIP: readonly Skip[] = [
  { reason: 'a memory engine is gone with its process', needs: ['reopen'] },
];
const LENGTH = 100;
/** Histories a mutant may survive before it counts as missed. */
const MUTANT_HISTORIES = 2_000;

export const experiment: Experiment = {
  about: 'the engine contract: named cases and random histories, against engines with known bugs',
  async run(context) {
    const histories = Number(context.options.histories ?? (context.long ? 2_000 : 100));
    const engines: readonly [string, Open, readonly Skip[]][] = [
      ['memory', openMemory, MEMORY_SKIP],
      ['lmdb', openLmdbIn(context.scratch), []],
    ];
    const figures: Record<string, number | string | boolean> = {};
    let ok = true;
    for (const [name, open, skip] of engines) {
      const failed = await failedCases(open, skip, context);
      const options = { open, histories, length: LENGTH, seed: context.seed };
      const agreement = await agreeWithModel(options);
      context.log(`${name}: ${failed.length} cases failed; ${describeAgreement(agreement)}`);
      figures[`${name}: cases passed`] = conformanceCases().length - skipped(skip) - failed.length;
      figures[`${name}: cases failed`] = failed.length;
      figures[`${name}: histories that agree`] = agreement.agreed ? agreement.histories : 0;
      figures[`${name}: steps`] = agreement.steps;
      ok &&= failed.length === 0 && agreement.agreed;
    }
    const control = await hunt(context);
    return { ok: ok && control.broke === true, figures, control };
  },
};

function skipped(skip: readonly Skip[]): number {
  return conformanceCases().filter((one) => skipReason(one, skip) !== undefined).length;
}

async function failedCases(
  open: Open,
  skip: readonly Skip[],
  context: Context,
): Promise<readonly string[]> {
  const failed: string[] = [];
  for (const one of conformanceCases()) {
    if (skipReason(one, skip) !== undefined) continue;
    try {
      await runCase(one, open);
    } catch (error) {
      failed.push(one.name);
      context.log(`failed: ${one.group}: ${one.name}: ${String(error)}`);
    }
  }
  return failed;
}

/** Sets the histories and the cases on every mutant. */
async function hunt(context: Context): Promise<Figures> {
  let byHistories = 0;
  let byCases = 0;
  for (const mutant of MUTANTS) {
    const open = mutated(mutant);
    const agreement = await agreeWithModel({
      open,
      histories: MUTANT_HISTORIES,
      length: LENGTH,
      seed: context.seed,
      shrink: false,
    });
    const by = await catchingCase(open);
    if (!agreement.agreed) byHistories++;
    if (by !== undefined) byCases++;
    context.log(`${verdict(agreement)}; ${by ? `case "${by}"` : 'no case'}: ${mutant.bug}`);
  }
  return {
    broke: byHistories === MUTANTS.length && byCases === MUTANTS.length,
    'known bugs': MUTANTS.length,
    'caught by random histories': byHistories,
    'caught by the named cases': byCases,
  };
}

function verdict({ agreed, histories, seed }: Agreement): string {
  return agreed ? 'MISSED by histories' : `caught by history ${histories} of seed ${seed}`;
}

async function catchingCase(open: Open): Promise<string | undefined> {
  for (const one of conformanceCases()) {
    if (skipReason(one, MEMORY_SKIP) !== undefined) continue;
    try {
      await runCase(one, open);
    } catch {
      return one.name;
    }
  }
  return undefined;
}

function mutated(mutant: Mutant): Open {
  return async (options) => {
    const fixture = await openMemory(options);
    return { ...fixture, engine: mutant.wrap(fixture.engine), patienceMs: 200 };
  };
}
