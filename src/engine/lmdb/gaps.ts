/**
 * Stretches of the tree that are known to be empty. A lock that is taken and released lives and
 * dies above the tree, and every look at its line would search the tree in vain.
 */
import { type Bytes, equalBytes } from '../../base/bytes.ts';
import { type HashSecret, hashKey } from './key-hash.ts';

/** How many stretches are remembered at most; a new one takes the place of an older. */
const PLACES = 4_096;

interface Gap {
  readonly from: Bytes;
  readonly to: Bytes | undefined;
}

export class Gaps {
  readonly #secret: HashSecret;
  readonly #known: (Gap | undefined)[] = [];

  constructor(secret: HashSecret) {
    this.#secret = secret;
  }

  has(from: Bytes, to: Bytes | undefined): boolean {
    const known = this.#known[this.#placeOf(from)];
    if (!known || !equalBytes(known.from, from)) return false;
    return to && known.to ? equalBytes(known.to, to) : to === known.to;
  }

  add(from: Bytes, to: Bytes | undefined): void {
    this.#known[this.#placeOf(from)] = { from: from.slice(), to: to?.slice() };
  }

  /** The tree has changed. */
  clear(): void {
    this.#known.length = 0;
  }

  #placeOf(from: Bytes): number {
    return hashKey(this.#secret, from, 0, from.length) % PLACES;
  }
}
