/**
 * Judges a data file without opening it in LMDB: is this a store, is it whole, and is it the newest
 * state? `inspect` looks at both roots and their head records; `scrub` walks everything.
 *
 * Both roots are judged together because LMDB silently uses the older one when the newer one does
 * not look newer: a bit in a transaction number would take back an acknowledged commit.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { type Bytes, equalBytes, getUint32 } from '../../base/bytes.ts';
import { crc32c } from '../../base/checksum.ts';
import {
  CHECKSUM_BYTES,
  chainAfter,
  corruptRecord,
  decodeCommit,
  decodeHead,
  decodeOwner,
  EMPTY_CHAIN,
  HEAD_KEY,
  type Head,
  isRingKey,
  OWNER_KEY,
  type OwnerRecord,
  RING_SLOTS,
  ringKey,
  SUM_MODULUS,
  unseal,
} from './format.ts';
import {
  damaged,
  META_LAST_PAGE,
  META_TRANSACTION,
  type Meta,
  PageFile,
  readMetas,
} from './pages.ts';
import { claimFree, findRecord, PageMap, walkTree } from './walk.ts';

/** What a look at the roots tells. */
export interface Inspection {
  readonly bytes: number;
  readonly pageSize: number;
  /** The root to go by. */
  readonly meta: Meta;
  /** Undefined: LMDB has made the file, but nothing was ever committed. */
  readonly head: Head | undefined;
  readonly owner: OwnerRecord | undefined;
  /**
   * The newest commit is whole but its root says otherwise, as LMDB leaves it when the disk refuses
   * the root (or a bit flips there): it must be completed before LMDB may open the file.
   */
  readonly unfinished: boolean;
}

export interface Summary {
  readonly records: number;
  readonly pages: number;
  readonly freePages: number;
  /** Pages that are neither used nor free: lost room, no damage. */
  readonly lostPages: number;
  readonly highestPage: number;
}

/** LMDB leaves free pages at the end unwritten; a number far beyond them is damage. */
const PAGES_BEYOND_END_MAX = 2 ** 20;

const sha256 = (bytes: Bytes): Bytes => new Uint8Array(createHash('sha256').update(bytes).digest());

