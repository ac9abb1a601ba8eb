/** The short form of `npm run prove -- fuzz-seals`: a different seed is a bug report. */
import { describe, expect, test } from 'vitest';
import { judged } from '../fuzz-judge.ts';
import { fuzzSeals, PLANTED } from './fuzz-seals.ts';

test('a guard and its dumb twin agree on 3,000 seals, sound, altered and mixed', async () => {
  const { result, holdsMemory } = await judged(
    'seals',
    () => fuzzSeals(1, { inputs: 200 }),
    () => fuzzSeals(20_260, { inputs: 3_000 }),
  );
  expect(result).toEqual({ inputs: 3_000, finding: undefined });
  expect(holdsMemory).toBe(false);
});

describe('control: a guard with one fault is found out', () => {
  test.each(Object.entries(PLANTED))('%s', (_name, planted) => {
    expect(fuzzSeals(20_260, { inputs: 20_000 }, planted).finding).toBeDefined();
  });
});
