/**
 * What the tree holds in short ranges, mostly nothing. A lock that is taken and released lives and
 * dies above the tree, and every look at its line would search the tree for the same answer.
 */
import { type Bytes, equalBytes } from '../../base/bytes.ts';
import { type HashSecret, hashKey } from './key-hash.ts';

/** A power of two. Two ranges share each pair of places; a third one takes that of the older. */
const PLACES = 8_192;
/** More than this is no short range. */
export const RECORDS_MAX = 4;
const VALUE_BYTES_MAX = 256;

export interface TreeRecord {
  readonly key: Bytes;
  readonly value: Bytes;
}

interface Known {
  readonly from: Bytes;
  readonly to: Bytes | undefined;
  readonly records: readonly TreeRecord[];
}

export class TreeRanges {
  readonly #secret: HashSecret;
  #known: (Known | undefined)[] = [];

  constructor(secret: HashSecret) {
    this.#secret = secret;
  }

  /** The records of a range in ascending order, if they are known. */
  find(from: Bytes, to: Bytes | undefined): readonly TreeRecord[] | undefined {
    const place = this.#placeOf(from);
    const known = this.#known[place];
    if (known && isOf(known, from, to)) return known.records;
    const older = this.#known[place + 1];
    return older && isOf(older, from, to) ? older.records : undefined;
  }

  keep(from: Bytes, to: Bytes | undefined, records: readonly TreeRecord[]): void {
    if (records.some(({ value }) => value.length > VALUE_BYTES_MAX)) return;
    const place = this.#placeOf(from);
    this.#known[place + 1] = this.#known[place];
    this.#known[place] = { from: from.slice(), to: to?.slice(), records };
  }

  /** The tree has changed. */
  clear(): void {
    this.#known = [];
  }

  #placeOf(from: Bytes): number {
    return hashKey(this.#secret, from, 0, from.length) & (PLACES - 2);
  }
}

function isOf(known: Known, from: Bytes, to: Bytes | undefined): boolean {
  if (!equalBytes(known.from, from)) return false;
  return known.to && to ? equalBytes(known.to, to) : known.to === to;
}
