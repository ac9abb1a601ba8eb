/**
 * The ordered table under the rules: bytes to bytes, keys ascending by unsigned byte order.
 *
 * Everything a store remembers lives in one such table (see `layout.ts`), so an engine only has to
 * say how a table is read and how a batch of changes becomes durable.
 */
import type { Bytes } from '../base/bytes.ts';

export interface ScanOptions {
  /** From the last key to the first. */
  readonly reverse?: boolean;
}

export interface TableReader {
  /** The bytes stay valid and unchanged for as long as the caller keeps them. */
  get(key: Bytes): Bytes | undefined;
  /**
   * Visits `start <= key < end` in order for as long as `visit` answers true. An absent `end` is
   * unbounded. `visit` must not change the table. The bytes belong to the caller.
   */
  scan(
    start: Bytes,
    end: Bytes | undefined,
    visit: (key: Bytes, value: Bytes) => boolean,
    options?: ScanOptions,
  ): void;
  /** How many keys `start <= key < end` holds, where the table knows without visiting them. */
  count?(start: Bytes, end: Bytes | undefined): number;
}

export interface Table extends TableReader {
  put(key: Bytes, value: Bytes): void;
  /** Removing what is not there is no error. */
  remove(key: Bytes): void;
  /** Removes every key `start <= key < end`. */
  cut(start: Bytes, end: Bytes): void;
}

/**
 * A table whose changes are made in atomic, durable batches. The engines differ in this alone.
 */
export interface Store {
  /** What is committed and durable, and nothing else. */
  readonly committed: TableReader;
  /**
   * Runs `work` on the table as one atomic step; several calls may share one step, in order.
   * Resolves when it is durable, and only then may `committed` show it. Works run in the order they
   * came in, each on what those before it left behind, durable or not. When a commit fails the
   * store is finished: this and every later call rejects (`storage-failed`, or `unavailable` when it
   * only has to be opened again), and the state on disk
   * is that of the last successful commit. An exception of `work` itself counts as such a failure;
   * the rules check first and change afterwards, so it means a fault in the software.
   */
  commit<T>(work: (table: Table) => T): Promise<T>;
  /**
   * Asked while a work runs: whether it had better end here and let another do the rest, because
   * the disk waits for it.
   */
  readonly isPressed?: boolean;
  /** A consistent view of one moment that stays while commits go on, for backup and copy. */
  snapshot(): TableReader & { release(): void };
  /** Bytes on disk, or the nearest measure, and how many of them are in use. */
  size(): { readonly totalBytes: number; readonly inUseBytes: number };
  /** The disk has no room for more; what is left is for making room. */
  readonly full?: boolean;
  /** Finishes what a store does later, so that `size` tells what deletions have freed. */
  settle?(): Promise<void>;
  close(): Promise<void>;
}
