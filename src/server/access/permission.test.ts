import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Bytes, compareBytes, utf8 } from '../../base/bytes.ts';
import { contains, interval } from '../../model/range.ts';
import { covers, grants, type Permission, type Right } from './permission.ts';

const ZERO = Uint8Array.of(0);
/** Few letters, short keys, every sentinel: the space in which mistakes meet. */
const key = fc
  .array(fc.constantFrom(0x61, 0x62, 0x63), { minLength: 1, maxLength: 2 })
  .map((a) => Uint8Array.from(a));
const end = fc.oneof(fc.constant(undefined), fc.constant(ZERO), key);
const permission = fc.record({
  type: fc.constantFrom('read' as const, 'write' as const, 'readwrite' as const),
  key,
  end,
});
const right = fc.constantFrom<Right>('read', 'write');

/** Every key of up to three letters and one beyond: enough to see each gap between short bounds. */
function universe(): Bytes[] {
  const keys: Bytes[] = [];
  const grow = (prefix: number[]): void => {
    if (prefix.length > 0) keys.push(Uint8Array.from(prefix));
    if (prefix.length < 3) for (const letter of [0, 0x61, 0x62, 0x63]) grow([...prefix, letter]);
  };
  grow([]);
  return [...keys, utf8('zz')];
}

const KEYS = universe();

test('what is covered is exactly what key by key is granted', () => {
  fc.assert(
    fc.property(fc.array(permission, { maxLength: 4 }), right, key, end, (list, wanted, k, e) => {
      const range = interval({ key: k, end: e });
      const inside = KEYS.filter((candidate) => contains(range, candidate));
      const granted = (candidate: Bytes): boolean =>
        list.some((p: Permission) => grants(p, wanted) && contains(interval(p), candidate));
      if (covers(list, wanted, range)) expect(inside.every(granted)).toBe(true);
      else if (inside.length > 0 && range.end !== undefined) {
        // A gap: some key of the range is not granted, perhaps one longer than the universe knows.
        const gap =
          inside.some((candidate) => !granted(candidate)) || hasFineGap(list, wanted, k, e);
        expect(gap).toBe(true);
      }
    }),
    { numRuns: 2_000 },
  );
});

/** The bounds themselves, and what follows each at once, are where a gap can hide. */
function hasFineGap(list: Permission[], wanted: Right, k: Bytes, e: Bytes | undefined): boolean {
  const range = interval({ key: k, end: e });
  const ends = list.flatMap((p) => {
    const { end: until } = interval(p);
    return until ? [until] : [];
  });
  return [range.start, ...ends].some(
    (candidate) =>
      contains(range, candidate) &&
      !list.some((p) => grants(p, wanted) && contains(interval(p), candidate)),
  );
}

describe('known holes of others', () => {
  const one: Permission = { type: 'read', key: utf8('a') };

  test('permission for one key does not reach from that key to the end', () => {
    expect(covers([one], 'read', interval({ key: utf8('a') }))).toBe(true);
    expect(covers([one], 'read', interval({ key: utf8('a'), end: ZERO }))).toBe(false);
  });

  test('an empty permission range grants nothing', () => {
    const empty: Permission = { type: 'readwrite', key: utf8('b'), end: utf8('a') };
    expect(covers([empty], 'read', interval({ key: utf8('b') }))).toBe(false);
  });

  test('ranges of several roles that touch are one range', () => {
    const halves: Permission[] = [
      { type: 'read', key: utf8('m'), end: utf8('t') },
      { type: 'readwrite', key: utf8('a'), end: utf8('m') },
    ];
    expect(covers(halves, 'read', interval({ key: utf8('b'), end: utf8('s') }))).toBe(true);
    expect(covers(halves, 'write', interval({ key: utf8('b'), end: utf8('s') }))).toBe(false);
  });

  test('order of keys is that of bytes', () => {
    expect(compareBytes(utf8('a'), utf8('ab'))).toBeLessThan(0);
  });
});
