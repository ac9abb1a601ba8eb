import { describe, expect, it } from 'vitest';
import { fuzz, TARGETS } from './fuzz.ts';

describe('fuzzing the HTTP/2 machine', () => {
  it.each(TARGETS.map((target) => [target.name, target] as const))(
    'finds nothing in %s',
    (_name, target) => {
      expect(fuzz(target, 1, { inputs: 3_000, forMs: 8_000 }).finding).toBeUndefined();
    },
  );
});
