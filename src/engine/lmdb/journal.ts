/**
 * The journal in its directory: one write and one sync make a batch durable.
 *
 * Segments are made before they are needed, full of zeros and synced, so that a batch changes
 * nothing of a file but its bytes and costs the disk a single step. A segment that is full is
 * closed by a mark that says that the next one is there. One that is folded may become another.
 */
import { closeSync, fdatasync, fdatasyncSync, openSync, readdirSync, writevSync } from 'node:fs';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { isNoSpace } from './failures.ts';
import { type Head, type JournalMark, NO_JOURNAL } from './format.ts';
import {
  encodeBatch,
  encodeEnd,
  ensureUnused,
  JOURNAL_BEGIN,
  type Position,
  readSegment,
  type SegmentId,
  segmentName,
  segmentOfName,
  truncatedSegment,
  type Written,
} from './journal-format.ts';
import type { Pace } from './pace.ts';
import { ensureRoom } from './room.ts';
import { SegmentMemory } from './segment-memory.ts';
import { SpareSegments, segmentOfSpare } from './spare-segments.ts';

/** Rooms of the segments: a store that is used little stays small. */
export interface SegmentRooms {
  readonly firstBytes: number;
  readonly mostBytes: number;
}

export const SEGMENT_ROOMS: SegmentRooms = { firstBytes: 2 ** 18, mostBytes: 2 ** 23 };

/** What is left of a segment when the next one is taken: enough for most batches. */
const REST = 1 / 8;
const ZEROS = new Uint8Array(2 ** 20);

interface Segment extends SegmentId {
  readonly fd: number;
  readonly room: number;
}

/** Where the journal of an owner begins. */
export function beginOf(epoch: number): JournalMark {
  return { epoch, segment: 1, ...JOURNAL_BEGIN };
}

export interface JournalOptions {
  readonly directory: string;
  readonly storeId: Bytes;
  readonly epoch: number;
  readonly rooms?: SegmentRooms | undefined;
}

export class Journal {
  readonly #options: JournalOptions;
  readonly #spares: SpareSegments;
  #segment: Segment;
  #next: Promise<Segment> | undefined;
  #position: Position = JOURNAL_BEGIN;
  #end = 0;
  #stuck = false;

  private constructor(options: JournalOptions, spares: SpareSegments, segment: Segment) {
    this.#options = options;
    this.#spares = spares;
    this.#segment = segment;
  }

  /** A journal whose first segment is there; nothing is in it. */
  static async create(options: JournalOptions): Promise<Journal> {
    const { mostBytes } = options.rooms ?? SEGMENT_ROOMS;
    const spares = new SpareSegments(options.directory, mostBytes);
    return new Journal(options, spares, await prepare(options, 1, spares));
  }

  /** Where a reader would begin who wants what is appended from now on. */
  get mark(): JournalMark {
    return { epoch: this.#segment.epoch, segment: this.#segment.segment, ...this.#position };
  }

  get bytes(): number {
    return this.#segment.room + this.#spares.bytes;
  }

  /** Whether it is time to go on to the next segment once a batch of so many bytes is written. */
  isFullAfter(bytes: number): boolean {
    return this.#end + bytes > this.#segment.room * (1 - REST);
  }

  /** The disk has no room for the next segment. It is asked again with every batch. */
  get isStuck(): boolean {
    return this.#stuck;
  }

  /** Resolves when the batch is on the disk; `here` keeps the thread until then. */
  async append(changes: Bytes, pace: Pace, here: boolean): Promise<void> {
    const { room } = this.#segment;
    const written = encodeBatch(this.#segment, room, this.#position, changes);
    await this.#write(written, (fd) =>
      here ? pace.here(() => fdatasyncSync(fd)) : pace.elsewhere(() => syncElsewhere(fd)),
    );
    if (this.#end > room / 2) void this.#prepareNext().catch(() => {});
  }

  /** Goes on in the next segment. */
  async rotate(): Promise<void> {
    const next = await this.#prepareNext();
    await this.#write(encodeEnd(this.#segment, this.#segment.room, this.#position));
    closeSync(this.#segment.fd);
    this.#segment = next;
    this.#next = undefined;
    this.#end = 0;
  }

  /** Takes away what stands before `mark`: it is folded. */
  async sweep({ epoch, segment }: JournalMark): Promise<void> {
    const { directory } = this.#options;
    for (const name of await readdir(directory)) {
      const found = segmentOfName(name);
      if (found?.epoch === epoch && found.segment < segment) await this.#spares.retire(name);
    }
  }

  /** Gives the disk back what is kept for later segments. */
  makeRoom(): Promise<void> {
    return this.#spares.drop();
  }

  async close(): Promise<void> {
    const next = await this.#next?.catch(() => undefined);
    if (next) closeSync(next.fd);
    closeSync(this.#segment.fd);
  }

  #prepareNext(): Promise<Segment> {
    this.#next ??= this.#prepare(this.#segment.segment + 1);
    return this.#next;
  }

  async #prepare(segment: number): Promise<Segment> {
    try {
      const prepared = await prepare(this.#options, segment, this.#spares);
      this.#stuck = false;
      return prepared;
    } catch (error) {
      this.#stuck = isNoSpace(error);
      this.#next = undefined;
      throw error;
    }
  }

  async #write(
    written: Written,
    sync: (fd: number) => Promise<void> | void = syncElsewhere,
  ): Promise<void> {
    const { fd } = this.#segment;
    const done = writevSync(fd, written.buffers as NodeJS.ArrayBufferView[], this.#end);
    if (done !== written.bytes) {
      throw Object.assign(new Error(`${done} of ${written.bytes} bytes were written`), {
        code: 'ENOSPC',
      });
    }
    const synced = sync(fd);
    if (synced) await synced;
    this.#end += written.bytes;
    this.#position = written.after;
  }
}

function syncElsewhere(fd: number): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    fdatasync(fd, (error) => (error ? reject(error) : resolve()));
  });
}

