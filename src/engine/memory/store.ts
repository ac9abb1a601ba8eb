/**
 * An ordered table in memory: what belongs to a key in a Map, the keys in order beside it.
 *
 * Real, not a stub: it passes the conformance suite. What it does not do is outlive the process.
 */
import { type Bytes, binaryString, fromBinaryString } from '../../base/bytes.ts';
import { type Order, SortedBlocks } from '../../base/sorted-blocks.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { ScanOptions, Store, Table, TableReader } from '../../mvcc/table.ts';

type Names = SortedBlocks<string, string>;

const IN_ORDER: Order<string, string> = { compare: byUnits, against: byUnits };

function byUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export class MemoryTable implements Table {
  readonly #values: Map<string, Bytes>;
  readonly #names: Names;
  #bytes: number;

  constructor(
    values: Map<string, Bytes> = new Map(),
    names: Names = new SortedBlocks(IN_ORDER),
    bytes = 0,
  ) {
    this.#values = values;
    this.#names = names;
    this.#bytes = bytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: Bytes): Bytes | undefined {
    return this.#values.get(binaryString(key));
  }

  put(key: Bytes, value: Bytes): void {
    const name = binaryString(key);
    const former = this.#values.get(name);
    if (former) {
      this.#bytes += value.length - former.length;
    } else {
      this.#names.add(name);
      this.#bytes += name.length + value.length;
    }
    this.#values.set(name, value);
  }

  remove(key: Bytes): void {
    const name = binaryString(key);
    const former = this.#values.get(name);
    if (!former) return;
    this.#bytes -= name.length + former.length;
    this.#values.delete(name);
    this.#names.delete(name);
  }

  cut(start: Bytes, end: Bytes): void {
    const doomed: string[] = [];
    const cursor = this.#names.upwards(binaryString(start), binaryString(end));
    for (; cursor.at !== undefined; cursor.advance()) doomed.push(cursor.at);
    for (const name of doomed) this.remove(fromBinaryString(name));
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
    const names = this.#names;
    const cursor = options.reverse ? names.downwards(from, to) : names.upwards(from, to);
    for (; cursor.at !== undefined; cursor.advance()) {
      if (!visit(fromBinaryString(cursor.at), this.#values.get(cursor.at)!)) return;
    }
  }

  copy(): MemoryTable {
    return new MemoryTable(new Map(this.#values), this.#names.copy(), this.#bytes);
  }
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
