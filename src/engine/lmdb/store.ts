/**
 * The durable table: one writer, many works per commit, nothing visible before it is on the disk.
 *
 * Works queue up while a commit is under way; the next LMDB transaction evaluates all of them in
 * order, so one sync pays for all. A commit that fails finishes the store: a sync that failed once
 * may report success the next time although the pages are lost, so it is never tried again.
 *
 * Every commit first reads the head record inside its write transaction. If the owner epoch or the
 * sequence is not the one this process left there, another process has claimed the directory and
 * this one is fenced out: the store's own rule is the one it offers its users.
 */
import { createHash } from 'node:crypto';
import type { Bytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Store, Table, TableReader } from '../../mvcc/table.ts';
import { Batch, makeWorkspace, type Workspace } from './batch.ts';
import {
  chainAfter,
  decodeHead,
  digestOf,
  encodeCommit,
  encodeHead,
  encodeOwner,
  HEAD_KEY,
  type Head,
  OWNER_KEY,
  type OwnerRecord,
  ringKey,
  seal,
} from './format.ts';
import { commitFailure, type Native } from './native.ts';
import { NativeReader, readRecord } from './reader.ts';

interface Work {
  run(table: Table): void;
  resolve(): void;
  reject(error: unknown): void;
}

const sha256 = (bytes: Bytes): Bytes => new Uint8Array(createHash('sha256').update(bytes).digest());

export class LmdbStore implements Store {
  readonly committed: TableReader;
  readonly #native: Native;
  readonly #workspace: Workspace = makeWorkspace();
  #head: Head;
  /** The head that the open transaction has written, if any. */
  #pending: Head | undefined;
  #queue: Work[] = [];
  #running: Promise<void> | undefined;
  #evaluating = false;
  #finished: HoldfastError | undefined;
  #condemned: HoldfastError | undefined;
  #closing: Promise<void> | undefined;
  #size: { totalBytes: number; inUseBytes: number } | undefined;