async function prepare(
  options: JournalOptions,
  segment: number,
  spares: SpareSegments,
): Promise<Segment> {
  const { directory, epoch, storeId, rooms = SEGMENT_ROOMS } = options;
  const room = Math.min(rooms.mostBytes, rooms.firstBytes * 2 ** (segment - 1));
  const path = join(directory, segmentName(epoch, segment));
  const spare = spares.take(room);
  if (spare === undefined) {
    // A disk that is full to the last byte would stop everything else as well.
    ensureRoom(directory, 2 * room);
    await makeBlank(path, 'wx', room);
  } else {
    await makeBlank(spare, 'r+', room);
    await rename(spare, path);
  }
  await syncEntries(directory);
  return { storeId, epoch, segment, room, fd: openSync(path, 'r+') };
}

async function makeBlank(path: string, flags: string, room: number): Promise<void> {
  const file = await open(path, flags, 0o600);
  try {
    await fill(file, room);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** As `syncDirectory` does, beside the loop: this happens while the store serves. */
async function syncEntries(directory: string): Promise<void> {
  const entries = await open(directory, 'r');
  try {
    await entries.sync();
  } finally {
    await entries.close();
  }
}

/** In steps, each on the disk before the next, so that nobody else's sync waits for all of it. */
async function fill(file: FileHandle, room: number): Promise<void> {
  for (let at = 0; at < room; at += ZEROS.length) {
    await file.write(ZEROS, 0, Math.min(ZEROS.length, room - at), at);
    await file.datasync();
  }
}

export interface Recovered {
  readonly batches: readonly Bytes[];
  readonly segments: number;
  readonly bytes: number;
  /** The last batch was begun and never acknowledged. */
  readonly unfinished: boolean;
}

/**
 * Reads what the journal holds beyond the tree, up to the segment of `until` where it is open, or
 * to its end. Throws on everything that a crash cannot explain. The batches stand in `memory` until
 * that begins anew.
 */
export function recover(
  directory: string,
  head: Head,
  until: JournalMark = NO_JOURNAL,
  memory: SegmentMemory = new SegmentMemory(),
): Recovered {
  const { epoch, segment: first } = head.journal;
  ensureNoneLater(directory, head);
  const batches: Bytes[] = [];
  let bytes = 0;
  let unfinished = false;
  let position: Position = head.journal;
  let segment = first;
  // Segments of an earlier owner are all there is of his journal, whatever their numbers.
  const own = until.segment > 0 && epoch === head.ownerEpoch;
  const end = own ? until.segment : Number.POSITIVE_INFINITY;
  for (let more = first > 0; more && segment < end; segment++) {
    const id = { storeId: head.storeId, epoch, segment };
    const file = memory.read(join(directory, segmentName(epoch, segment)));
    if (!file) throw truncatedSegment(id);
    const read = readSegment(file, id, position);
    for (const batch of read.batches) batches.push(batch);
    position = read.after;
    bytes += file.length;
    more = read.ended;
    unfinished = read.unfinished;
    if (!more) ensureUnusedAfter(directory, id, memory);
  }
  if (own) ensureReached(until, position);
  return { batches, segments: segment - first, bytes, unfinished };
}

/** A segment is made before it is needed, and used when the one before has its end. */
function ensureUnusedAfter(directory: string, last: SegmentId, memory: SegmentMemory): void {
  const next = { ...last, segment: last.segment + 1 };
  const file = memory.read(join(directory, segmentName(next.epoch, next.segment)));
  if (file) ensureUnused(file, next);
}

/** Who writes the journal knows where it stands; the disk must know as much. */
function ensureReached(until: JournalMark, { sequence, previous }: Position): void {
  if (sequence === until.sequence && previous === until.previous) return;
  throw new HoldfastError(
    'corrupt',
    `the journal ends at batch ${sequence}, but ${until.sequence} comes next. Nothing was dropped; ` +
      'keep the files, and restore a backup into a new directory',
  );
}

/** The data file of an older copy beside the journal of a later owner: changes would be lost. */
function ensureNoneLater(directory: string, head: Head): void {
  for (const name of readdirSync(directory)) {
    if ((segmentOfName(name)?.epoch ?? 0) <= head.ownerEpoch) continue;
    throw new HoldfastError(
      'corrupt',
      `${name} belongs to a later state than the data file beside it: was an older copy put here ` +
        'by hand? Nothing was dropped; put back the data file, or restore a backup',
    );
  }
}

/** Removes the segments of earlier owners, those of this one before `segment`, and spare ones. */
export async function sweepSegments(
  directory: string,
  epoch: number,
  segment: number,
): Promise<void> {
  for (const name of await readdir(directory)) {
    const spare = segmentOfSpare(name);
    const found = spare ?? segmentOfName(name);
    if (!found || found.epoch > epoch) continue;
    if (spare || found.epoch < epoch || found.segment < segment) await rm(join(directory, name));
  }
}
