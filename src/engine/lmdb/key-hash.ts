/**
 * A hash of keys whose collisions nobody can prepare who does not know its secret: HalfSipHash with
 * one round per word and three at the end. Clients choose the keys, and a table whose every key
 * falls into one place is as slow as a list.
 */
import type { Bytes } from '../../base/bytes.ts';
import type { Random } from '../../base/random.ts';

export interface HashSecret {
  readonly a: number;
  readonly b: number;
}

export function secretFrom(random: Random): HashSecret {
  const [a = 0, b = 0] = new Int32Array(random.bytes(8).slice().buffer);
  return { a, b };
}

/** Of `length` bytes from `start` on: a whole number below 2^32. */
export function hashKey(secret: HashSecret, bytes: Bytes, start: number, length: number): number {
  let v0 = secret.a;
  let v1 = secret.b;
  let v2 = 0x6c796765 ^ secret.a;
  let v3 = 0x74656462 ^ secret.b;
  const words = length >> 2;
  // One turn more than there are words: the last one takes the rest and the length.
  for (let word = 0, at = start; word <= words; word++, at += 4) {
    const value = word < words ? wordAt(bytes, at) : restAt(bytes, at, length);
    v3 ^= value;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= value;
  }
  v2 ^= 0xff;
  for (let round = 0; round < 3; round++) {
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
  }
  return (v1 ^ v3) >>> 0;
}

function wordAt(bytes: Bytes, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/** Up to three bytes, and the length in the highest one. */
function restAt(bytes: Bytes, at: number, length: number): number {
  let word = length << 24;
  const rest = length & 3;
  if (rest > 2) word |= bytes[at + 2]! << 16;
  if (rest > 1) word |= bytes[at + 1]! << 8;
  if (rest > 0) word |= bytes[at]!;
  return word;
}

/** A key that is looked for, with its hash once that was needed. */
export class Probe {
  key: Bytes = NOTHING;
  readonly #secret: HashSecret;
  #hash: number | undefined;

  constructor(secret: HashSecret) {
    this.#secret = secret;
  }

  /**
   * The rules look a key up and write it then, with the same bytes both times: so the hash of the
   * last one stays. Whoever hands in a key does not change it afterwards.
   */
  of(key: Bytes): this {
    if (key === this.key) return this;
    this.key = key;
    this.#hash = undefined;
    return this;
  }

  get hash(): number {
    this.#hash ??= hashKey(this.#secret, this.key, 0, this.key.length);
    return this.#hash;
  }
}

const NOTHING: Bytes = new Uint8Array(0);
