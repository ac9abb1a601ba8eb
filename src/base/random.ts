/**
 * Chance as an argument: seeded, repeatable random numbers (xoshiro128** seeded by splitmix32).
 * Not for secrets; the system's source for those is in `system.ts`.
 */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** A whole number in [from, below). */
  integer(from: number, below: number): number;
  /** True with the given probability. */
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
  bytes(length: number): Uint8Array;
  /** An independent stream, so that one consumer's draws do not shift another's. */
  fork(): Random;
}

export function seededRandom(seed: number): Random {
  let mix = seed >>> 0;
  const splitmix = (): number => {
    mix = (mix + 0x9e3779b9) >>> 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  return fromUint32(xoshiro(splitmix(), splitmix(), splitmix(), splitmix()));
}

function xoshiro(s0: number, s1: number, s2: number, s3: number): () => number {
  let [a, b, c, d] = [s0, s1, s2, s3 | 1];
  const rotate = (x: number, k: number): number => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11);
    return result;
  };
}

/** Builds the whole interface on one source of 32-bit numbers. */
export function fromUint32(uint32: () => number): Random {
  const next = (): number => uint32() / 2 ** 32;
  const integer = (from: number, below: number): number =>
    from + Math.floor(next() * (below - from));
  return {
    next,
    integer,
    chance: (probability) => next() < probability,
    pick: (items) => {
      if (items.length === 0) throw new RangeError('cannot pick from an empty list');
      return items[integer(0, items.length)]!;
    },
    bytes: (length) => Uint8Array.from({ length }, () => uint32() & 0xff),
    fork: () => seededRandom(uint32()),
  };
}