  private constructor(native: Native, head: Head) {
    this.#native = native;
    this.#head = head;
    this.committed = new NativeReader(native, () => this.#ensureReadable());
  }

  /**
   * Takes the directory over for this process: one compare-and-set on the head record. `seen` is
   * the head as it was scrubbed, or undefined for a directory without a store. Throws
   * `store-in-use` when somebody else was faster.
   */
  static async claim(
    native: Native,
    seen: Head | undefined,
    fresh: Head,
    owner: OwnerRecord,
  ): Promise<LmdbStore> {
    const base = seen ? { ...seen, ownerEpoch: seen.ownerEpoch + 1 } : fresh;
    const store = new LmdbStore(native, base);
    await store.#transact(() => {
      const now = store.#readHead();
      if (now?.sequence !== seen?.sequence || now?.ownerEpoch !== seen?.ownerEpoch) {
        throw new HoldfastError('store-in-use', 'another process claimed the store just now');
      }
      native.putSync(OWNER_KEY, seal(OWNER_KEY, encodeOwner(owner)));
      store.#writeHead(encodeOwner(owner), base);
    });
    return store;
  }

  /** The head as of the last successful commit. */
  get head(): Head {
    return this.#head;
  }

  /**
   * Throws when another process has claimed the store since. A commit notices by itself; what is
   * answered from memory must ask.
   */
  ensureOwned(): void {
    if (this.#finished) throw refusal(this.#finished);
    // The package reads on in an older view until the turn ends; a process that was stopped in the
    // middle of a turn would find itself the owner there.
    this.#native.resetReadTxn();
    if (this.#readHead()?.ownerEpoch === this.#head.ownerEpoch) return;
    this.#finish(fencedOut(), []);
    throw fencedOut();
  }

  /** Why the store has stopped, if it has. */
  get failure(): HoldfastError | undefined {
    return this.#finished;
  }

  commit<T>(work: (table: Table) => T): Promise<T> {
    if (this.#finished) return Promise.reject(refusal(this.#finished));
    if (this.#closing) return Promise.reject(closedError());
    return new Promise<T>((resolve, reject) => {
      let result: T;
      this.#queue.push({
        run: (table) => {
          result = work(table);
        },
        resolve: () => resolve(result),
        reject,
      });
      this.#running ??= this.#run();
    });
  }

  snapshot(): TableReader & { release(): void } {
    this.#ensureReadable();
    const transaction = this.#native.useReadTransaction();
    let released = false;
    const check = (): void => {
      this.#ensureReadable();
      if (released) throw new Error('this snapshot has been released');
    };
    const reader = new NativeReader(this.#native, check, transaction);
    return {
      get: (key) => reader.get(key),
      scan: (start, end, visit, options) => reader.scan(start, end, visit, options),
      release: () => {
        if (released) return;
        released = true;
        transaction.done();
      },
    };
  }

  size(): { readonly totalBytes: number; readonly inUseBytes: number } {
    this.#size ??= this.#measure();
    return this.#size;
  }

  /**
   * Damage was found: from now on nothing is read or written. Serving what is left would be an
   * answer that may be wrong.
   */
  condemn(damage: HoldfastError): void {
    this.#condemned ??= damage;
    this.#finished ??= damage;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#running;
    await this.#native.close();
  }

  /** Also asked for while works run, once per commit. */
  #measure(): { totalBytes: number; inUseBytes: number } {
    if (this.#closing) throw closedError();
    const stats = this.#native.getStats();
    const pages = stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages;
    return {
      totalBytes: (stats.lastPageNumber + 1) * stats.pageSize,
      inUseBytes: (pages + 2) * stats.pageSize,
    };
  }

  /** Reads answer from what is committed; inside a work the package would show the open batch. */
  #ensureReadable(): void {
    if (this.#evaluating) throw new Error('a work reads its own table, not the committed one');
    if (this.#condemned) throw this.#condemned;
    if (this.#closing) throw closedError();
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0 && !this.#finished) await this.#commitBatch();
    this.#running = undefined;
  }

  async #commitBatch(): Promise<void> {
    let works: Work[] = [];
    let fault: HoldfastError | undefined;
    try {
      await this.#transact(() => {
        works = this.#queue;
        this.#queue = [];
        fault = this.#evaluate(works);
      });
    } catch (error) {
      this.#finish(HoldfastError.is(error) ? error : storageFailed(error), works);
      return;
    }
    if (fault) this.#finish(fault, works);
    else for (const work of works) work.resolve();
  }

  /**
   * One LMDB transaction. `change` may throw only before it wrote anything; then nothing is
   * committed. Answers when everything is on the disk.
   */
  async #transact(change: () => void): Promise<void> {
    let refused: { readonly error: unknown } | undefined;
    let next: Head | undefined;
    try {
      await this.#native.transaction(() => {
        this.#evaluating = true;
        this.#pending = undefined;
        try {
          change();
          next = this.#pending;
        } catch (error) {
          refused = { error };
        } finally {
          this.#evaluating = false;
        }
      });
    } catch (error) {
      throw storageFailed(await commitFailure(error));
    }
    if (refused) throw refused.error;
    if (next) {
      this.#head = next;
      this.#size = undefined;
    }
  }

  /** Runs the works on one table. Answers the fault that made it put everything back. */
  #evaluate(works: readonly Work[]): HoldfastError | undefined {
    this.#ensureOwner();
    const before = { records: this.#head.records, sum: this.#head.sum };
    const batch = new Batch(this.#native, this.#workspace, before);
    let fault: HoldfastError | undefined;
    try {
      for (const work of works) work.run(batch);
    } catch (error) {
      fault = faultOf(error);
    }
    if (!batch.changed) return fault;
    if (fault) batch.undo(before);
    batch.seal();
    this.#writeHead(batch.writes, { ...this.#head, records: batch.records, sum: batch.sum });
    return fault;
  }

  #ensureOwner(): void {
    const now = this.#readHead();
    const { ownerEpoch, sequence } = this.#head;
    if (now?.ownerEpoch === ownerEpoch && now.sequence === sequence) return;
    throw fencedOut();
  }

  #readHead(): Head | undefined {
    const bytes = readRecord(this.#native, HEAD_KEY);
    return bytes && decodeHead(bytes);
  }

  /** Ends the open transaction: `writes` is what it wrote, in short. */
  #writeHead(writes: Bytes, base: Head): void {
    const sequence = base.sequence + 1;
    if (this.#native.getWriteTxnId() !== sequence) {
      throw new HoldfastError('storage-failed', 'another program has written into this store');
    }
    const digest = digestOf(writes, sha256);
    const chain = chainAfter(base.chain, sequence, digest, sha256);
    const head: Head = { ...base, sequence, chain };
    const slot = ringKey(sequence);
    this.#native.putSync(slot, seal(slot, encodeCommit({ sequence, chain, digest })));
    this.#native.putSync(HEAD_KEY, seal(HEAD_KEY, encodeHead(head)));
    this.#pending = head;
  }

  /** Stops for good: what was in the failed commit may have happened, what waits has not. */
  #finish(failure: HoldfastError, works: readonly Work[]): void {
    this.#finished = failure;
    const waiting = this.#queue;
    this.#queue = [];
    for (const work of works) work.reject(failure);
    for (const work of waiting) work.reject(refusal(failure));
  }
}

function fencedOut(): HoldfastError {
  return new HoldfastError(
    'storage-failed',
    'another process has taken this store over; this one is fenced out and writes nothing more',
  );
}

function closedError(): HoldfastError {
  return new HoldfastError('closed', 'the store has been closed');
}

/** What a call meets that comes after the failure. */
function refusal(failure: HoldfastError): HoldfastError {
  return new HoldfastError(failure.code, `the store has stopped: ${failure.message}`, {
    cause: failure,
  });
}

/** An exception of a work: everything has been put back, so nothing happened. */
function faultOf(error: unknown): HoldfastError {
  if (HoldfastError.is(error, 'corrupt')) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new HoldfastError('storage-failed', `a commit was taken back: ${message}`, {
    cause: error,
  });
}

const NO_SPACE = new Set<unknown>([28, 122, 'ENOSPC', 'EDQUOT', -30792]);

/** The disk or LMDB refused a commit: whether it is there afterwards is not known. */
function storageFailed(error: unknown): HoldfastError {
  if (HoldfastError.is(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  const full = NO_SPACE.has((error as { code?: unknown }).code) || /no space/i.test(message);
  return new HoldfastError(
    'storage-failed',
    full
      ? `the disk is full (${message}): make room and open the store again; what was acknowledged is there`
      : `the disk refused a commit (${message}): the store stopped, and what was acknowledged is there`,
    { outcome: 'unknown', cause: error },
  );
}
