/**
 * A store as a stream of bytes, and back. The same on every engine that keeps an ordered table.
 *
 *   head    magic, format, state, checksum
 *   record  length of key, length of value, key, value, checksum      (any number)
 *   tail    a mark, number of records, checksum; zeros up to a multiple of 512 bytes
 *
 * Each checksum continues the one before, so a record that is damaged, missing, doubled or out of
 * order is noticed, and a stream without its tail is refused as truncated. Behind it may stand 32
 * bytes of digest, as etcd's tools append them to a snapshot they save. Deterministic; no I/O.
 */
import {
  type Bytes,
  concatBytes,
  getUint32,
  getUint48,
  putUint32,
  putUint48,
  utf8,
} from '../base/bytes.ts';
import { crc32c } from '../base/checksum.ts';
import { HoldfastError } from '../model/errors.ts';
import { keyAfter } from '../model/range.ts';
import { decodeState, encodeState, STATE_KEY, type State } from './layout.ts';
import type { TableReader } from './table.ts';

const MAGIC = utf8('HOLDFAST BACKUP\n');
const FORMAT = 1;
const STATE_BYTES = 15;
const HEAD_BYTES = MAGIC.length + 4 + STATE_BYTES + 4;
const TAIL_MARK = 0xffffffff;
const TAIL_BYTES = 4 + 6 + 4;
const PADDED_TO = 512;
const DIGEST_BYTES = 32;
const CHUNK_BYTES = 32 * 1024;
/**
 * A length beyond this is damage. A record may hold all that a lease took along when it ended, so
 * there is no smaller bound; bytes are gathered as they come, not allocated as promised.
 */
const RECORD_BYTES_MAX = 2 ** 31;
/** Where the rules keep their keys; what an engine adds for itself lies outside. */
const FIRST_KEY = Uint8Array.of(0x61);
const LAST_KEY = Uint8Array.of(0x7b);

/**
 * A restore moves the revision on by this much and declares everything before it compacted, so that
 * whoever watched the lost history is told to start anew instead of waiting in silence for a
 * revision that means something else now.
 */
const RESTORE_GAP = 1_000_000_000;

export interface BackupEntry {
  readonly key: Bytes;
  readonly value: Bytes;
}

/** The whole table in chunks of at most 32 KiB. */
export function* dump(table: TableReader): Generator<Bytes> {
  const head = encodeHead(decodeState(table.get(STATE_KEY)));
  let crc = crc32c(head);
  let waiting: Bytes[] = [head];
  let waitingBytes = head.length;
  let count = 0;
  let total = 0;
  for (let from: Bytes | undefined = FIRST_KEY; from; ) {
    const page: BackupEntry[] = [];
    let bytes = 0;
    table.scan(from, LAST_KEY, (key, value) => {
      page.push({ key, value });
      bytes += key.length + value.length;
      return bytes < CHUNK_BYTES;
    });
    for (const entry of page) {
      const record = encodeRecord(entry, crc);
      crc = getUint32(record, record.length - 4);
      count++;
      waiting.push(record);
      waitingBytes += record.length;
    }
    const last = page[page.length - 1];
    from = last && keyAfter(last.key);
    if (waitingBytes >= CHUNK_BYTES) {
      total += waitingBytes;
      yield* cut(concatBytes(...waiting));
      waiting = [];
      waitingBytes = 0;
    }
  }
  const padding = new Uint8Array(paddingAfter(total + waitingBytes + TAIL_BYTES));
  yield* cut(concatBytes(...waiting, encodeTail(count, crc), padding));
}

function paddingAfter(length: number): number {
  return (PADDED_TO - (length % PADDED_TO)) % PADDED_TO;
}

function* cut(bytes: Bytes): Generator<Bytes> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
}

/**
 * The entries of a backup in order, in groups. Whoever writes them must be able to undo it: only
 * the end of the stream tells that it was whole.
 */
export async function* readBackup(
  source: AsyncIterable<Bytes> | Iterable<Bytes>,
): AsyncGenerator<readonly BackupEntry[], State> {
  const parser = new Parser();
  for await (const chunk of source) {
    const entries = parser.push(chunk);
    if (entries.length > 0) yield entries;
  }
  return parser.finish();
}

/** The state a restored store begins with: above everything the lost history can have issued. */
export function restoredState(state: State, era: number): State {
  const revision = state.revision + RESTORE_GAP;
  return { ...state, revision, compactRevision: revision, era };
}

function encodeHead(state: State): Bytes {
  const head = new Uint8Array(HEAD_BYTES);
  head.set(MAGIC);
  putUint32(head, MAGIC.length, FORMAT);
  head.set(encodeState(state), MAGIC.length + 4);
  putUint32(head, HEAD_BYTES - 4, crc32c(head.subarray(0, HEAD_BYTES - 4)));
  return head;
}

function encodeRecord({ key, value }: BackupEntry, crc: number): Bytes {
  const record = new Uint8Array(8 + key.length + value.length + 4);
  putUint32(record, 0, key.length);
  putUint32(record, 4, value.length);
  record.set(key, 8);
  record.set(value, 8 + key.length);
  putUint32(record, record.length - 4, crc32c(record.subarray(0, record.length - 4), crc));
  return record;
}

