/**
 * The durable store: a journal in front of a tree, one writer, many works per batch.
 *
 * Works queue up while a batch is under way; the next batch evaluates all of them in order, writes
 * what they changed to the journal, and one sync pays for all. Only then is the batch shown and
 * answered. What is in the journal stands in layers in memory, above the tree; a thread folds full
 * segments into the tree meanwhile.
 *
 * A batch is acknowledged only if the store is still ours *after* its sync. Who takes over claims
 * first and reads then: so he reads the batch, or we see his claim and acknowledge nothing. A write
 * or sync that failed finishes the store; a second try may report success for lost pages.
 */
import { setImmediate as endOfTurn } from 'node:timers/promises';
import { systemClock, systemRandom } from '../../base/system.ts';
import type { HoldfastError } from '../../model/errors.ts';
import type { Store, Table, TableReader } from '../../mvcc/table.ts';
import { ChangeMemory, FreePieces } from './change-memory.ts';
import { closedError, faultOf, isNoSpace, refusal, storageFailed } from './failures.ts';
import { fold, foldIn, gather } from './fold.ts';
import { Folder } from './folder.ts';
import { type Head, type JournalMark, NO_JOURNAL } from './format.ts';
import { beginOf, Journal, type SegmentRooms, sweepSegments } from './journal.ts';
import { type HashSecret, Probe, secretFrom } from './key-hash.ts';
import { Layer, type SealedBatch } from './layer.ts';
import { LayersReader } from './layers.ts';
import { Pace, type SyncPlace } from './pace.ts';
import type { Tree } from './tree.ts';
import { TreeRanges } from './tree-ranges.ts';
import { WorkTable } from './work-table.ts';

/**
 * What waits in memory for the tree before it is folded: much at once, because a page that is
 * written costs the same for one change as for ten.
 */
const FOLD_BYTES = 2 ** 26;
/** And before writers have to wait, too. */
const WAITING_BYTES_MAX = 2 ** 27;
/** A batch that has grown to this takes no more works. */
const BATCH_BYTES = 2 ** 24;

interface Work {
  run(table: Table): void;
  resolve(): void;
  reject(error: unknown): void;
}

/** What goes to the disk in one piece. */
interface Batch {
  readonly works: readonly Work[];
  readonly layer: Layer;
  readonly sealed: SealedBatch;
  /** It is the last one of its segment. */
  readonly rotates: boolean;
  /** And the last one of a layer that is to be folded then. */
  readonly folds: boolean;
  /** What evaluating it took; answering it takes its callers about as long. */
  readonly tookMs: number;
}

export interface StoreParts {
  readonly path: string;
  readonly tree: Tree;
  readonly rooms?: SegmentRooms | undefined;
  readonly syncs?: SyncPlace | undefined;
}

export class LmdbStore implements Store {
  readonly committed: TableReader;
  readonly #path: string;
  readonly #tree: Tree;
  readonly #journal: Journal;
  readonly #folder: Folder;
  readonly #foldBytes: number;
  readonly #secret: HashSecret = secretFrom(systemRandom);
  readonly #ranges = new TreeRanges(this.#secret);
  readonly #probe = new Probe(this.#secret);
  readonly #free = new FreePieces();
  /** What works read and write: all layers with the open batch. */
  readonly #open: TableReader;
  readonly #table: Table;
  readonly #newLayer = (): Layer => new Layer(this.#secret, new ChangeMemory(this.#free));
  /** What has come since the last fold was decided; behind it what that fold is busy with. */
  #layer = this.#newLayer();
  #layers: readonly Layer[] = [this.#layer];
  /** A batch has been sealed that ends its segment, and the next segment is not there yet. */
  #rotating = false;
  #rotated: Promise<void> | undefined;
  /** A layer has been closed for a fold that has not begun yet; and nothing is in its way now. */
  #foldDue = false;
  #foldReady = false;
  #fold: Promise<void> | undefined;
  #foldFull = false;
  #settling = false;
  #queue: Work[] = [];
  /** Those that have run on the open batch. */
  #works: Work[] = [];
  #running: Promise<void> | undefined;
  #writing = false;
  #soon = false;
  #evaluating = false;
  readonly #pace: Pace;
  #finished: HoldfastError | undefined;
  #condemned: HoldfastError | undefined;
  #closing: Promise<void> | undefined;
  /** Since the running code last gave way, the store was seen to be ours. */
  #looked = false;

