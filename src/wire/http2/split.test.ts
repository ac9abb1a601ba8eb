import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { conversation, outcome } from '../../../test/http2/conversation.ts';
import { seededRandom } from '../../base/random.ts';

describe('a connection does not care how its input is cut', () => {
  it('gives the same events and output for any cutting of any conversation, sound or broken', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.constantFrom('server' as const, 'client' as const),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 40 }),
        (seed, role, cuts) => {
          const bytes = conversation(role, seededRandom(seed));
          const places = cuts.map((cut) => Math.floor(cut * bytes.length)).sort((a, b) => a - b);
          expect(outcome(role, bytes, places)).toEqual(outcome(role, bytes, []));
        },
      ),
      { numRuns: 400 },
    );
  });

  it('gives the same byte by byte', () => {
    for (let seed = 0; seed < 40; seed++) {
      for (const role of ['server', 'client'] as const) {
        const bytes = conversation(role, seededRandom(seed));
        const all = Array.from(bytes, (_, i) => i);
        expect(outcome(role, bytes, all)).toEqual(outcome(role, bytes, []));
      }
    }
  });
});
