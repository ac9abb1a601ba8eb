/** The short form of `npm run prove -- fuzz-messages`: a different seed is a bug report. */
import { describe, expect, test } from 'vitest';
import { fuzz, TARGETS } from './fuzz.ts';

describe.each(TARGETS.map((target) => [target.name, target] as const))('%s', (_name, target) => {
  test('a thousand inputs find nothing', () => {
    expect(fuzz(target, 20_260, { inputs: 1_000 })).toMatchObject({
      finding: undefined,
      inputs: 1_000,
    });
  });
});