function encodeTail(count: number, crc: number): Bytes {
  const tail = new Uint8Array(TAIL_BYTES);
  putUint32(tail, 0, TAIL_MARK);
  putUint48(tail, 4, count);
  putUint32(tail, 10, crc32c(tail.subarray(0, 10), crc));
  return tail;
}

class Parser {
  /** What has come and is not understood yet; in pieces until `#wanted` bytes of it are there. */
  #pieces: Bytes[] = [];
  #gathered = 0;
  #wanted = 0;
  #rest: Bytes = new Uint8Array(0);
  #state: State | undefined;
  #crc = 0;
  #count = 0;
  #read = 0;
  /** Bytes that may still follow the tail; undefined before it. */
  #trailing: { zeros: number; digest: number } | undefined;

  push(chunk: Bytes): BackupEntry[] {
    this.#read += chunk.length;
    if (this.#trailing) {
      this.#skip(chunk);
      return [];
    }
    this.#gather(chunk);
    const entries: BackupEntry[] = [];
    if (this.#gathered < this.#wanted) return entries;
    this.#rest = this.#pieces.length === 1 ? this.#pieces[0]! : concatBytes(...this.#pieces);
    if (this.#state || this.#readHead()) {
      while (!this.#trailing && this.#readNext(entries));
    }
    this.#pieces = [this.#rest];
    this.#gathered = this.#rest.length;
    return entries;
  }

  /** Of ever larger pieces, so that each byte is copied few times. */
  #gather(chunk: Bytes): void {
    const pieces = this.#pieces;
    let last = chunk;
    for (let before = pieces.at(-1); before && before.length <= last.length; ) {
      pieces.pop();
      last = concatBytes(before, last);
      before = pieces.at(-1);
    }
    pieces.push(last);
    this.#gathered += chunk.length;
  }

  finish(): State {
    if (!this.#state || !this.#trailing || this.#trailing.zeros > 0) {
      throw new HoldfastError('store-truncated', 'the backup ends before its end; use a whole one');
    }
    return this.#state;
  }

  #readHead(): boolean {
    const known = Math.min(this.#rest.length, MAGIC.length);
    for (let i = 0; i < known; i++) {
      if (this.#rest[i] !== MAGIC[i]) {
        throw new HoldfastError('not-a-store', 'this is not a Holdfast backup');
      }
    }
    if (this.#rest.length < HEAD_BYTES) return false;
    const head = this.#rest.subarray(0, HEAD_BYTES);
    const sum = crc32c(head.subarray(0, HEAD_BYTES - 4));
    if (getUint32(head, HEAD_BYTES - 4) !== sum) throw damaged('its head');
    const format = getUint32(head, MAGIC.length);
    if (format > FORMAT) {
      throw new HoldfastError(
        'store-too-new',
        `the backup has format ${format}; upgrade to read it`,
      );
    }
    this.#state = decodeState(head.subarray(MAGIC.length + 4));
    this.#crc = crc32c(head);
    this.#rest = this.#rest.subarray(HEAD_BYTES);
    return true;
  }

  /** Takes one record or the tail; answers false when more bytes are needed. */
  #readNext(entries: BackupEntry[]): boolean {
    const rest = this.#rest;
    if (rest.length < 8) return false;
    const keyLength = getUint32(rest, 0);
    if (keyLength === TAIL_MARK) return this.#readTail();
    const valueLength = getUint32(rest, 4);
    const length = 8 + keyLength + valueLength + 4;
    if (length > RECORD_BYTES_MAX) throw damaged(`record ${this.#count + 1}`);
    this.#wanted = length;
    if (rest.length < length) return false;
    this.#wanted = 0;
    this.#crc = crc32c(rest.subarray(0, length - 4), this.#crc);
    if (getUint32(rest, length - 4) !== this.#crc) throw damaged(`record ${this.#count + 1}`);
    this.#count++;
    entries.push({
      key: rest.slice(8, 8 + keyLength),
      value: rest.slice(8 + keyLength, length - 4),
    });
    this.#rest = rest.subarray(length);
    return true;
  }

  #readTail(): boolean {
    const rest = this.#rest;
    if (rest.length < TAIL_BYTES) return false;
    const sum = crc32c(rest.subarray(0, 10), this.#crc);
    if (getUint32(rest, 10) !== sum || getUint48(rest, 4) !== this.#count)
      throw damaged('its tail');
    const after = rest.subarray(TAIL_BYTES);
    this.#trailing = { zeros: paddingAfter(this.#read - after.length), digest: DIGEST_BYTES };
    this.#rest = new Uint8Array(0);
    this.#skip(after);
    return false;
  }

  #skip(bytes: Bytes): void {
    const left = this.#trailing!;
    for (const byte of bytes) {
      if (left.zeros > 0) {
        if (byte !== 0) throw damaged('its padding');
        left.zeros--;
      } else if (left.digest-- === 0) throw damaged('there are bytes after its end');
    }
  }
}

function damaged(where: string): HoldfastError {
  return new HoldfastError(
    'corrupt',
    `the backup is damaged (${where}); nothing was restored from it`,
  );
}
