/**
 * What this engine adds to a plain table of bytes, and how it is written down.
 *
 * Every record's value ends with a CRC-32C over key and value. Three kinds of keys beginning with
 * a zero byte belong to the engine; the rules above never use that byte first:
 *
 *   00 'h'          the head: rewritten by every commit
 *   00 'o'          who owns the directory; rewritten by every claim
 *   00 'c' slot     the last commits, in a ring: what the chain is made of
 *
 * Invariants a scrub can check without trusting LMDB:
 * - `head.sequence` is LMDB's transaction number, because nothing is ever written another way. So a
 *   damaged root page number or an LMDB that falls back to its older root is noticed.
 * - `head.chain` continues the chain of the commit before it by what this commit wrote.
 * - `head.records` and `head.sum` are the number of records and the sum of their checksums, so the
 *   loss of a whole page is noticed although every record left is in order.
 */
import {
  type Bytes,
  concatBytes,
  equalBytes,
  getUint32,
  getUint48,
  putUint32,
  putUint48,
  text,
  toHex,
  utf8,
} from '../../base/bytes.ts';
import { crc32c } from '../../base/checksum.ts';
import { HoldfastError } from '../../model/errors.ts';

/** Raised when an older program would misread what this one writes. */
export const FORMAT_VERSION = 1;
export const MAGIC: Bytes = utf8('HOLDFAST');

export const HEAD_KEY: Bytes = Uint8Array.of(0, 0x68);
export const OWNER_KEY: Bytes = Uint8Array.of(0, 0x6f);
/** Where the keys of the rules begin; everything below is the engine's own. */
export const TABLE_START: Bytes = Uint8Array.of(1);

export const CHECKSUM_BYTES = 4;
const CHAIN_BYTES = 16;
/** Commits kept in the ring. */
export const RING_SLOTS = 64;
export const SUM_MODULUS: number = 2 ** 48;

export interface Head {
  readonly formatVersion: number;
  /** 16 random bytes, given at creation. */
  readonly storeId: Bytes;
  /** Raised by every claim of the directory; whoever holds an older one is fenced out. */
  readonly ownerEpoch: number;
  readonly sequence: number;
  readonly chain: Bytes;
  readonly records: number;
  readonly sum: number;
  readonly journal: JournalMark;
}

/** Where the journal goes on from what the tree holds. */
export interface JournalMark {
  /** The owner's who writes or wrote it. */
  readonly epoch: number;
  /** The first segment with something that the tree does not hold; 0: there is no journal. */
  readonly segment: number;
  /** What the first batch there must be: its number, and the checksum of the head before it. */
  readonly sequence: number;
  readonly previous: number;
}

export const NO_JOURNAL: JournalMark = { epoch: 0, segment: 0, sequence: 0, previous: 0 };

const HEAD_BYTES = 8 + 2 + 16 + 6 + 6 + CHAIN_BYTES + 6 + 6 + 6 + 6 + 6 + 4;

export function encodeHead(head: Head): Bytes {
  const out = new Uint8Array(HEAD_BYTES);
  out.set(MAGIC, 0);
  out[8] = head.formatVersion >>> 8;
  out[9] = head.formatVersion;
  out.set(head.storeId, 10);
  putUint48(out, 26, head.ownerEpoch);
  putUint48(out, 32, head.sequence);
  out.set(head.chain, 38);
  putUint48(out, 54, head.records);
  putUint48(out, 60, head.sum);
  putUint48(out, 66, head.journal.epoch);
  putUint48(out, 72, head.journal.segment);
  putUint48(out, 78, head.journal.sequence);
  putUint32(out, 84, head.journal.previous);
  return out;
}

/** Reads a head whose checksum has been verified; says so when a newer program wrote it. */
export function decodeHead(bytes: Bytes): Head {
  if (bytes.length < 10 || !equalBytes(bytes.subarray(0, 8), MAGIC)) {
    throw new HoldfastError('not-a-store', 'the file has no Holdfast head record');
  }
  const formatVersion = bytes[8]! * 0x100 + bytes[9]!;
  if (formatVersion > FORMAT_VERSION) {
    throw new HoldfastError(
      'store-too-new',
      `the store has format ${formatVersion}, this program reads up to format ${FORMAT_VERSION}: ` +
        'upgrade holdfast, or restore a backup made by the older version',
    );
  }
  if (bytes.length !== HEAD_BYTES) {
    throw new HoldfastError('corrupt', `the head record has ${bytes.length} bytes`);
  }
  return {
    formatVersion,
    storeId: bytes.slice(10, 26),
    ownerEpoch: getUint48(bytes, 26),
    sequence: getUint48(bytes, 32),
    chain: bytes.slice(38, 38 + CHAIN_BYTES),
    records: getUint48(bytes, 54),
    sum: getUint48(bytes, 60),
    journal: {
      epoch: getUint48(bytes, 66),
      segment: getUint48(bytes, 72),
      sequence: getUint48(bytes, 78),
      previous: getUint32(bytes, 84),
    },
  };
}

