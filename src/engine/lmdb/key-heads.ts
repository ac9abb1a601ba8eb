/**
 * What tells most keys apart, in a list of numbers: six bytes of each, behind what all of them have
 * in common. The keys themselves lie all over the memory of changes, and to look at one is to wait
 * for it; putting a hundred thousand keys in order looks at each of them many times.
 */
import type { Bytes } from '../../base/bytes.ts';

const HEAD_BYTES = 6;
const FIRST = 64;

export class KeyHeads {
  readonly #keyOf: (entry: number) => Bytes;
  #heads: Float64Array;
  /** What all keys begin with. */
  #common: Bytes | undefined;

  constructor(
    keyOf: (entry: number) => Bytes,
    heads: Float64Array = new Float64Array(FIRST),
    common?: Bytes,
  ) {
    this.#keyOf = keyOf;
    this.#heads = heads;
    this.#common = common;
  }

  /** Entries come in order, from any first one on. */
  add(entry: number): void {
    const key = this.#keyOf(entry);
    if (entry >= this.#heads.length) this.#grow(entry);
    const begin = this.#common ? sharedLength(this.#common, key) : key.length;
    if (begin === this.#common?.length) {
      this.#heads[entry] = headOf(key, begin);
      return;
    }
    // The new key shares less: what tells the others apart begins earlier. That happens as often as
    // a key has bytes, at most.
    this.#common = new Uint8Array(key.subarray(0, begin));
    for (let other = 0; other <= entry; other++) {
      this.#heads[other] = headOf(this.#keyOf(other), begin);
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

  copy(keyOf: (entry: number) => Bytes): KeyHeads {
    return new KeyHeads(keyOf, this.#heads.slice(), this.#common);
  }

  #grow(entry: number): void {
    const larger = new Float64Array(Math.max(entry + 1, this.#heads.length * 2));
    larger.set(this.#heads);
    this.#heads = larger;
  }
}

/** A key that ends counts as if zeros followed; two that differ only in such have the same. */
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
