/** The table that works read and write: all layers with the open batch, which takes the changes. */
import type { Bytes } from '../../base/bytes.ts';
import type { ScanOptions, Table, TableReader } from '../../mvcc/table.ts';
import { ensureTableKey, isOwnKey } from './format.ts';
import type { Probe } from './key-hash.ts';
import type { Layer } from './layer.ts';

export interface WorkTableOptions {
  readonly reader: TableReader;
  /** Where the open batch stands. Asked for with every change. */
  readonly layer: () => Layer;
  /** The one that the reader looks with: what was looked up is mostly what is written next. */
  readonly probe: Probe;
  /** Throws while no work runs. */
  readonly check: () => void;
}

export class WorkTable implements Table {
  readonly #options: WorkTableOptions;

  constructor(options: WorkTableOptions) {
    this.#options = options;
  }

  get(key: Bytes): Bytes | undefined {
    // What the engine keeps for itself is not in the rules' table.
    return isOwnKey(key) ? undefined : this.#options.reader.get(key);
  }

  scan(
    start: Bytes,
    end: Bytes | undefined,
    visit: (key: Bytes, value: Bytes) => boolean,
    options?: ScanOptions,
  ): void {
    this.#options.reader.scan(start, end, visit, options);
  }

  put(key: Bytes, value: Bytes): void {
    this.#set(key, value);
  }

  remove(key: Bytes): void {
    this.#set(key, undefined);
  }

  cut(start: Bytes, end: Bytes): void {
    this.#options.check();
    this.#options.layer().cut(start, end);
  }

  #set(key: Bytes, value: Bytes | undefined): void {
    const { check, layer, probe } = this.#options;
    check();
    ensureTableKey(key);
    layer().set(probe.of(key), value);
  }
}
