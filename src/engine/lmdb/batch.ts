/**
 * One commit of the tree from the inside: the table that is changed in the open write transaction
 * of LMDB. It keeps the account of the head record: number of records, sum of checksums, and the
 * digest of everything written.
 */
import { copyBytes } from '../../base/allocate.ts';
import { type Bytes, compareBytes, getUint32, putUint32 } from '../../base/bytes.ts';
import { crc32c } from '../../base/checksum.ts';
import type { ScanOptions, Table } from '../../mvcc/table.ts';
import {
  CHECKSUM_BYTES,
  corruptRecord,
  ensureTableKey,
  isOwnKey,
  recordChecksum,
  SUM_MODULUS,
} from './format.ts';
import { makeScratch, type Native, type Scratch } from './native.ts';
import { readRecord, scanRecords } from './reader.ts';

/** Marks a removal in the digest, so that it cannot look like a put. */
const REMOVAL = 0x72656d6f;

/** Keys of a cut that are read before they are removed: few, since a log is long. */
const CUT_KEYS = 512;

/** What outlives one batch: buffers, and the upper bound of each section of the table. */
export interface Workspace {
  scratch: Scratch;
  digest: Bytes;
  /**
   * By first byte: no key of the section is greater. A key beyond it is new without a look, which
   * is so for every line of a log.
   */
  readonly highest: (Bytes | undefined)[];
}

export function makeWorkspace(): Workspace {
  return {
    scratch: makeScratch(64 * 1_024),
    digest: new Uint8Array(64 * 1_024),
    highest: new Array<Bytes | undefined>(256).fill(undefined),
  };
}

export class Batch implements Table {
  readonly #native: Native;
  readonly #workspace: Workspace;
  #digestLength = 0;
  #records: number;
  #sum: number;

  constructor(native: Native, workspace: Workspace, before: { records: number; sum: number }) {
    this.#native = native;
    this.#workspace = workspace;
    this.#records = before.records;
    this.#sum = before.sum;
  }

  get records(): number {
    return this.#records;
  }

  get sum(): number {
    return this.#sum;
  }

  /** The checksums of everything written, in order. */
  get writes(): Bytes {
    return this.#workspace.digest.subarray(0, this.#digestLength);
  }

  get(key: Bytes): Bytes | undefined {
    return isOwnKey(key) ? undefined : readRecord(this.#native, key);
  }

  scan(
    start: Bytes,
    end: Bytes | undefined,
    visit: (key: Bytes, value: Bytes) => boolean,
    options?: ScanOptions,
  ): void {
    scanRecords(this.#native, start, end, visit, options);
  }

  put(key: Bytes, value: Bytes): void {
    ensureTableKey(key);
    const former = this.#former(key);
    const checksum = recordChecksum(key, value);
    this.#native.putSync(key, this.#stored(value, checksum));
    if (former === undefined) this.#records++;
    else this.#sum -= former;
    this.#account(checksum);
  }

  remove(key: Bytes): void {
    ensureTableKey(key);
    const former = this.#former(key);
    if (former !== undefined) this.#drop(key, former);
  }

  cut(start: Bytes, end: Bytes): void {
    for (;;) {
      const doomed = [...this.#native.getKeys({ start, end, limit: CUT_KEYS })];
      if (doomed.length === 0) return;
      for (const key of doomed) {
        const checksum = this.#checksum(key);
        if (checksum === undefined) throw corruptRecord(key);
        this.#drop(key, checksum);
      }
    }
  }

  #drop(key: Bytes, checksum: number): void {
    this.#native.removeSync(key);
    this.#records--;
    this.#sum -= checksum;
    this.#account(0, crc32c(key, REMOVAL));
  }

  /**
   * The checksum of the record as it is now; nothing when the key is certainly or really new. The
   * record is not read for its own sake: whether its bytes are right no longer matters.
   */
  #former(key: Bytes): number | undefined {
    return this.#raise(key) ? undefined : this.#checksum(key);
  }

  #checksum(key: Bytes): number | undefined {
    const found = this.#native.getBinaryFast(key);
    return found && checksumOf(key, found, this.#native.lastSize);
  }

  /** Whether the key lies beyond all of its section; it is the bound from now on. */
  #raise(key: Bytes): boolean {
    const { highest } = this.#workspace;
    const section = key[0]!;
    const bound = highest[section] ?? this.#bound(section);
    if (compareBytes(key, bound) <= 0) return false;
    // The keys of a log are of one length: the bound is written over, not made anew for each. So it
    // must be a copy, which `slice` of a Buffer is not.
    if (bound.length === key.length) bound.set(key);
    else highest[section] = copyBytes(key);
    return true;
  }

  #bound(section: number): Bytes {
    let bound: Bytes = Uint8Array.of(section);
    const end = section === 255 ? undefined : Uint8Array.of(section + 1);
    const visit = (key: Bytes): boolean => {
      bound = copyBytes(key);
      return false;
    };
    scanRecords(this.#native, Uint8Array.of(section), end, visit, { reverse: true });
    this.#workspace.highest[section] = bound;
    return bound;
  }

  #stored(value: Bytes, checksum: number): Bytes {
    const length = value.length + CHECKSUM_BYTES;
    const { scratch } = this.#workspace;
    if (scratch.bytes.length < length) {
      this.#workspace.scratch = makeScratch(length * 2);
      return this.#stored(value, checksum);
    }
    scratch.bytes.set(value, 0);
    putUint32(scratch.bytes, value.length, checksum);
    return scratch.limit(length);
  }

  #account(added: number, digested: number = added): void {
    this.#sum = (this.#sum + added) % SUM_MODULUS;
    if (this.#sum < 0) this.#sum += SUM_MODULUS;
    if (this.#digestLength + 4 > this.#workspace.digest.length) {
      const larger = new Uint8Array(this.#workspace.digest.length * 2);
      larger.set(this.#workspace.digest);
      this.#workspace.digest = larger;
    }
    putUint32(this.#workspace.digest, this.#digestLength, digested);
    this.#digestLength += 4;
  }
}

function checksumOf(key: Bytes, stored: Bytes, length: number): number {
  if (length < CHECKSUM_BYTES) throw corruptRecord(key);
  return getUint32(stored, length - CHECKSUM_BYTES);
}
