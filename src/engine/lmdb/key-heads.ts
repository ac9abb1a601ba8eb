/**
 * What tells most keys apart, in a list of numbers: six bytes of each, behind what all of them have
 * in common. The keys themselves lie all over the memory of changes, and to look at one is to wait
 * for it; putting a hundred thousand keys in order looks at each of them many times.
 */
import type { Bytes } from '../../base/bytes.ts';

const HEAD_BYTES = 6;
const FIRST = 64;

export class KeyHeads {
  #heads: Float64Array;
  #count: number;
  /** What all keys begin with. */
  #common: Bytes | undefined;

  constructor(heads: Float64Array = new Float64Array(FIRST), count = 0, common?: Bytes) {
    this.#heads = heads;
    this.#count = count;
    this.#common = common;
  }

  /** Entries come in order, from any first one on; `keyOf` tells the key of each. */
  add(entry: number, keyOf: (entry: number) => Bytes): void {
    const key = keyOf(entry);
    if (entry >= this.#heads.length) this.#grow(entry);
    this.#count = entry + 1;
    const begin = this.#common ? sharedLength(this.#common, key) : key.length;
    if (this.#common && begin === this.#common.length) {
      this.#heads[entry] = headOf(key, begin);
      return;
    }
    // The new key shares less: what tells the others apart begins earlier. That happens as often as
    // a key has bytes, at most.
    this.#common = new Uint8Array(key.subarray(0, begin));
    for (let other = 0; other < this.#count; other++) {
      this.#heads[other] = headOf(keyOf(other), begin);
    }
  }

  /** 0: the keys themselves must tell. */
  compare(a: number, b: number): number {
    return this.#heads[a]! - this.#heads[b]!;
  }

  against(entry: number, key: Bytes): number {
    const common = this.#common!;
    if (sharedLength(common, key) < common.length) return 0;
    return this.#heads[entry]! - headOf(key, common.length);
  }

  copy(): KeyHeads {
    return new KeyHeads(this.#heads.slice(), this.#count, this.#common);
  }

  #grow(entry: number): void {
    const larger = new Float64Array(Math.max(entry + 1, this.#heads.length * 2));
    larger.set(this.#heads);
    this.#heads = larger;
  }
}

/** A key that ends counts as if zeros followed: two that differ only in such are no further apart. */
function headOf(key: Bytes, begin: number): number {
  let head = 0;
  for (let at = begin; at < begin + HEAD_BYTES; at++) head = head * 256 + (key[at] ?? 0);
  return head;
}

function sharedLength(common: Bytes, key: Bytes): number {
  const shorter = Math.min(common.length, key.length);
  let at = 0;
  while (at < shorter && common[at] === key[at]) at++;
  return at;
}
