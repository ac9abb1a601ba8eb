import { describe, expect, it } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { hashKey, Probe } from './key-hash.ts';

/** HalfSipHash-1-3 of 0, 1, 2 … as other implementations have it. */
const KNOWN = [
  0x5814c896, 0xe7e864ca, 0xbc4b0e30, 0x01539939, 0x7e059ea6, 0x88e3d89b, 0xa0080b65, 0x9d38d9d6,
  0x577999b1, 0xc839caed,
];
const SECRET = { a: 0x03020100, b: 0x07060504 };

describe('the hash of a key', () => {
  it('is HalfSipHash-1-3, wherever the key stands', () => {
    const counted = Uint8Array.from({ length: 64 }, (_, i) => i);
    const shifted = Uint8Array.from({ length: 64 }, (_, i) => i - 7);
    for (const [length, known] of KNOWN.entries()) {
      expect(hashKey(SECRET, counted, 0, length)).toBe(known);
      expect(hashKey(SECRET, shifted, 7, length)).toBe(known);
    }
  });

  it('is another one with another secret', () => {
    const key = utf8('orders/42');
    const other = hashKey({ a: SECRET.a, b: SECRET.b + 1 }, key, 0, key.length);
    expect(hashKey(SECRET, key, 0, key.length)).not.toBe(other);
  });

  it('stays with the key it was made for', () => {
    const probe = new Probe(SECRET);
    const [one, two] = [utf8('one'), utf8('two')];
    const first = probe.of(one).hash;
    expect(probe.of(two).hash).not.toBe(first);
    expect(probe.of(one).hash).toBe(first);
  });
});
