/** The short form of `npm run prove -- fuzz-messages`: a different seed is a bug report. */
import { describe, expect, test } from 'vitest';
import { judged } from '../fuzz-judge.ts';
import { fuzz, TARGETS } from './fuzz.ts';

describe.each(TARGETS.map((target) => [target.name, target] as const))('%s', (name, target) => {
  test('a thousand inputs find nothing, and leave nothing behind', async () => {
    const { result, holdsMemory } = await judged(
      name,
      () => fuzz(target, 1, { inputs: 200 }),
      () => fuzz(target, 20_260, { inputs: 1_000 }),
    );
    expect(result).toMatchObject({ finding: undefined, inputs: 1_000 });
    expect(holdsMemory).toBe(false);
  });
});
