/**
 * The durable store: a journal in front of a tree, one writer, many works per batch.
 *
 * Works queue up while a batch is under way; the next batch evaluates all of them in order, writes
 * what they changed to the journal, and one sync pays for all. Only then is the batch shown and
 * answered. What is in the journal stands in layers in memory, above the tree; a thread folds full
 * segments into the tree meanwhile.
 *
 * A batch is acknowledged only if the store is still ours *after* its sync. Whoever takes over
 * claims first and reads the journal then: so either he reads the batch, or we see his claim and
 * acknowledge nothing.
 *
 * A write or sync that failed finishes the store: a sync that failed once may report success the
 * next time although the pages are lost, so it is never tried again.
 */
import type { Bytes } from '../../base/bytes.ts';
import type { HoldfastError } from '../../model/errors.ts';
import type { Store, Table, TableReader } from '../../mvcc/table.ts';
import { closedError, faultOf, isNoSpace, refusal, storageFailed } from './failures.ts';
import { fold } from './fold.ts';
import { Folder } from './folder.ts';
import { type Head, type JournalMark, NO_JOURNAL } from './format.ts';
import { Journal, type SegmentRooms, sweepSegments } from './journal.ts';
import { Layer } from './layer.ts';
import { Gaps, KeyNames, LayersReader } from './layers.ts';
import type { Tree } from './tree.ts';

/**
 * What waits in memory for the tree before it is folded: much at once, because a page that is
 * written costs the same for one change as for ten.
 */
const FOLD_BYTES = 2 ** 25;
/** And before writers have to wait, too. */
const WAITING_BYTES_MAX = 2 ** 27;

interface Work {
  run(table: Table): void;
  resolve(): void;
  reject(error: unknown): void;
}

export interface StoreParts {
  readonly path: string;
  readonly tree: Tree;
  readonly rooms?: SegmentRooms | undefined;
}

export class LmdbStore implements Store {
  readonly committed: TableReader;
  readonly #path: string;
  readonly #tree: Tree;
  readonly #journal: Journal;
  readonly #folder: Folder;
  readonly #foldBytes: number;
  readonly #gaps = new Gaps();
  readonly #names = new KeyNames();
  /** What works read and write: all layers with the open batch. */
  readonly #open: TableReader;
  /** What has come since the last fold began; behind it what that fold is busy with. */
  #layer = new Layer();
  #layers: readonly Layer[] = [this.#layer];
  #fold: Promise<void> | undefined;
  #foldFull = false;
  #settling = false;
  #queue: Work[] = [];
  #running: Promise<void> | undefined;
  #evaluating = false;
  #finished: HoldfastError | undefined;
  #condemned: HoldfastError | undefined;
  #closing: Promise<void> | undefined;