/** One commit in the ring: the chain after it, and the digest that led there. */
export interface CommitRecord {
  readonly sequence: number;
  readonly chain: Bytes;
  readonly digest: Bytes;
}

export function ringKey(sequence: number): Bytes {
  return Uint8Array.of(0, 0x63, sequence % RING_SLOTS);
}

export function isRingKey(key: Bytes): boolean {
  return key.length === 3 && key[0] === 0 && key[1] === 0x63 && key[2]! < RING_SLOTS;
}

export function encodeCommit(commit: CommitRecord): Bytes {
  const out = new Uint8Array(6 + 2 * CHAIN_BYTES);
  putUint48(out, 0, commit.sequence);
  out.set(commit.chain, 6);
  out.set(commit.digest, 6 + CHAIN_BYTES);
  return out;
}

export function decodeCommit(bytes: Bytes): CommitRecord {
  if (bytes.length !== 6 + 2 * CHAIN_BYTES) {
    throw new HoldfastError('corrupt', `a commit record has ${bytes.length} bytes`);
  }
  return {
    sequence: getUint48(bytes, 0),
    chain: bytes.slice(6, 6 + CHAIN_BYTES),
    digest: bytes.slice(6 + CHAIN_BYTES),
  };
}

/** Hashes a commit: `hash` is SHA-256, handed in so that this file needs no I/O room. */
export function chainAfter(
  previous: Bytes,
  sequence: number,
  digest: Bytes,
  hash: (bytes: Bytes) => Bytes,
): Bytes {
  const number = new Uint8Array(6);
  putUint48(number, 0, sequence);
  return hash(concatBytes(previous, number, digest)).slice(0, CHAIN_BYTES);
}

export function digestOf(writes: Bytes, hash: (bytes: Bytes) => Bytes): Bytes {
  return hash(writes).slice(0, CHAIN_BYTES);
}

export const EMPTY_CHAIN: Bytes = new Uint8Array(CHAIN_BYTES);

/** What an engine keeps for itself stands before everything else; the rules never see it. */
export function isOwnKey(key: Bytes): boolean {
  return key.length === 0 || key[0] === 0;
}

export function ensureTableKey(key: Bytes): void {
  if (isOwnKey(key)) throw new Error('this key belongs to the engine');
}

/** `shared-` where the owner serves others and may be replaced when it stands still. */
export const SOCKET_NAME: RegExp = /^(?:owner|shared)-[0-9a-f]+\.sock$/;

/** Who owns a directory: for messages, and where to ask whether it still lives. */
export interface OwnerRecord {
  readonly pid: number;
  readonly host: string;
  /** Name of the owner's socket in the directory. */
  readonly socket: string;
}

export function encodeOwner(owner: OwnerRecord): Bytes {
  return utf8(JSON.stringify(owner));
}

export function decodeOwner(bytes: Bytes): OwnerRecord {
  const owner = JSON.parse(text(bytes)) as Partial<OwnerRecord>;
  if (
    typeof owner.pid !== 'number' ||
    typeof owner.host !== 'string' ||
    typeof owner.socket !== 'string' ||
    !SOCKET_NAME.test(owner.socket)
  ) {
    throw new HoldfastError('corrupt', 'the owner record is not readable');
  }
  return { pid: owner.pid, host: owner.host, socket: owner.socket };
}

export function ownerText(owner: OwnerRecord): string {
  return `process ${owner.pid} on host ${owner.host}`;
}

/** The checksum that belongs to a record. */
export function recordChecksum(key: Bytes, value: Bytes): number {
  return crc32c(value, crc32c(key));
}

/** A value as it is stored: followed by its checksum. */
export function seal(key: Bytes, value: Bytes): Bytes {
  const out = new Uint8Array(value.length + CHECKSUM_BYTES);
  out.set(value, 0);
  putUint32(out, value.length, recordChecksum(key, value));
  return out;
}

/** The value of a stored record, after checking it; the bytes are a view. */
export function unseal(key: Bytes, stored: Bytes): Bytes {
  const length = stored.length - CHECKSUM_BYTES;
  if (length >= 0) {
    // A plain view: that of a Buffer costs several times as much, once per record of a scan.
    const value = new Uint8Array(stored.buffer, stored.byteOffset, length);
    if (recordChecksum(key, value) === getUint32(stored, length)) return value;
  }
  throw corruptRecord(key);
}

export function corruptRecord(key: Bytes): HoldfastError {
  return new HoldfastError(
    'corrupt',
    `the record 0x${toHex(key)} does not match its checksum: the disk or memory changed it. ` +
      'Nothing was dropped; keep the files, and restore a backup into a new directory',
  );
}
