/** The short form of `npm run prove -- fuzz-tokens`: a different seed is a bug report. */
import { describe, expect, test } from 'vitest';
import { fuzzTokens, PLANTED, TOKENS_TARGETS } from './fuzz-tokens.ts';

test.each(TOKENS_TARGETS.map((target) => [target.name, target] as const))(
  '%s, sound, altered, crafted and late: the twin agrees on 2,000',
  async (_name, target) => {
    expect(await fuzzTokens(target, 20_260, { inputs: 2_000 })).toMatchObject({
      finding: undefined,
      inputs: 2_000,
    });
  },
);

describe('control: a check with one fault is found out', () => {
  test.each(Object.entries(PLANTED))('%s', async (_name, [name, planted]) => {
    const target = TOKENS_TARGETS.find((one) => one.name === name)!;
    const { finding } = await fuzzTokens(target, 20_260, { inputs: 10_000 }, planted);
    expect(finding).toBeDefined();
  });
});
