/**
 * The only file that touches the `lmdb` package: one unnamed table, one way to write.
 *
 * How it is opened decides what may be promised:
 * - `overlappingSync: false`: a commit becomes visible to readers only after its pages are synced
 *   and its root has been written through; the default shows it before.
 * - no `noSync`, no `useWritemap`: a commit that has been reported is on the disk.
 * - no named tables, no compression, no versions: the file is a plain LMDB tree that `walk.ts` can
 *   check without the library.
 */
import { open as openLmdb } from 'lmdb';
import type { Bytes } from '../../base/bytes.ts';
import { lockFileOf, type Noted } from '../../base/lmdb-note.ts';

export interface ReadTransaction {
  done(): void;
}

interface ReadOptions {
  readonly transaction?: ReadTransaction | undefined;
}

export interface RangeOptions extends ReadOptions {
  readonly start?: Bytes;
  readonly end?: Bytes;
  readonly reverse?: boolean;
  readonly inclusiveEnd?: boolean;
  readonly exclusiveStart?: boolean;
}

export interface Statistics extends ReturnType<Noted['getStats']> {
  readonly pageSize: number;
  readonly lastPageNumber: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

/** The part of an `lmdb` database in use here; the package's own types leave some of it out. */
export interface Native extends Noted {
  /** Length of what `getBinaryFast` found last. */
  readonly lastSize: number;
  /** The bytes stand in a buffer that the next read overwrites. */
  getBinaryFast(key: Bytes, options?: ReadOptions): Bytes | undefined;
  getRange(options: RangeOptions): Iterable<{ readonly key: Bytes; readonly value: Bytes }>;
  getKeys(options: RangeOptions & { readonly limit?: number }): Iterable<Bytes>;
  /** Inside a transaction: writes at once, and the value's buffer is free again afterwards. */
  putSync(key: Bytes, value: Bytes): boolean;
  removeSync(key: Bytes): boolean;
  /** An exception aborts it. Commits and syncs before it returns. */
  transactionSync<T>(work: () => T): T;
  useReadTransaction(): ReadTransaction;
  resetReadTxn(): void;
  getStats(): Statistics;
  close(): Promise<void>;
}

/**
 * Address space to reserve, largest first; it costs nothing until used. Where the system limits
 * address space a smaller one is taken, and LMDB grows it when needed.
 */
const MAP_BYTES = [2 ** 40, 2 ** 36, 2 ** 32, 2 ** 28];

export function openNative(directory: string): Native {
  let failure: unknown;
  for (const mapSize of MAP_BYTES) {
    try {
      // The package's types do not know every option it reads.
      const options: object = {
        path: directory,
        noSubdir: false,
        mapSize,
        maxDbs: 0,
        maxReaders: 126,
        keyEncoding: 'binary',
        encoding: 'binary',
        overlappingSync: false,
        compression: false,
        cache: false,
        permissionsMode: 0o600,
      };
      const opened = openLmdb(options as Parameters<typeof openLmdb>[0]);
      return Object.assign(opened, {
        directory,
        lockFile: lockFileOf(directory),
      }) as unknown as Native;
    } catch (error) {
      failure = error;
      if ((error as { code?: unknown }).code !== 12) throw error;
    }
  }
  throw failure;
}

/** A view of the first bytes of `scratch` that the package takes without asking for its address. */
export interface Scratch {
  readonly bytes: Bytes;
  limit(length: number): Bytes;
}

/** One buffer for all values on their way in; grows, never shrinks below `bytes`. */
export function makeScratch(bytes: number): Scratch {
  const buffer = Buffer.allocUnsafeSlow(bytes);
  // `start` and `end` are how the package marks a part of a buffer that it has seen before.
  const marked = buffer as Buffer & { start: number; end: number };
  marked.start = 0;
  return {
    bytes: buffer,
    limit: (length) => {
      marked.end = length;
      return marked;
    },
  };
}
