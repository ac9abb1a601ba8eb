/**
 * The journal on disk: batches of changes, one after the other, in segments of zeroed files.
 *
 * A batch is written in parts. Each part is one sector of head and up to 112 sectors of changes;
 * the head carries a checksum of itself and of every sector that follows. A disk writes a sector
 * whole or not at all, so after a crash each sector of the last batch is either as it was meant or
 * still blank: then the batch was never acknowledged, and is left out. A sector that is neither was
 * changed by something else, and nothing behind it can be trusted: that is damage, never skipped.
 * So is anything that stands behind a batch that is not whole: it was begun when that one was.
 * A file is blank, and that is on the disk, before it has the name of a segment, and is not written
 * twice under it; so nothing old can be taken for something new.
 */
import { crc32 } from 'node:zlib';
import {
  type Bytes,
  concatBytes,
  equalBytes,
  getUint32,
  getUint48,
  putUint32,
  putUint48,
} from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';

export const SECTOR = 512;
const MAGIC = 0x48464a31;
const SUMS_AT = 64;
const PART_SECTORS = (SECTOR - SUMS_AT) / 4;
const PART_BYTES = PART_SECTORS * SECTOR;

const CHANGES = 1;
/** The journal goes on in the next segment, which was there before this was written. */
const END = 2;

/** Which segment this is, and what it must be told from. */
export interface SegmentId {
  readonly storeId: Bytes;
  /** Of the owner who wrote it. */
  readonly epoch: number;
  readonly segment: number;
}

/** Where a journal goes on: the number of the next batch, and the checksum of the head before. */
export interface Position {
  readonly sequence: number;
  readonly previous: number;
}

export const JOURNAL_BEGIN: Position = { sequence: 1, previous: 0 };

/** What was written: buffers for one write, and where the journal stands after it. */
export interface Written {
  readonly buffers: readonly Bytes[];
  readonly bytes: number;
  readonly after: Position;
}

/** `room` is the size the file was given before it was used. */
export function encodeBatch(id: SegmentId, room: number, at: Position, changes: Bytes): Written {
  return encode(id, room, at, changes, CHANGES);
}

export function encodeEnd(id: SegmentId, room: number, at: Position): Written {
  return encode(id, room, at, new Uint8Array(0), END);
}

function encode(id: SegmentId, room: number, at: Position, payload: Bytes, kind: number): Written {
  const buffers: Bytes[] = [];
  const parts = Math.max(1, Math.ceil(payload.length / PART_BYTES));
  let bytes = 0;
  let { previous } = at;
  for (let part = 0; part < parts; part++) {
    const piece = payload.subarray(part * PART_BYTES, (part + 1) * PART_BYTES);
    const rest = piece.length % SECTOR;
    const padded = rest === 0 ? [piece] : [piece, new Uint8Array(SECTOR - rest)];
    const head = encodeHead(id, room, { sequence: at.sequence, previous }, part, parts, kind);
    putUint32(head, 52, piece.length);
    sealHead(head, padded);
    previous = getUint32(head, 0);
    for (const buffer of [head, ...padded]) {
      bytes += buffer.length;
      if (buffer.length > 0) buffers.push(buffer);
    }
  }
  return { buffers, bytes, after: { sequence: at.sequence + 1, previous } };
}

function encodeHead(
  id: SegmentId,
  room: number,
  at: Position,
  part: number,
  parts: number,
  kind: number,
): Bytes {
  const head = new Uint8Array(SECTOR);
  putUint32(head, 4, MAGIC);
  head.set(id.storeId, 8);
  putUint48(head, 24, id.epoch);
  putUint48(head, 30, id.segment);
  putUint48(head, 36, at.sequence);
  putUint32(head, 42, part);
  putUint32(head, 46, parts);
  head[50] = kind;
  putUint32(head, 56, at.previous);
  putUint32(head, 60, room);
  return head;
}

