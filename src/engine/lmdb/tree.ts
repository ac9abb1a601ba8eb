/**
 * The tree on the disk, an LMDB file: what the journal was folded into.
 *
 * Every commit first reads the head record inside its write transaction. If the owner epoch is not
 * the one this process claimed, another process has claimed the directory and this one is fenced
 * out: the store's own rule is the one it offers its users. A commit that fails finishes the tree:
 * a sync that failed once may report success the next time although the pages are lost, so it is
 * never tried again.
 *
 * LMDB may take an older root for the newest (`base/lmdb-note.ts`). So each commit looks at the roots
 * themselves, under LMDB's lock; no look goes behind what this process has seen; whoever finds the
 * note too old sets it right; and a claim is made in two commits, so that the former owner meets it in
 * whichever of the two roots he is shown.
 */
import { createHash } from 'node:crypto';
import type { Bytes } from '../../base/bytes.ts';
import { goesOnFromNewest, NOTE_ATTEMPTS, raiseNote } from '../../base/lmdb-note.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Table, TableReader } from '../../mvcc/table.ts';
import { Batch, makeWorkspace, type Workspace } from './batch.ts';
import { claimedElsewhere, fencedOut, RootSetBack, storageFailed } from './failures.ts';
import {
  chainAfter,
  decodeHead,
  digestOf,
  encodeCommit,
  encodeHead,
  encodeOwner,
  HEAD_KEY,
  type Head,
  type JournalMark,
  OWNER_KEY,
  type OwnerRecord,
  ringKey,
  seal,
} from './format.ts';
import type { Native } from './native.ts';
import { NativeReader, readRecord } from './reader.ts';
import { ensureRoom } from './room.ts';

const sha256 = (bytes: Bytes): Bytes => new Uint8Array(createHash('sha256').update(bytes).digest());

const NOTHING: Bytes = new Uint8Array(0);

/** More than the pages from the root to the head and to the list of free pages. */
const PATHS_BYTES = 2 ** 18;

/** Which state of the store a claim is meant for. */
export type Seen = Pick<Head, 'sequence' | 'ownerEpoch'>;

export class Tree {
  readonly reader: TableReader;
  readonly #native: Native;
  #workspace: Workspace = makeWorkspace();
  #head: Head;
  /** The number of the newest commit that this process has made or seen. */
  #newest: number;
  /** The head record as it was when this process was last seen to own the store. */
  #ours: Bytes = NOTHING;
  #size: { totalBytes: number; inUseBytes: number } | undefined;

  private constructor(native: Native, head: Head) {
    this.#native = native;
    this.#head = head;
    this.#newest = head.sequence;
    this.reader = new NativeReader(native, () => {});
  }

