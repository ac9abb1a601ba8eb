import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Bytes,
  binaryString,
  compareBytes,
  concatBytes,
  equalBytes,
  fromBinaryString,
  getInt64,
  getUint32,
  getUint48,
  printable,
  putInt64,
  putUint32,
  putUint48,
  utf8,
} from './bytes.ts';
import { crc32c } from './checksum.ts';

const bytes = (): fc.Arbitrary<Bytes> => fc.uint8Array({ maxLength: 12 });

describe('byte strings', () => {
  test('are ordered as node orders buffers', () => {
    fc.assert(
      fc.property(bytes(), bytes(), (a, b) => {
        expect(Math.sign(compareBytes(a, b))).toBe(Buffer.compare(a, b));
        expect(equalBytes(a, b)).toBe(Buffer.compare(a, b) === 0);
      }),
    );
  });

  test('become strings of the same order and come back unchanged', () => {
    fc.assert(
      fc.property(bytes(), bytes(), (a, b) => {
        expect(fromBinaryString(binaryString(a))).toEqual(a);
        const [x, y] = [binaryString(a), binaryString(b)];
        expect(x < y ? -1 : x > y ? 1 : 0).toBe(Math.sign(compareBytes(a, b)));
      }),
    );
    const long = new Uint8Array(200_000).fill(0xff);
    expect(equalBytes(fromBinaryString(binaryString(long)), long)).toBe(true);
  });

  test('are shown as text only when all of it can be read', () => {
    expect(printable(utf8('orders/42'))).toBe('orders/42');
    expect(printable(Uint8Array.of(0x61, 0))).toBe('0x6100');
  });

  test('join in order', () => {
    expect(concatBytes(utf8('a'), utf8(''), utf8('bc'))).toEqual(utf8('abc'));
  });
});

describe('numbers of fixed width', () => {
  test('come back as they went in', () => {
    const target = new Uint8Array(16);
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 48 - 1 }),
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        (u48, u32, i64) => {
          putUint48(target, 1, u48);
          expect(getUint48(target, 1)).toBe(u48);
          putUint32(target, 3, u32);
          expect(getUint32(target, 3)).toBe(u32);
          putInt64(target, 5, i64);
          expect(getInt64(target, 5)).toBe(i64);
        },
      ),
    );
  });

  test('sort as bytes the way they sort as numbers', () => {
    const number = fc.integer({ min: 0, max: 2 ** 48 - 1 });
    fc.assert(
      fc.property(number, number, (a, b) => {
        const [x, y] = [new Uint8Array(6), new Uint8Array(6)];
        putUint48(x, 0, a);
        putUint48(y, 0, b);
        expect(Math.sign(compareBytes(x, y))).toBe(Math.sign(a - b));
      }),
    );
  });
});

describe('CRC-32C', () => {
  test('gives the check value of RFC 3720 and of the algorithm', () => {
    expect(crc32c(utf8('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  });

  test('runs on over pieces, and sees every single flipped bit', () => {
    fc.assert(
      fc.property(bytes(), bytes(), fc.nat(), (a, b, at) => {
        const whole = concatBytes(a, b);
        expect(crc32c(b, crc32c(a))).toBe(crc32c(whole));
        if (whole.length === 0) return;
        const flipped = whole.slice();
        flipped[at % whole.length]! ^= 1 << (at % 8);
        expect(crc32c(flipped)).not.toBe(crc32c(whole));
      }),
    );
  });
});