/** The checksums of the sectors, then that of the head itself. */
function sealHead(head: Bytes, [piece, padding]: readonly Bytes[]): void {
  const whole = Math.floor(piece!.length / SECTOR);
  for (let sector = 0; sector < whole; sector++) {
    const start = sector * SECTOR;
    putUint32(head, SUMS_AT + sector * 4, crc32(piece!.subarray(start, start + SECTOR)));
  }
  if (padding) {
    const sum = crc32(padding, crc32(piece!.subarray(whole * SECTOR)));
    putUint32(head, SUMS_AT + whole * 4, sum);
  }
  putUint32(head, 0, crc32(head.subarray(4)));
}

interface Head extends SegmentId {
  readonly sum: number;
  readonly sequence: number;
  readonly part: number;
  readonly parts: number;
  readonly kind: number;
  readonly bytes: number;
  readonly previous: number;
  readonly room: number;
}

/** The head in a sector whose checksum is right; undefined: this is none. */
function decodeHead(sector: Bytes): Head | undefined {
  if (sector.length < SECTOR || getUint32(sector, 4) !== MAGIC) return undefined;
  const sum = getUint32(sector, 0);
  if (crc32(sector.subarray(4)) !== sum) return undefined;
  if (getUint32(sector, 52) > PART_BYTES) return undefined;
  return {
    sum,
    storeId: sector.slice(8, 24),
    epoch: getUint48(sector, 24),
    segment: getUint48(sector, 30),
    sequence: getUint48(sector, 36),
    part: getUint32(sector, 42),
    parts: getUint32(sector, 46),
    kind: sector[50]!,
    bytes: getUint32(sector, 52),
    previous: getUint32(sector, 56),
    room: getUint32(sector, 60),
  };
}

export interface ReadSegment {
  /** The changes of each batch, in order. */
  readonly batches: readonly Bytes[];
  readonly after: Position;
  /** The journal goes on in the next segment. */
  readonly ended: boolean;
  /** A batch was begun and not finished: it was never acknowledged. */
  readonly unfinished: boolean;
}

/** Reads a segment from its beginning. Throws on everything that a crash does not explain. */
export function readSegment(file: Bytes, id: SegmentId, from: Position): ReadSegment {
  return new SegmentReader(file, id, from).read();
}

class SegmentReader {
  readonly #file: Bytes;
  readonly #id: SegmentId;
  #position: Position;
  #at = 0;
  /** Something of the present batch is there. */
  #begun = false;

  constructor(file: Bytes, id: SegmentId, from: Position) {
    this.#file = file;
    this.#id = id;
    this.#position = from;
  }

  read(): ReadSegment {
    const batches: Bytes[] = [];
    let ended = false;
    for (let batch = this.#batch(); batch; batch = this.#batch()) {
      ended = batch.kind === END;
      if (ended) break;
      batches.push(batch.changes);
    }
    this.#ensureBlank(ended ? 'something follows its end' : `batch ${this.#sequence} has gone`);
    return { batches, after: this.#position, ended, unfinished: !ended && this.#begun };
  }

  get #sequence(): number {
    return this.#position.sequence;
  }

