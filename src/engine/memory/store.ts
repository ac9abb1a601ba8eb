/**
 * An ordered table in memory: a sorted list of sorted blocks, keyed by binary strings.
 *
 * Real, not a stub: it passes the conformance suite. What it does not do is outlive the process.
 */
import { type Bytes, binaryString, fromBinaryString } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { ScanOptions, Store, Table, TableReader } from '../../mvcc/table.ts';

interface Block {
  readonly keys: string[];
  readonly values: Bytes[];
}

/** A block is split in two when it grows beyond this. */
const BLOCK_KEYS = 512;

export class MemoryTable implements Table {
  #blocks: Block[];
  #bytes = 0;

  constructor(blocks: Block[] = [{ keys: [], values: [] }], bytes = 0) {
    this.#blocks = blocks;
    this.#bytes = bytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: Bytes): Bytes | undefined {
    const name = binaryString(key);
    const block = this.#blocks[this.#blockOf(name)]!;
    const at = lowerBound(block.keys, name);
    return block.keys[at] === name ? block.values[at] : undefined;
  }

  put(key: Bytes, value: Bytes): void {
    const name = binaryString(key);
    const index = this.#blockOf(name);
    const block = this.#blocks[index]!;
    const at = lowerBound(block.keys, name);
    if (block.keys[at] === name) {
      this.#bytes += value.length - block.values[at]!.length;
      block.values[at] = value;
      return;
    }
    block.keys.splice(at, 0, name);
    block.values.splice(at, 0, value);
    this.#bytes += name.length + value.length;
    if (block.keys.length > BLOCK_KEYS) this.#split(index);
  }

  remove(key: Bytes): void {
    const name = binaryString(key);
    const index = this.#blockOf(name);
    const block = this.#blocks[index]!;
    const at = lowerBound(block.keys, name);
    if (block.keys[at] !== name) return;
    this.#bytes -= name.length + block.values[at]!.length;
    block.keys.splice(at, 1);
    block.values.splice(at, 1);
    if (block.keys.length === 0 && this.#blocks.length > 1) this.#blocks.splice(index, 1);
  }

  scan(
    start: Bytes,
    end: Bytes | undefined,
    visit: (key: Bytes, value: Bytes) => boolean,
    options: ScanOptions = {},
  ): void {
    const from = binaryString(start);
    const to = end && binaryString(end);
    if (to !== undefined && to <= from) return;
    if (options.reverse) this.#scanDown(from, to, visit);
    else this.#scanUp(from, to, visit);
  }

  copy(): MemoryTable {
    const blocks = this.#blocks.map(({ keys, values }) => ({
      keys: [...keys],
      values: [...values],
    }));
    return new MemoryTable(blocks, this.#bytes);
  }

  #scanUp(from: string, to: string | undefined, visit: (k: Bytes, v: Bytes) => boolean): void {
    let index = this.#blockOf(from);
    let at = lowerBound(this.#blocks[index]!.keys, from);
    for (; index < this.#blocks.length; index++, at = 0) {
      const { keys, values } = this.#blocks[index]!;
      for (; at < keys.length; at++) {
        const name = keys[at]!;
        if (to !== undefined && name >= to) return;
        if (!visit(fromBinaryString(name), values[at]!)) return;
      }
    }
  }

  #scanDown(from: string, to: string | undefined, visit: (k: Bytes, v: Bytes) => boolean): void {
    let index = to === undefined ? this.#blocks.length - 1 : this.#blockOf(to);
    const last = this.#blocks[index]!.keys;
    let at = (to === undefined ? last.length : lowerBound(last, to)) - 1;
    for (;;) {
      const { keys, values } = this.#blocks[index]!;
      for (; at >= 0; at--) {
        const name = keys[at]!;
        if (name < from) return;
        if (!visit(fromBinaryString(name), values[at]!)) return;
      }
      if (index === 0) return;
      index--;
      at = this.#blocks[index]!.keys.length - 1;
    }
  }

  /** The last block that begins at or before `name`; the first one if none does. */
  #blockOf(name: string): number {
    let low = 0;
    let high = this.#blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#blocks[middle]!.keys[0]! <= name) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #split(index: number): void {
    const block = this.#blocks[index]!;
    const half = block.keys.length >> 1;
    const upper = { keys: block.keys.splice(half), values: block.values.splice(half) };
    this.#blocks.splice(index + 1, 0, upper);
  }
}

function lowerBound(keys: readonly string[], name: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < name) low = middle + 1;
    else high = middle;
  }
  return low;
}

export class MemoryStore implements Store {
  readonly #table = new MemoryTable();
  #closed = false;

  get committed(): TableReader {
    return this.#table;
  }

  async commit<T>(work: (table: Table) => T): Promise<T> {
    if (this.#closed) throw new HoldfastError('closed', 'the store has been closed');
    return work(this.#table);
  }

  snapshot(): TableReader & { release(): void } {
    const copy = this.#table.copy();
    return Object.assign(copy, { release: () => {} });
  }

  size(): { readonly totalBytes: number; readonly inUseBytes: number } {
    return { totalBytes: this.#table.bytes, inUseBytes: this.#table.bytes };
  }

  async close(): Promise<void> {
    this.#closed = true;
  }
}
