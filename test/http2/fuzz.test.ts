import { describe, expect, it } from 'vitest';
import { judged } from '../fuzz-judge.ts';
import { fuzz, TARGETS } from './fuzz.ts';

describe('fuzzing the HTTP/2 machine', () => {
  it.each(TARGETS.map((target) => [target.name, target] as const))(
    'finds nothing in %s',
    async (name, target) => {
      const { result, holdsMemory } = await judged(
        name,
        () => fuzz(target, 1, { inputs: 200, forMs: 2_000 }),
        () => fuzz(target, 1, { inputs: 3_000, forMs: 8_000 }),
      );
      expect(result.finding).toBeUndefined();
      expect(holdsMemory).toBe(false);
    },
  );
});
