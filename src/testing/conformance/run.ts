/**
 * Runs the suite: one case alone, or all of them as tests of whatever framework has `describe`
 * and `it`.
 *
 * A case that an engine cannot pass is skipped only if a `Skip` names it with a reason; a skip
 * that names nothing is an error, so the list of differences cannot grow stale.
 */
import { conformanceCases } from './cases.ts';
import { fail } from './expect.ts';
import type { ConformanceCase, Fixture, Need, Open, Skip } from './suite.ts';
import { TestStore } from './test-store.ts';

/** What the suite needs of a test framework; vitest, jest and node:test have it. */
export interface Framework {
  readonly describe: (name: string, body: () => void) => unknown;
  readonly it: ((name: string, body: () => Promise<void>) => unknown) & {
    readonly skip: (name: string, body: () => Promise<void>) => unknown;
  };
}

export interface ConformanceOptions {
  /** The engine's name, for the report. */
  readonly name: string;
  /** Opens a fresh engine, or a fresh prefix on a shared one, for one case. */
  readonly open: Open;
  readonly skip?: readonly Skip[];
}

export function runConformance(framework: Framework, options: ConformanceOptions): void {
  const cases = conformanceCases();
  const skip = options.skip ?? [];
  refuseStaleSkips(skip, cases);
  framework.describe(`${options.name} keeps the engine contract`, () => {
    for (const [name, members] of grouped(cases)) {
      framework.describe(name, () => {
        for (const one of members) register(framework, one, options.open, skip);
      });
    }
  });
}

/** Opens an engine, runs one case on it and disposes of it; throws when the case fails. */
export async function runCase(one: ConformanceCase, open: Open): Promise<void> {
  const fixture = await open(one.options ?? {});
  const store = new TestStore(fixture);
  try {
    for (const need of one.needs ?? []) refuseLack(fixture, need);
    await one.run(store);
  } finally {
    await store.dispose();
  }
}

export function skipReason(one: ConformanceCase, skip: readonly Skip[]): string | undefined {
  return skip.find((entry) =>
    'cases' in entry
      ? entry.cases.includes(one.name)
      : one.needs?.some((need) => entry.needs.includes(need)),
  )?.reason;
}

function register(
  framework: Framework,
  one: ConformanceCase,
  open: Open,
  skip: readonly Skip[],
): void {
  const reason = skipReason(one, skip);
  const body = () => runCase(one, open);
  if (reason === undefined) framework.it(one.name, body);
  else framework.it.skip(`${one.name} (skipped: ${reason})`, body);
}

function refuseLack(fixture: Fixture, need: Need): void {
  const lacking =
    (need === 'clock' && !fixture.clock) ||
    (need === 'reopen' && !fixture.reopen) ||
    (need === 'operator' && !fixture.engine.operator);
  if (lacking) fail(`the case needs "${need}", which the fixture lacks; skip it with a reason`);
}

function refuseStaleSkips(skip: readonly Skip[], cases: readonly ConformanceCase[]): void {
  const names = new Set(cases.map((one) => one.name));
  for (const entry of skip) {
    if (!('cases' in entry)) continue;
    const stale = entry.cases.find((name) => !names.has(name));
    if (stale !== undefined) throw new Error(`there is no conformance case "${stale}" to skip`);
  }
}

function grouped(cases: readonly ConformanceCase[]): Map<string, ConformanceCase[]> {
  const groups = new Map<string, ConformanceCase[]>();
  for (const one of cases) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  return groups;
}
