/**
 * Things in order: a sorted list of sorted blocks, each small enough that an insertion moves
 * little. What belongs to a thing stands elsewhere.
 */

/** A block is split in two when it grows beyond this. */
const BLOCK_THINGS = 512;
/** So many may wait to be put into their places: together and in order that costs less. */
const FRESH_MAX = 1_024;

/** Which comes first: less than 0 if the left one does. */
export interface Order<T, K> {
  compare(a: T, b: T): number;
  /** Of a thing and the key of another, by which places are looked for. */
  against(thing: T, key: K): number;
}

/** A place in the order. It is of no use any more once the things change. */
export interface Cursor<T> {
  /** Undefined: behind the last one. */
  readonly at: T | undefined;
  advance(): void;
}

export class SortedBlocks<T, K> {
  readonly #order: Order<T, K>;
  readonly #blocks: T[][];
  #fresh: T[] = [];

  constructor(order: Order<T, K>, blocks: T[][] = [[]]) {
    this.#order = order;
    this.#blocks = blocks;
  }

  /** The caller knows that the thing is not in it yet. */
  add(thing: T): void {
    this.#fresh.push(thing);
    if (this.#fresh.length >= FRESH_MAX) this.#settle();
  }

  /** Removes the thing of this key, if it is there. */
  delete(key: K): void {
    this.#settle();
    const index = this.#blockOf(key);
    const block = this.#blocks[index]!;
    const at = this.#lowerBound(block, key);
    if (at === block.length || this.#order.against(block[at]!, key) !== 0) return;
    block.splice(at, 1);
    if (block.length === 0 && this.#blocks.length > 1) this.#blocks.splice(index, 1);
  }

  copy(order: Order<T, K> = this.#order): SortedBlocks<T, K> {
    this.#settle();
    return new SortedBlocks(
      order,
      this.#blocks.map((block) => [...block]),
    );
  }

  /** From `from` on, up to and without `to`; without a `to` up to the end. */
  upwards(from: K, to: K | undefined): Cursor<T> {
    this.#settle();
    const index = this.#blockOf(from);
    const at = this.#lowerBound(this.#blocks[index]!, from);
    const isWithin = (thing: T): boolean => to === undefined || this.#order.against(thing, to) < 0;
    return new Walk(this.#blocks, index, at, 1, isWithin);
  }

  /** From the last one before `to` down to `from`. */
  downwards(from: K, to: K | undefined): Cursor<T> {
    this.#settle();
    const index = to === undefined ? this.#blocks.length - 1 : this.#blockOf(to);
    const block = this.#blocks[index]!;
    const end = to === undefined ? block.length : this.#lowerBound(block, to);
    const isWithin = (thing: T): boolean => this.#order.against(thing, from) >= 0;
    return new Walk(this.#blocks, index, end - 1, -1, isWithin);
  }

  /** Puts everything in its place. */
  #settle(): void {
    const fresh = this.#fresh;
    if (fresh.length === 0) return;
    this.#fresh = [];
    if (fresh.length > 1) fresh.sort((a, b) => this.#order.compare(a, b));
    for (const thing of fresh) this.#insert(thing);
  }

  #insert(thing: T): void {
    const { compare } = this.#order;
    const isBefore = (other: T): boolean => compare(other, thing) < 0;
    const index = lastOf(this.#blocks, (block) => compare(block[0]!, thing) <= 0);
    const block = this.#blocks[index]!;
    if (block.length === 0 || isBefore(block[block.length - 1]!)) block.push(thing);
    else block.splice(firstNot(block, isBefore), 0, thing);
    if (block.length > BLOCK_THINGS) this.#split(index);
  }

  /** The last block that begins at or before `key`; the first one if none does. */
  #blockOf(key: K): number {
    return lastOf(this.#blocks, (block) => this.#order.against(block[0]!, key) <= 0);
  }

  #lowerBound(block: readonly T[], key: K): number {
    return firstNot(block, (thing) => this.#order.against(thing, key) < 0);
  }

  /** Things that arrive in order leave full blocks behind, others halves. */
  #split(index: number): void {
    const block = this.#blocks[index]!;
    this.#blocks.splice(index + 1, 0, block.splice(block.length >> 1));
  }
}

class Walk<T> implements Cursor<T> {
  at: T | undefined;
  readonly #blocks: readonly (readonly T[])[];
  readonly #step: 1 | -1;
  readonly #isWithin: (thing: T) => boolean;
  #index: number;
  #place: number;

  constructor(
    blocks: readonly (readonly T[])[],
    index: number,
    place: number,
    step: 1 | -1,
    isWithin: (thing: T) => boolean,
  ) {
    this.#blocks = blocks;
    this.#index = index;
    this.#place = place - step;
    this.#step = step;
    this.#isWithin = isWithin;
    this.advance();
  }

  advance(): void {
    this.#place += this.#step;
    while (this.#place < 0 || this.#place >= (this.#blocks[this.#index]?.length ?? 0)) {
      this.#index += this.#step;
      const block = this.#blocks[this.#index];
      if (!block) {
        this.at = undefined;
        return;
      }
      this.#place = this.#step > 0 ? 0 : block.length - 1;
    }
    const thing = this.#blocks[this.#index]![this.#place]!;
    this.at = this.#isWithin(thing) ? thing : undefined;
  }
}

/** The last place whose thing `holds`, which those before do, too; 0 if none does. */
function lastOf<T>(things: readonly T[], holds: (thing: T) => boolean): number {
  let low = 0;
  let high = things.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (holds(things[middle]!)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The first place whose thing no longer `holds`. */
function firstNot<T>(things: readonly T[], holds: (thing: T) => boolean): number {
  let low = 0;
  let high = things.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(things[middle]!)) low = middle + 1;
    else high = middle;
  }
  return low;
}
