import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Bytes, compareBytes, utf8 } from '../base/bytes.ts';
import {
  contains,
  fromKey,
  interval,
  isEmptyInterval,
  keyAfter,
  prefixEnd,
  prefixRange,
} from './range.ts';

/** Few byte values, so that prefixes, neighbours and 0xff meet often. */
const key = (minLength = 0): fc.Arbitrary<Bytes> =>
  fc
    .array(fc.constantFrom(0, 1, 0x61, 0xfe, 0xff), { minLength, maxLength: 4 })
    .map((values) => Uint8Array.from(values));

const startsWith = (bytes: Bytes, prefix: Bytes): boolean =>
  bytes.length >= prefix.length && prefix.every((byte, i) => bytes[i] === byte);

describe('a range', () => {
  test('without an end, or with an empty one, is the single key', () => {
    for (const range of [{ key: utf8('a') }, { key: utf8('a'), end: new Uint8Array(0) }]) {
      const parsed = interval(range);
      expect(parsed.single).toBe(true);
      expect(contains(parsed, utf8('a'))).toBe(true);
      expect(contains(parsed, utf8('a\0'))).toBe(false);
    }
  });

  test('that ends in one zero byte reaches to the last key', () => {
    fc.assert(
      fc.property(key(1), key(1), (start, other) => {
        const parsed = interval(fromKey(start));
        expect(contains(parsed, other)).toBe(compareBytes(other, start) >= 0);
      }),
    );
  });

  test('of a prefix holds exactly the keys that begin with it', () => {
    fc.assert(
      fc.property(key(), key(1), (prefix, other) => {
        expect(contains(interval(prefixRange(prefix)), other)).toBe(startsWith(other, prefix));
      }),
    );
  });

  test('is half open, and empty when its end is not after its start', () => {
    fc.assert(
      fc.property(key(1), key(2), key(1), (start, end, other) => {
        const parsed = interval({ key: start, end });
        const inside = compareBytes(start, other) <= 0 && compareBytes(other, end) < 0;
        expect(contains(parsed, other)).toBe(inside);
        if (isEmptyInterval(parsed)) expect(inside).toBe(false);
      }),
    );
  });

  test('nothing lies between a key and the one after it', () => {
    fc.assert(
      fc.property(key(), key(), (a, b) => {
        const between = compareBytes(a, b) < 0 && compareBytes(b, keyAfter(a)) < 0;
        expect(between).toBe(false);
      }),
    );
  });

  test('a prefix of 0xff alone has no end of its own', () => {
    expect(prefixEnd(Uint8Array.of(0xff, 0xff))).toEqual(Uint8Array.of(0));
    expect(prefixEnd(Uint8Array.of(0x61, 0xff))).toEqual(Uint8Array.of(0x62));
  });
});