  private constructor({ path, tree, rooms }: StoreParts, journal: Journal) {
    this.#path = path;
    this.#tree = tree;
    this.#journal = journal;
    this.#folder = new Folder({ path, ownerEpoch: tree.head.ownerEpoch });
    // Small segments are for trying what happens with many.
    this.#foldBytes = Math.min(FOLD_BYTES, rooms?.mostBytes ?? FOLD_BYTES);
    const layers = (): readonly Layer[] => this.#layers;
    const base = { layers, tree: tree.reader, gaps: this.#gaps };
    this.committed = new LayersReader({
      ...base,
      committed: true,
      check: () => this.#ensureReadable(),
    });
    this.#open = new LayersReader({
      ...base,
      committed: false,
      names: this.#names,
      check: () => this.#ensureEvaluating(),
    });
  }

  /** On a tree that is claimed: folds what an earlier owner left in his journal, begins a new one. */
  static async open(parts: StoreParts): Promise<LmdbStore> {
    const { path, tree, rooms } = parts;
    const { storeId, ownerEpoch: epoch } = tree.head;
    const journal = await Journal.create({ directory: path, storeId, epoch, rooms });
    try {
      fold(tree, path, journal.mark);
    } catch (error) {
      await journal.close();
      throw error;
    }
    await sweepSegments(path, epoch, journal.mark.segment);
    return new LmdbStore(parts, journal);
  }

  get head(): Head {
    return this.#tree.head;
  }

  /**
   * Throws when another process has claimed the store since. A commit notices by itself; what is
   * answered from memory must ask.
   */
  ensureOwned(): void {
    if (this.#finished) throw refusal(this.#finished);
    try {
      this.#tree.ensureOwned();
    } catch (error) {
      this.#finish(storageFailed(error), []);
      throw error;
    }
  }

  /** Why the store has stopped, if it has. */
  get failure(): HoldfastError | undefined {
    return this.#finished;
  }

  /** The disk has no room for another segment; what is left of this one is for making room. */
  get full(): boolean {
    return this.#journal.isStuck || this.#foldFull;
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

  /** Folds everything into the tree now. */
  async settle(): Promise<void> {
    this.#settling = true;
    await this.commit(() => {});
    await this.#fold;
  }

  snapshot(): TableReader & { release(): void } {
    this.#ensureReadable();
    const tree = this.#tree.snapshot();
    const layers = this.#layers.map((layer) => layer.copy());
    let released = false;
    const check = (): void => {
      this.#ensureReadable();
      if (released) throw new Error('this snapshot has been released');
    };
    const reader = new LayersReader({ layers: () => layers, tree, committed: true, check });
    return {
      get: (key) => reader.get(key),
      scan: (start, end, visit, options) => reader.scan(start, end, visit, options),
      release: () => {
        released = true;
        tree.release();
      },
    };
  }

  size(): { readonly totalBytes: number; readonly inUseBytes: number } {
    if (this.#closing) throw closedError();
    const { totalBytes, inUseBytes } = this.#tree.size();
    const waiting = this.#layers.reduce((bytes, layer) => bytes + layer.bytes, 0);
    return { totalBytes: totalBytes + this.#journal.bytes, inUseBytes: inUseBytes + waiting };
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

  /** A store that ended well leaves no journal; one that did not leaves it for the next start. */
  async #close(): Promise<void> {
    await this.#running;
    await this.#fold?.catch(() => {});
    await this.#journal.close();
    try {
      if (!this.#finished) await this.#foldAll();
    } catch {
      // Nothing is lost: the next start folds what is left, or says what is wrong with it.
    } finally {
      await this.#folder.close();
      await this.#tree.close();
    }
  }

  async #foldAll(): Promise<void> {
    if (this.#folder.isRunning) await this.#folder.fold(NO_JOURNAL);
    else fold(this.#tree, this.#path, NO_JOURNAL);
    await sweepSegments(this.#path, this.#tree.head.ownerEpoch, Number.POSITIVE_INFINITY);
  }

  /** Reads answer from what is committed. */
  #ensureReadable(): void {
    if (this.#evaluating) throw new Error('a work reads its own table, not the committed one');
    if (this.#condemned) throw this.#condemned;
    if (this.#closing) throw closedError();
  }

  #ensureEvaluating(): void {
    if (!this.#evaluating) throw new Error('a table is only open while its work runs');
  }

  async #run(): Promise<void> {
    // Let the caller's turn end first: what it submits together is committed together.
    await Promise.resolve();
    while (this.#queue.length > 0 && !this.#finished) await this.#commitBatch();
    this.#running = undefined;
  }

  async #commitBatch(): Promise<void> {
    let works: Work[] = [];
    try {
      if (this.#settling) await this.#fold;
      if (this.#journal.isFull || this.#settling) await this.#rotate();
      works = this.#queue;
      this.#queue = [];
      const fault = this.#evaluate(works);
      if (fault) throw fault;
      const { batch } = this.#layer;
      if (batch.length > 0) await this.#journal.append(batch);
      this.#tree.ensureOwned();
      this.#layer.publish();
      for (const work of works) work.resolve();
    } catch (error) {
      this.#layer.takeBack();
      this.#finish(storageFailed(error), works);
    }
  }

  /** Runs the works on one table. Answers the fault that made it take everything back. */
  #evaluate(works: readonly Work[]): HoldfastError | undefined {
    const table: Table = {
      // What the engine keeps for itself is not in the rules' table.
      get: (key) => (isOwn(key) ? undefined : this.#open.get(key)),
      scan: (start, end, visit, options) => this.#open.scan(start, end, visit, options),
      put: (key, value) => this.#set(key, value),
      remove: (key) => this.#set(key, undefined),
      cut: (start, end) => {
        this.#ensureEvaluating();
        this.#layer.cut(start, end);
      },
    };
    this.#evaluating = true;
    try {
      for (const work of works) work.run(table);
      return undefined;
    } catch (error) {
      this.#layer.takeBack();
      return faultOf(error);
    } finally {
      this.#evaluating = false;
    }
  }

  #set(key: Bytes, value: Bytes | undefined): void {
    this.#ensureEvaluating();
    if (isOwn(key)) throw new Error('this key belongs to the engine');
    this.#layer.set(this.#names.of(key), key, value);
  }

  /** The next segment; and if nothing is being folded, all before it may be. */
  async #rotate(): Promise<void> {
    const enough = this.#settling || this.#layer.bytes >= this.#foldBytes;
    this.#settling = false;
    await this.#journal.rotate();
    if (this.#layer.bytes > WAITING_BYTES_MAX) await this.#fold;
    if (!enough || this.#fold || this.#finished) return;
    this.#layer = new Layer();
    this.#layers = [this.#layer, ...this.#layers];
    this.#fold = this.#foldUntil(this.#journal.mark).finally(() => {
      this.#fold = undefined;
    });
  }

  async #foldUntil(mark: JournalMark): Promise<void> {
    try {
      await this.#folder.fold(mark);
      this.#tree.refresh();
    } catch (error) {
      // Without room the journal and the layers stay as they are, and the next fold tries again.
      this.#foldFull = isNoSpace(error);
      if (!this.#foldFull) this.#finish(storageFailed(error), []);
      return;
    }
    this.#foldFull = false;
    this.#gaps.clear();
    this.#layers = [this.#layer];
    // What cannot be removed now is removed at the next fold, or start.
    await sweepSegments(this.#path, mark.epoch, mark.segment).catch(() => {});
  }

  /** Stops for good: what was in the failed batch may have happened, what waits has not. */
  #finish(failure: HoldfastError, works: readonly Work[]): void {
    this.#finished ??= failure;
    const waiting = this.#queue;
    this.#queue = [];
    for (const work of works) work.reject(failure);
    for (const work of waiting) work.reject(refusal(failure));
  }
}

function isOwn(key: Bytes): boolean {
  return key.length === 0 || key[0] === 0;
}
