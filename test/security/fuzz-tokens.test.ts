/** The short form of `npm run prove -- fuzz-tokens`: a different seed is a bug report. */
import { describe, expect, test } from 'vitest';
import { judged } from '../fuzz-judge.ts';
import { fuzzTokens, PLANTED, TOKENS_TARGETS } from './fuzz-tokens.ts';

test.each(TOKENS_TARGETS.map((target) => [target.name, target] as const))(
  '%s, sound, altered, crafted and late: the twin agrees on 2,000',
  async (name, target) => {
    const { result, holdsMemory } = await judged(
      name,
      () => fuzzTokens(target, 1, { inputs: 200 }),
      () => fuzzTokens(target, 20_260, { inputs: 2_000 }),
    );
    expect(result).toMatchObject({ finding: undefined, inputs: 2_000 });
    expect(holdsMemory).toBe(false);
  },
);

describe('control: a check with one fault is found out', () => {
  test.each(Object.entries(PLANTED))('%s', async (_name, [name, planted]) => {
    const target = TOKENS_TARGETS.find((one) => one.name === name)!;
    const { finding } = await fuzzTokens(target, 20_260, { inputs: 10_000 }, planted);
    expect(finding).toBeDefined();
  });
});
