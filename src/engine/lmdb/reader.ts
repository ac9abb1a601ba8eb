/**
 * Reading: every record is checked against its checksum, and its bytes are copied out of the map,
 * so that what a caller keeps never changes under it.
 */
import { type Bytes, compareBytes, getUint32 } from '../../base/bytes.ts';
import type { ScanOptions, TableReader } from '../../mvcc/table.ts';
import {
  CHECKSUM_BYTES,
  corruptRecord,
  isOwnKey,
  recordChecksum,
  TABLE_START,
  unseal,
} from './format.ts';
import type { Native, RangeOptions, ReadTransaction } from './native.ts';

export class NativeReader implements TableReader {
  readonly #native: Native;
  readonly #transaction: ReadTransaction | undefined;
  readonly #check: () => void;

  /** `check` runs before every read and throws when this reader may not be used now. */
  constructor(native: Native, check: () => void, transaction?: ReadTransaction) {
    this.#native = native;
    this.#check = check;
    this.#transaction = transaction;
  }

  get(key: Bytes): Bytes | undefined {
    this.#check();
    if (key.length === 0) return undefined;
    return readRecord(this.#native, key, this.#transaction);
  }

  scan(
    start: Bytes,
    end: Bytes | undefined,
    visit: (key: Bytes, value: Bytes) => boolean,
    options?: ScanOptions,
  ): void {
    this.#check();
    scanRecords(this.#native, start, end, visit, options, this.#transaction);
  }
}

export function readRecord(
  native: Native,
  key: Bytes,
  transaction?: ReadTransaction,
): Bytes | undefined {
  const found = native.getBinaryFast(key, transaction && { transaction });
  if (!found) return undefined;
  const length = native.lastSize - CHECKSUM_BYTES;
  if (length < 0) throw corruptRecord(key);
  const value = new Uint8Array(length);
  for (let i = 0; i < length; i++) value[i] = found[i]!;
  if (recordChecksum(key, value) !== getUint32(found, length)) throw corruptRecord(key);
  return value;
}

export function scanRecords(
  native: Native,
  from: Bytes,
  end: Bytes | undefined,
  visit: (key: Bytes, value: Bytes) => boolean,
  options: ScanOptions | undefined,
  transaction?: ReadTransaction,
): void {
  const start = isOwnKey(from) ? TABLE_START : from;
  if (end && compareBytes(end, start) <= 0) return;
  const range = options?.reverse ? backwards(start, end) : forwards(start, end);
  if (transaction) range.transaction = transaction;
  for (const { key, value } of native.getRange(range)) {
    if (!visit(key, unseal(key, value))) return;
  }
}

type Range = { -readonly [Name in keyof RangeOptions]: RangeOptions[Name] };

function forwards(start: Bytes, end: Bytes | undefined): Range {
  return end ? { start, end } : { start };
}

/** The package begins at `start` and goes down to `end`. */
function backwards(start: Bytes, end: Bytes | undefined): Range {
  const down: Range = { reverse: true, end: start, inclusiveEnd: true };
  return end ? { ...down, start: end, exclusiveStart: true } : down;
}
