import fc from 'fast-check';
import { expect, test } from 'vitest';
import { allocate, copyBytes } from './allocate.ts';

test('pieces of every size are zero, of the right length, and never overlap', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 1_500 }), { maxLength: 60 }), (lengths) => {
      const pieces = lengths.map((length) => allocate(length));
      for (const [i, piece] of pieces.entries()) {
        expect(piece).toHaveLength(lengths[i]!);
        expect(piece.every((byte) => byte === 0)).toBe(true);
      }
      for (const [i, piece] of pieces.entries()) piece.fill(i + 1);
      for (const [i, piece] of pieces.entries()) {
        expect(piece.every((byte) => byte === (i + 1) % 256)).toBe(true);
      }
    }),
  );
});

test('a copy is the part asked for and shares nothing with its source', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1_200 }), fc.nat(), fc.nat(), (source, a, b) => {
      const [start, end] = [a % (source.length + 1), b % (source.length + 1)].sort((x, y) => x - y);
      const expected = Uint8Array.from(source).slice(start, end);
      const copy = copyBytes(
        Buffer.from(source.buffer, source.byteOffset, source.length),
        start,
        end,
      );
      source.fill(0);
      expect(copy).toEqual(expected);
      expect(Buffer.isBuffer(copy)).toBe(false);
    }),
  );
});
