import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromBase64url, toBase64url } from './base64url.ts';

describe('base64url', () => {
  it('writes what Node writes and reads it back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        const text = toBase64url(bytes);
        expect(text).toBe(Buffer.from(bytes).toString('base64url'));
        expect(fromBase64url(text)).toEqual(new Uint8Array(bytes));
      }),
    );
  });

  it('reads no text that it would not have written', () => {
    const signs = fc.constantFrom(...'AB_-z9=+/. é');
    fc.assert(
      fc.property(fc.array(signs, { maxLength: 12 }), (chosen) => {
        const text = chosen.join('');
        const bytes = fromBase64url(text);
        if (bytes !== undefined) expect(toBase64url(bytes)).toBe(text);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each(['A', 'AB==', 'A+', 'A/', 'AB', 'AAB', ' ', 'A A'])('refuses %j', (text) => {
    expect(fromBase64url(text)).toBeUndefined();
  });
});
