/**
 * The dynamic table of RFC 7541, section 2.3.2: a first-in first-out list whose size in bytes is
 * bounded. Entry 1 is the newest.
 *
 * `version` rises with every change, so that whoever remembers the outcome of a header block knows
 * whether it still holds.
 */
import type { Header } from '../headers.ts';

/** What an entry costs beside its bytes (RFC 7541, section 4.1). */
export const ENTRY_OVERHEAD = 32;

export function fieldSize(name: string, value: string): number {
  return name.length + value.length + ENTRY_OVERHEAD;
}

export class DynamicTable {
  #ring: (Header | undefined)[] = new Array(16).fill(undefined);
  /** Number of entries ever added; the newest is `added - 1`. */
  #added = 0;
  #count = 0;
  #size = 0;
  #capacity: number;
  readonly #onEvict: ((entry: Header, number: number) => void) | undefined;
  version = 0;

  constructor(capacity: number, onEvict?: (entry: Header, number: number) => void) {
    this.#capacity = capacity;
    this.#onEvict = onEvict;
  }

  get count(): number {
    return this.#count;
  }

  get size(): number {
    return this.#size;
  }

  get capacity(): number {
    return this.#capacity;
  }

  /** The number the next entry will have; `added - number` is an entry's place, newest 1. */
  get added(): number {
    return this.#added;
  }

  at(place: number): Header | undefined {
    if (place < 1 || place > this.#count) return undefined;
    return this.#ring[(this.#added - place) & (this.#ring.length - 1)];
  }

  /** An entry larger than the table empties it and is not kept; that is no error. */
  add(entry: Header): boolean {
    const size = fieldSize(entry[0], entry[1]);
    this.version++;
    while (this.#count > 0 && this.#size + size > this.#capacity) this.#evict();
    if (size > this.#capacity) return false;
    if (this.#count === this.#ring.length) this.#grow();
    this.#ring[this.#added & (this.#ring.length - 1)] = entry;
    this.#added++;
    this.#count++;
    this.#size += size;
    return true;
  }

  resize(capacity: number): void {
    if (capacity === this.#capacity) return;
    this.version++;
    this.#capacity = capacity;
    while (this.#size > capacity) this.#evict();
  }

  #evict(): void {
    const number = this.#added - this.#count;
    const slot = number & (this.#ring.length - 1);
    const entry = this.#ring[slot]!;
    this.#ring[slot] = undefined;
    this.#count--;
    this.#size -= fieldSize(entry[0], entry[1]);
    this.#onEvict?.(entry, number);
  }

  #grow(): void {
    const larger: (Header | undefined)[] = new Array(this.#ring.length * 2).fill(undefined);
    for (let number = this.#added - this.#count; number < this.#added; number++) {
      larger[number & (larger.length - 1)] = this.#ring[number & (this.#ring.length - 1)];
    }
    this.#ring = larger;
  }
}
