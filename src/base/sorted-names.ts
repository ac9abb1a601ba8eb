/**
 * A set of binary strings in order: a sorted list of sorted blocks, each small enough that an
 * insertion moves little. What belongs to a name stands elsewhere, in a Map.
 */

/** A block is split in two when it grows beyond this. */
const BLOCK_NAMES = 512;
/** So many names may wait to be put into their places: together and in order that costs less. */
const FRESH_MAX = 1_024;

/** A place in the order. It is of no use any more once the names change. */
export interface NameCursor {
  /** Undefined: behind the last one. */
  readonly name: string | undefined;
  advance(): void;
}

export class SortedNames {
  readonly #blocks: string[][];
  #fresh: string[] = [];

  constructor(blocks: string[][] = [[]]) {
    this.#blocks = blocks;
  }

  /** The caller knows that the name is not in it yet. */
  add(name: string): void {
    this.#fresh.push(name);
    if (this.#fresh.length >= FRESH_MAX) this.#settle();
  }

  /** Puts everything in its place. */
  #settle(): void {
    const fresh = this.#fresh;
    if (fresh.length === 0) return;
    this.#fresh = [];
    if (fresh.length > 1) fresh.sort();
    for (const name of fresh) this.#insert(name);
  }

  #insert(name: string): void {
    const index = this.#blockOf(name);
    const block = this.#blocks[index]!;
    if (block.length === 0 || block[block.length - 1]! < name) block.push(name);
    else block.splice(lowerBound(block, name), 0, name);
    if (block.length > BLOCK_NAMES) this.#split(index);
  }

  delete(name: string): void {
    this.#settle();
    const index = this.#blockOf(name);
    const block = this.#blocks[index]!;
    const at = lowerBound(block, name);
    if (block[at] !== name) return;
    block.splice(at, 1);
    if (block.length === 0 && this.#blocks.length > 1) this.#blocks.splice(index, 1);
  }

  copy(): SortedNames {
    this.#settle();
    return new SortedNames(this.#blocks.map((block) => [...block]));
  }

  /** From `from` on, up to and without `to`; without a `to` up to the end. */
  upwards(from: string, to: string | undefined): NameCursor {
    this.#settle();
    const index = this.#blockOf(from);
    return new Upwards(this.#blocks, index, lowerBound(this.#blocks[index]!, from), to);
  }

  /** From the last name before `to` down to `from`. */
  downwards(from: string, to: string | undefined): NameCursor {
    this.#settle();
    const index = to === undefined ? this.#blocks.length - 1 : this.#blockOf(to);
    const block = this.#blocks[index]!;
    const end = to === undefined ? block.length : lowerBound(block, to);
    return new Downwards(this.#blocks, index, end - 1, from);
  }

  /** The last block that begins at or before `name`; the first one if none does. */
  #blockOf(name: string): number {
    let low = 0;
    let high = this.#blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#blocks[middle]![0]! <= name) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Names that arrive in order leave full blocks behind, others halves. */
  #split(index: number): void {
    const block = this.#blocks[index]!;
    this.#blocks.splice(index + 1, 0, block.splice(block.length >> 1));
  }
}

class Upwards implements NameCursor {
  name: string | undefined;
  readonly #blocks: readonly (readonly string[])[];
  readonly #to: string | undefined;
  #index: number;
  #at: number;

  constructor(
    blocks: readonly (readonly string[])[],
    index: number,
    at: number,
    to: string | undefined,
  ) {
    this.#blocks = blocks;
    this.#index = index;
    this.#at = at - 1;
    this.#to = to;
    this.advance();
  }

  advance(): void {
    this.#at++;
    while (this.#index < this.#blocks.length && this.#at >= this.#blocks[this.#index]!.length) {
      this.#index++;
      this.#at = 0;
    }
    const name = this.#blocks[this.#index]?.[this.#at];
    this.name =
      name !== undefined && (this.#to === undefined || name < this.#to) ? name : undefined;
  }
}

class Downwards implements NameCursor {
  name: string | undefined;
  readonly #blocks: readonly (readonly string[])[];
  readonly #from: string;
  #index: number;
  #at: number;

  constructor(blocks: readonly (readonly string[])[], index: number, at: number, from: string) {
    this.#blocks = blocks;
    this.#index = index;
    this.#at = at + 1;
    this.#from = from;
    this.advance();
  }

  advance(): void {
    this.#at--;
    while (this.#at < 0 && this.#index > 0) {
      this.#index--;
      this.#at = this.#blocks[this.#index]!.length - 1;
    }
    const name = this.#blocks[this.#index]![this.#at];
    this.name = name !== undefined && name >= this.#from ? name : undefined;
  }
}

function lowerBound(names: readonly string[], name: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (names[middle]! < name) low = middle + 1;
    else high = middle;
  }
  return low;
}