  /**
   * The next batch if it is whole. Otherwise it was begun and never acknowledged, or there is none;
   * then `#at` is behind all that may be of it.
   */
  #batch(): { readonly kind: number; readonly changes: Bytes } | undefined {
    const pieces: Bytes[] = [];
    let parts = Number.POSITIVE_INFINITY;
    let previous: number | undefined = this.#position.previous;
    let last: Head | undefined;
    this.#begun = false;
    for (let part = 0; part < parts && this.#at < this.#file.length; part++) {
      last = this.#head(part, previous);
      const piece = last ? this.#piece(last) : this.#strayPiece();
      if (piece) pieces.push(piece);
      parts = last?.parts ?? parts;
      previous = last?.sum;
    }
    if (!last || pieces.length < parts) return undefined;
    this.#position = { sequence: last.sequence + 1, previous: last.sum };
    return { kind: last.kind, changes: pieces.length === 1 ? pieces[0]! : concatBytes(...pieces) };
  }

  /** The head at `#at`; undefined when it is still blank. `previous` is unknown behind a blank one. */
  #head(part: number, previous: number | undefined): Head | undefined {
    const at = this.#at;
    const sector = this.#file.subarray(at, at + SECTOR);
    this.#at += SECTOR;
    if (isBlank(sector)) return undefined;
    this.#begun = true;
    const head = decodeHead(sector);
    if (!head) throw damaged(this.#id, `the sector at ${at} is not what was written`);
    if (!isOf(head, this.#id)) throw damaged(this.#id, 'it holds a part of another journal');
    if (this.#file.length < head.room) throw truncatedSegment(this.#id);
    const follows = previous === undefined || head.previous === previous;
    if (head.sequence !== this.#sequence || head.part !== part || !follows) {
      throw damaged(this.#id, `batch ${this.#sequence} is missing`);
    }
    return head;
  }

  /** The changes of a part; undefined when a sector of it is still blank. */
  #piece(head: Head): Bytes | undefined {
    const sectors = Math.ceil(head.bytes / SECTOR);
    let whole = true;
    for (let sector = 0; sector < sectors; sector++) {
      const start = this.#at + sector * SECTOR;
      const bytes = this.#file.subarray(start, start + SECTOR);
      if (this.#isWritten(bytes, sector)) continue;
      if (!isBlank(bytes)) throw damaged(this.#id, `the sector at ${start} was changed`);
      whole = false;
    }
    const start = this.#at;
    this.#at += sectors * SECTOR;
    return whole ? this.#file.subarray(start, start + head.bytes) : undefined;
  }

  /** Whether a sector behind the head at `#at` is the one that the head tells of. */
  #isWritten(bytes: Bytes, sector: number): boolean {
    const sum = getUint32(this.#file, this.#at - SECTOR + SUMS_AT + sector * 4);
    return bytes.length === SECTOR && crc32(bytes) === sum;
  }

  /**
   * What stands behind a blank head: of these sectors nobody knows what was meant, nor how many of
   * them are of this batch. But none is a head: a batch is only begun when the one before is on the
   * disk, so the head of a later one tells that something acknowledged has gone.
   */
  #strayPiece(): undefined {
    const end = Math.min(this.#at + PART_BYTES, this.#file.length);
    for (; this.#at < end; this.#at += SECTOR) {
      const sector = this.#file.subarray(this.#at, this.#at + SECTOR);
      if (isBlank(sector)) continue;
      this.#begun = true;
      const head = decodeHead(sector);
      if (head && isOf(head, this.#id)) throw damaged(this.#id, `batch ${this.#sequence} has gone`);
    }
  }

  /** Nothing was written behind the last batch, and nothing behind the end. */
  #ensureBlank(otherwise: string): void {
    if (!isBlank(this.#file.subarray(this.#at))) throw damaged(this.#id, otherwise);
  }
}

/** Throws when something was written into a segment that the journal never came to. */
export function ensureUnused(file: Bytes, id: SegmentId): void {
  if (!isBlank(file)) throw damaged(id, 'the journal ends before it, but it was written to');
}

function isOf(head: Head, id: SegmentId): boolean {
  const sameStore = equalBytes(head.storeId, id.storeId);
  return sameStore && head.epoch === id.epoch && head.segment === id.segment;
}

/** Never written: zero, or beyond the end of the file. */
function isBlank(sector: Bytes): boolean {
  for (let i = 0; i < sector.length; i++) if (sector[i] !== 0) return false;
  return true;
}

export function segmentName(epoch: number, segment: number): string {
  return `journal-${epoch}-${segment}`;
}

/** What the name of a segment says; undefined: this is none. */
export function segmentOfName(name: string): { epoch: number; segment: number } | undefined {
  const match = /^journal-([0-9]+)-([0-9]+)$/.exec(name);
  return match ? { epoch: Number(match[1]), segment: Number(match[2]) } : undefined;
}

function damaged(id: SegmentId, what: string): HoldfastError {
  return new HoldfastError(
    'corrupt',
    `${segmentName(id.epoch, id.segment)}: ${what}. Nothing was dropped; keep the files, and ` +
      'restore a backup into a new directory',
  );
}

export function truncatedSegment(id: SegmentId): HoldfastError {
  return new HoldfastError(
    'store-truncated',
    `${segmentName(id.epoch, id.segment)} is missing or shorter than it was: ` +
      'acknowledged changes have gone. Keep the files, and restore a backup',
  );
}