/** Opens the data file for reading, runs `work` on it and closes it. */
export function withDataFile<T>(path: string, work: (fd: number, bytes: number) => T): T {
  const fd = openSync(path, 'r');
  try {
    return work(fd, fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}

export function inspect(fd: number, bytes: number): Inspection {
  const metas = readMetas(fd, bytes);
  for (const meta of metas) checkParity(meta);
  const [newer, older] = newestFirst(metas);
  const whole = bytes <= 256 * 1_024;
  const file = new PageFile(fd, bytes, newer.pageSize, whole);
  const head = headOf(file, newer, newer.transaction);
  const behind = headOf(file, older, newer.transaction + 1);
  if ((head?.sequence ?? 0) !== newer.transaction) {
    throw damaged(`root ${newer.slot} belongs to another commit than it says`);
  }
  const base = { bytes, pageSize: newer.pageSize };
  if ((behind?.sequence ?? 0) === newer.transaction + 1) {
    const meta = completed(older, newer, bytes);
    const owner = ownerOf(file, meta);
    return { ...base, meta, head: behind, owner, unfinished: true };
  }
  if ((behind?.sequence ?? 0) !== older.transaction) {
    throw damaged(`root ${older.slot} belongs to another commit than it says`);
  }
  if (newer.transaction > 0 && older.transaction !== newer.transaction - 1) {
    throw damaged('the two roots are not of consecutive commits');
  }
  return { ...base, meta: newer, head, owner: ownerOf(file, newer), unfinished: false };
}

function checkParity(meta: Meta): void {
  const fresh = meta.transaction === 0;
  if (!fresh && meta.transaction % 2 !== meta.slot) {
    throw damaged(`the number of root ${meta.slot} is of the other root`);
  }
}

function newestFirst([first, second]: readonly [Meta, Meta]): readonly [Meta, Meta] {
  return first.transaction >= second.transaction ? [first, second] : [second, first];
}

/** The root as it was meant, with room for every page the file has. */
function completed(meta: Meta, other: Meta, bytes: number): Meta {
  const lastPage = Math.max(meta.lastPage, other.lastPage, Math.floor(bytes / meta.pageSize) - 1);
  return { ...meta, lastPage, transaction: other.transaction + 1 };
}

function headOf(file: PageFile, meta: Meta, transaction: number): Head | undefined {
  const found = findRecord(file, { ...meta, transaction }, HEAD_KEY);
  if (found) return decodeHead(unseal(HEAD_KEY, found));
  if (meta.main.root === undefined) return undefined;
  return decodeHead(new Uint8Array(0));
}

function ownerOf(file: PageFile, meta: Meta): OwnerRecord | undefined {
  const found = findRecord(file, meta, OWNER_KEY);
  return found && decodeOwner(unseal(OWNER_KEY, found));
}

/**
 * Walks all of it, or only what leads to the leaves. Yields once per page, so that the caller can
 * pause; answers what it found, or throws what is wrong.
 */
export function* scrub(
  file: PageFile,
  inspection: Inspection,
  full: boolean,
): Generator<void, Summary, void> {
  const { meta, head } = inspection;
  const filePages = Math.ceil(inspection.bytes / inspection.pageSize);
  if (meta.lastPage > filePages + PAGES_BEYOND_END_MAX) throw damaged('the last page is far away');
  const pages = new PageMap(meta.lastPage);
  const ledger = new Ledger();
  const visit = (key: Bytes, stored: Bytes): void => ledger.take(key, stored);
  yield* walkTree(file, meta, meta.main, pages, full ? visit : undefined);
  const inTree = pages.count;
  yield* walkTree(file, meta, meta.free, pages, () => {});
  const inUse = pages.count;
  yield* walkTree(file, meta, meta.free, new PageMap(meta.lastPage), (_, data) => {
    claimFree(data, pages);
  });
  if (full && head) ledger.check(head);
  if (pages.unclaimedFrom(filePages)) throw damaged('pages beyond the end of the file are missing');
  return {
    records: ledger.records,
    pages: inTree,
    freePages: pages.count - inUse,
    lostPages: meta.lastPage - 1 - pages.count,
    highestPage: pages.highest,
  };
}

/** Adds up the records and compares with what the head says of them. */
class Ledger {
  records = 0;
  #sum = 0;
  readonly #ring = new Map<number, Bytes>();

  take(key: Bytes, stored: Bytes): void {
    const length = stored.length - CHECKSUM_BYTES;
    if (length < 0) throw corruptRecord(key);
    const checksum = getUint32(stored, length);
    if (crc32c(stored.subarray(0, length), crc32c(key)) !== checksum) throw corruptRecord(key);
    if (key[0] !== 0) {
      this.records++;
      this.#sum = (this.#sum + checksum) % SUM_MODULUS;
    } else if (isRingKey(key)) {
      this.#ring.set(key[2]!, stored.slice(0, length));
    } else if (!equalBytes(key, HEAD_KEY) && !equalBytes(key, OWNER_KEY)) {
      throw damaged('there is a record that nobody wrote');
    }
  }

  check(head: Head): void {
    if (this.records !== head.records) {
      throw damaged(`${this.records} records were found where ${head.records} must be`);
    }
    if (this.#sum !== head.sum) throw damaged('a record is not the one that was written last');
    this.#checkChain(head);
  }

  #checkChain(head: Head): void {
    const kept = Math.min(head.sequence, RING_SLOTS);
    if (this.#ring.size !== kept) throw damaged(`${this.#ring.size} of ${kept} commits are there`);
    let chain = head.sequence <= RING_SLOTS ? EMPTY_CHAIN : undefined;
    for (let sequence = head.sequence - kept + 1; sequence <= head.sequence; sequence++) {
      const commit = decodeCommit(this.#ring.get(ringKey(sequence)[2]!)!);
      const linked = chain && chainAfter(chain, sequence, commit.digest, sha256);
      if (commit.sequence !== sequence || (linked && !equalBytes(linked, commit.chain))) {
        throw damaged(`the chain of commits is broken at ${sequence}`);
      }
      chain = commit.chain;
    }
    if (!chain || !equalBytes(chain, head.chain)) throw damaged('the head left its chain');
  }
}

/** Runs a scrub to its end at once. */
export function scrubNow(file: PageFile, inspection: Inspection, full: boolean): Summary {
  const steps = scrub(file, inspection, full);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/**
 * Writes into the root what it was meant to say. Only after a full scrub of that root: then the
 * commit is whole, and completing it loses nothing, whether it was acknowledged or not.
 */
export function complete(path: string, inspection: Inspection, summary: Summary): void {
  const { meta } = inspection;
  const fields = Buffer.alloc(META_TRANSACTION + 8 - META_LAST_PAGE);
  fields.writeBigUInt64LE(BigInt(summary.highestPage), 0);
  fields.writeBigUInt64LE(BigInt(meta.transaction), 8);
  const fd = openSync(path, 'r+');
  try {
    writeSync(fd, fields, 0, fields.length, meta.slot * meta.pageSize + META_LAST_PAGE);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