  /**
   * Takes the directory over for `owner`: a compare-and-set on the head record. `seen` is of the head
   * as it was scrubbed, or undefined for a directory without a store, which gets `fresh`. Throws
   * `store-in-use` when somebody else was faster.
   */
  static claim(native: Native, seen: Seen | undefined, fresh: Head, owner: OwnerRecord): Tree {
    const tree = new Tree(native, fresh);
    const record = encodeOwner(owner);
    ensureRoomForPaths(native.directory);
    tree.#transact(() => {
      const now = readHead(native);
      if (now?.sequence !== seen?.sequence || now?.ownerEpoch !== seen?.ownerEpoch) {
        throw claimedElsewhere();
      }
      native.putSync(OWNER_KEY, seal(OWNER_KEY, record));
      return tree.#writeHead(record, now ? { ...now, ownerEpoch: now.ownerEpoch + 1 } : fresh);
    });
    // Now the root before it is a claimed one, too.
    tree.#transact(() => tree.#evaluate(() => {}, tree.head.journal));
    return tree;
  }

  /** The tree as another thread of the owner sees it. */
  static join(native: Native, ownerEpoch: number): Tree {
    const head = readNewest(native, native.getStats().lastTxnId);
    if (head?.ownerEpoch !== ownerEpoch) throw fencedOut();
    return new Tree(native, head);
  }

  /** The head as of the last commit here. */
  get head(): Head {
    return this.#head;
  }

  /** Throws when another process has claimed the store since. */
  ensureOwned(): void {
    // The package reads on in an older view until the turn ends; a process that was stopped in the
    // middle of a turn would find itself the owner there.
    this.#native.resetReadTxn();
    // Every commit of anybody changes this record: while it is the same, so is the owner.
    const found = this.#native.getBinaryFast(HEAD_KEY);
    if (found && isSame(found, this.#native.lastSize, this.#ours)) return;
    const now = readNewest(this.#native, this.#newest);
    if (now?.ownerEpoch !== this.#head.ownerEpoch) throw fencedOut();
    this.#newest = now.sequence;
    this.#ours = seal(HEAD_KEY, encodeHead(now));
  }

  /** Why this process owns the store no longer, if that is so. */
  get replaced(): HoldfastError | undefined {
    try {
      this.ensureOwned();
      return undefined;
    } catch (error) {
      return storageFailed(error);
    }
  }

  /** Another thread has made commit `sequence`: what this one remembers of the tree is too old. */
  refresh(sequence: number): void {
    this.#newest = Math.max(this.#newest, sequence);
    this.#ours = NOTHING;
    this.ensureOwned();
    this.#head = readHead(this.#native)!;
    this.#size = undefined;
    this.#workspace = makeWorkspace();
  }

  /**
   * One commit: runs `work` and says where the journal goes on from it. All of it is on the disk
   * when this returns. An exception of `work` takes everything back.
   */
  fold(work: (table: Table) => void, journal: JournalMark): void {
    ensureRoomForPaths(this.#native.directory);
    this.#transact(() => this.#evaluate(work, journal));
  }

  snapshot(): TableReader & { release(): void } {
    const transaction = this.#native.useReadTransaction();
    let released = false;
    const reader = new NativeReader(this.#native, () => {}, transaction);
    return {
      get: (key) => reader.get(key),
      scan: (start, end, visit, options) => reader.scan(start, end, visit, options),
      release: () => {
        if (!released) transaction.done();
        released = true;
      },
    };
  }

  size(): { readonly totalBytes: number; readonly inUseBytes: number } {
    this.#size ??= this.#measure();
    return this.#size;
  }

  close(): Promise<void> {
    return this.#native.close();
  }

  #measure(): { totalBytes: number; inUseBytes: number } {
    const stats = this.#native.getStats();
    const pages = stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages;
    return {
      totalBytes: (stats.lastPageNumber + 1) * stats.pageSize,
      inUseBytes: (pages + 2) * stats.pageSize,
    };
  }

  /** One LMDB transaction; an exception takes it back. When it returns all is on the disk. */
  #transact(change: () => Head): void {
    for (let attempt = 1; ; attempt++) {
      try {
        this.#attempt(change);
        return;
      } catch (error) {
        if (!(error instanceof RootSetBack) || attempt === NOTE_ATTEMPTS) throw error;
      }
    }
  }

  #attempt(change: () => Head): void {
    let refused: { readonly error: unknown } | undefined;
    const guarded = (): Head => {
      try {
        this.#ensureNewest();
        return change();
      } catch (error) {
        refused = { error };
        throw error;
      }
    };
    try {
      this.#head = this.#native.transactionSync(guarded);
      this.#newest = this.#head.sequence;
      this.#ours = NOTHING;
    } catch (error) {
      throw refused ? refused.error : storageFailed(error);
    } finally {
      this.#native.resetReadTxn();
      this.#size = undefined;
    }
  }

  /** In a transaction: nobody else writes a root meanwhile. */
  #ensureNewest(): void {
    // The package runs the work also when LMDB has refused to begin.
    if (this.#native.getWriteTxnId() === 0) {
      throw new HoldfastError('storage-failed', 'LMDB began no transaction');
    }
    if (!goesOnFromNewest(this.#native)) throw new RootSetBack();
  }

  #evaluate(work: (table: Table) => void, journal: JournalMark): Head {
    const head = readHead(this.#native);
    if (head?.ownerEpoch !== this.#head.ownerEpoch) throw fencedOut();
    const batch = new Batch(this.#native, this.#workspace, head);
    work(batch);
    const { writes, records, sum } = batch;
    return this.#writeHead(writes, { ...head, records, sum, journal });
  }

  /** Ends the open transaction: `writes` is what it wrote, in short. */
  #writeHead(writes: Bytes, base: Head): Head {
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
    return head;
  }
}

function readHead(native: Native): Head | undefined {
  const bytes = readRecord(native, HEAD_KEY);
  return bytes && decodeHead(bytes);
}

/** The head as of commit `newest` or a later one; undefined when there is none any more. */
function readNewest(native: Native, newest: number): Head | undefined {
  let head: Head | undefined;
  for (let attempt = 1; attempt <= NOTE_ATTEMPTS; attempt++) {
    if (attempt > 1) raiseNote(native);
    native.resetReadTxn();
    head = readHead(native);
    if (head && head.sequence >= newest) return head;
  }
  if (head) throw new RootSetBack();
  return undefined;
}

/**
 * LMDB is not asked on a disk that has no room: what it says of a page that is refused runs past the
 * end of its buffer, which can end the process.
 */
function ensureRoomForPaths(directory: string): void {
  try {
    ensureRoom(directory, PATHS_BYTES);
  } catch (error) {
    throw storageFailed(error, 'rejected');
  }
}

function isSame(found: Bytes, length: number, known: Bytes): boolean {
  if (length !== known.length) return false;
  for (let i = 0; i < length; i++) if (found[i] !== known[i]) return false;
  return true;
}