  private constructor({ path, tree, rooms, syncs }: StoreParts, journal: Journal) {
    this.#pace = new Pace(systemClock, syncs);
    this.#path = path;
    this.#tree = tree;
    this.#journal = journal;
    this.#folder = new Folder({ path, ownerEpoch: tree.head.ownerEpoch });
    // Small segments are for trying what happens with many.
    this.#foldBytes = Math.min(FOLD_BYTES, rooms?.mostBytes ?? FOLD_BYTES);
    const layers = (): readonly Layer[] => this.#layers;
    const base = { layers, tree: tree.reader, ranges: this.#ranges };
    this.committed = new LayersReader({
      ...base,
      committed: true,
      probe: new Probe(this.#secret),
      check: () => this.#ensureReadable(),
    });
    this.#open = new LayersReader({
      ...base,
      committed: false,
      probe: this.#probe,
      check: () => this.#ensureEvaluating(),
    });
    this.#table = new WorkTable({
      reader: this.#open,
      layer: () => this.#layer,
      probe: this.#probe,
      check: () => this.#ensureEvaluating(),
    });
  }

  /** On a tree that is claimed: folds what an earlier owner left in his journal, begins a new one. */
  static async open(parts: StoreParts): Promise<LmdbStore> {
    const { path, tree, rooms } = parts;
    const { storeId, ownerEpoch: epoch } = tree.head;
    // Read first: a start that is refused for what it finds leaves no segment behind.
    const found = gather(tree, path, beginOf(epoch));
    const journal = await Journal.create({ directory: path, storeId, epoch, rooms });
    try {
      foldIn(tree, found);
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
    this.#lookNow();
  }

  #lookNow(): void {
    try {
      this.#tree.ensureOwned();
    } catch (error) {
      // Once the tree is closed nobody can tell any more.
      const failure = this.#closing ? closedError() : storageFailed(error);
      this.#finish(failure, []);
      throw failure;
    }
  }

  /**
   * The same, once for all that runs without giving way. For requests that were there before: what
   * is read until then comes from the tree of that look, so it is as if all had been answered then.
   */
  look(): void {
    if (this.#looked) return;
    // Another one may go on where this one cannot; not with damage.
    if (this.#finished?.code === 'unavailable') throw refusal(this.#finished);
    this.#lookNow();
    this.#looked = true;
    queueMicrotask(() => {
      this.#looked = false;
    });
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
      if (this.#writing) this.#evaluateSoon();
      this.#running ??= this.#run();
    });
  }

  /**
   * While works run: the disk has nothing to do, or will have soon, or it is the loop's turn. What
   * has run had better be on its way while the others run.
   */
  get isPressed(): boolean {
    return this.#layer.openBytes >= BATCH_BYTES || this.#pace.isOver;
  }

  /** Folds everything into the tree now; first what was committed before, and what came of it. */
  async settle(): Promise<void> {
    for (const settling of [false, true]) {
      this.#settling = settling;
      await this.commit(() => {});
      await this.#rotated;
      await this.#fold;
    }
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
    const probe = new Probe(this.#secret);
    const reader = new LayersReader({ layers: () => layers, tree, committed: true, probe, check });
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
    await this.#rotated;
    await this.#fold;
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
    // Never from a tree that somebody else goes on with: it would not fit the layers above it.
    this.look();
  }

  #ensureEvaluating(): void {
    if (!this.#evaluating) throw new Error('a table is only open while its work runs');
  }

  /**
   * Batch after batch. Where syncs are short this thread waits for each, and what was asked for
   * meanwhile is the next. Else while one is on its way to the disk, the next one is evaluated; the
   * disk gets it before the former is shown and answered, so that neither waits for the other. With
   * little to evaluate it waits for those who are answered, so that one sync pays for all.
   */
  async #run(): Promise<void> {
    // Let the caller's turn end first: what it submits together is committed together.
    await Promise.resolve();
    let durable: Batch | undefined;
    while (durable || this.#queue.length > 0 || this.#works.length > 0) {
      if (durable && (this.#syncsHere || durable.tookMs * 2 < this.#pace.syncMs)) {
        this.#publish(durable);
        durable = undefined;
        await endOfTurn();
      }
      const here = this.#syncsHere;
      // What has run already must not wait for what has not.
      if (here || this.#works.length === 0) this.#evaluate(this.#pace.turnMs(here));
      const batch = this.#seal();
      const written = batch && this.#write(batch, here);
      if (durable) this.#publish(durable);
      durable = batch && (await written) ? batch : undefined;
      if (durable?.rotates) this.#rotated = this.#rotate(durable);
    }
    this.#running = undefined;
  }

  /** Whether this thread waits for the next sync. Not beside one that writes many pages. */
  get #syncsHere(): boolean {
    return this.#pace.waitsHere && !this.#folder.isWriting;
  }

  /** Runs works that wait on the open batch, as many as fit into the time. */
  #evaluate(forMs: number): void {
    if (this.#finished) return;
    this.#pace.begin(forMs);
    const queue = this.#queue;
    this.#queue = [];
    let next = 0;
    this.#evaluating = true;
    try {
      // What works find must be the newest: what they write on it is on the disk before the next look.
      this.#tree.ensureOwned();
      while (next < queue.length && (next === 0 || !this.isPressed)) {
        const work = queue[next++]!;
        this.#works.push(work);
        work.run(this.#table);
      }
      if (next < queue.length) this.#queue = queue.slice(next).concat(this.#queue);
    } catch (error) {
      this.#queue = queue.slice(next);
      // Works that met another owner's changes have found no damage.
      this.#finish(this.#tree.replaced ?? faultOf(error), this.#works.splice(0));
    } finally {
      this.#evaluating = false;
      this.#pace.end();
    }
  }

  /**
   * While the disk is busy: what comes meanwhile is evaluated at the end of its turn. Once the disk
   * may be done the loop looks first whether it is: else one batch would take all that waits, and
   * while that is written there would be nothing to evaluate.
   */
  #evaluateSoon(): void {
    if (this.#soon) return;
    this.#soon = true;
    const { leftMs } = this.#pace;
    if (leftMs > 0) queueMicrotask(() => this.#evaluateMeanwhile(leftMs));
    else setImmediate(() => this.#evaluateMeanwhile(this.#pace.syncMs));
  }

  #evaluateMeanwhile(forMs: number): void {
    this.#soon = false;
    const hasRoom = this.#layer.openBytes < BATCH_BYTES;
    if (!this.#writing || !hasRoom || this.#queue.length === 0) return;
    this.#evaluate(forMs);
    if (this.#queue.length > 0) this.#evaluateSoon();
  }

  /** Closes the open batch; nothing where nothing has run. */
  #seal(): Batch | undefined {
    if (this.#works.length === 0) return undefined;
    const works = this.#works;
    this.#works = [];
    const tookMs = this.#pace.takeTook();
    const layer = this.#layer;
    const sealed = layer.seal();
    const isFull = !this.#rotating && this.#journal.isFullAfter(sealed.bytes.length);
    const rotates = this.#settling || isFull;
    const enough = this.#settling || layer.bytes >= this.#foldBytes;
    const folds = rotates && enough && !this.#foldDue && !this.#fold;
    this.#settling = false;
    this.#rotating ||= rotates;
    if (folds) {
      // What comes next stands in the next segment, and so in another layer.
      this.#foldDue = true;
      this.#layer = this.#newLayer();
      this.#layers = [this.#layer, ...this.#layers];
    }
    return { works, layer, sealed, rotates, folds, tookMs };
  }

  /** Resolves when the batch is on the disk. False: it is not, or the store is no longer ours. */
  async #write({ works, sealed: { bytes } }: Batch, here: boolean): Promise<boolean> {
    if (!here) {
      this.#writing = true;
      this.#pace.writes();
      // What is left from before, and whoever will be answered now and asks again.
      this.#evaluateSoon();
    }
    try {
      await this.#rotated;
      if (this.#finished) throw refusal(this.#finished);
      if (bytes.length > 0) await this.#journal.append(bytes, this.#pace, here);
      this.#tree.ensureOwned();
      return true;
    } catch (error) {
      this.#finish(storageFailed(error), works);
      return false;
    } finally {
      this.#writing = false;
    }
  }

  #publish({ works, layer, sealed }: Batch): void {
    layer.publish(sealed);
    for (const work of works) work.resolve();
  }

  /**
   * The next segment; and the layer that ended with this batch, or with one before it, may be
   * folded now. Without room for another segment this one goes on, and the next batch tries again.
   */
  async #rotate({ folds }: Batch): Promise<void> {
    if (folds) this.#foldReady = true;
    try {
      await this.#journal.rotate();
    } catch (error) {
      if (!isNoSpace(error)) this.#finish(storageFailed(error), []);
      return;
    } finally {
      this.#rotating = false;
    }
    if (this.#foldReady) this.#beginFold();
    else if (this.#layer.bytes > WAITING_BYTES_MAX) await this.#fold;
  }

  #beginFold(): void {
    this.#foldDue = false;
    this.#foldReady = false;
    this.#fold = this.#foldUntil(this.#journal.mark).finally(() => {
      this.#fold = undefined;
    });
  }

  async #foldUntil(mark: JournalMark): Promise<void> {
    try {
      this.#tree.refresh(await this.#folder.fold(mark));
    } catch (error) {
      // Without room the journal and the layers stay as they are, and the next fold tries again.
      this.#foldFull = isNoSpace(error);
      if (this.#foldFull) await this.#journal.makeRoom().catch(() => {});
      else this.#finish(storageFailed(error), []);
      return;
    }
    this.#foldFull = false;
    this.#ranges.clear();
    for (const layer of this.#layers) if (layer !== this.#layer) layer.release();
    this.#layers = [this.#layer];
    // What cannot be removed now is removed at the next fold, or start.
    await this.#journal.sweep(mark).catch(() => {});
  }

  /** Stops for good: what was in the failed batch may have happened, what waits has not. */
  #finish(failure: HoldfastError, works: readonly Work[]): void {
    this.#finished ??= failure;
    const waiting = [...this.#works, ...this.#queue];
    this.#works = [];
    this.#queue = [];
    for (const work of works) work.reject(failure);
    for (const work of waiting) work.reject(refusal(failure));
  }
}
