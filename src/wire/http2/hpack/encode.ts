/**
 * Encodes header lists (RFC 7541). Fields that come again are put into the dynamic table; values
 * that are secret or change with every call are not.
 *
 * A list that is frozen is taken for a constant: its block is remembered as long as the table does
 * not change. The encoder only sends what its own table holds, so any peer can follow.
 */
import type { Bytes } from '../../../base/bytes.ts';
import type { Header, HeaderList } from '../headers.ts';
import type { OutputBuffer } from '../output.ts';
import { DynamicTable, ENTRY_OVERHEAD, fieldSize } from './dynamic-table.ts';
import { encodeHuffman, huffmanLength } from './huffman.ts';
import { STATIC_FIELDS, STATIC_NAMES, STATIC_SIZE } from './static-table.ts';

/** Never put into a table here or by a proxy (section 7.1.3). */
const SECRET = new Set(['authorization', 'token', 'cookie', 'set-cookie', 'proxy-authorization']);
/** Their values hardly ever repeat; a table entry would only push out a useful one. */
const VOLATILE = new Set([
  'content-length',
  'date',
  'etag',
  'grpc-message',
  'grpc-status-details-bin',
  'grpc-timeout',
  'if-modified-since',
  'if-none-match',
  'last-modified',
  'location',
  'traceparent',
]);

interface Memory {
  readonly list: HeaderList;
  readonly version: number;
  readonly bytes: Bytes;
}

const MEMORIES = 8;
/** We never use a larger table than this, whatever the peer offers. */
const TABLE_BYTES_MAX = 4_096;

export class HpackEncoder {
  readonly #table: DynamicTable;
  /** `name\0value` → number of the entry in the table. */
  readonly #fields = new Map<string, number>();
  readonly #names = new Map<string, number>();
  /** Table sizes to announce before the next block: the smallest in between, then the last. */
  #announceLow = -1;
  #announce = -1;
  readonly #memories: (Memory | undefined)[] = new Array(MEMORIES).fill(undefined);
  #nextMemory = 0;

  constructor() {
    this.#table = new DynamicTable(TABLE_BYTES_MAX, (entry, number) => this.#forget(entry, number));
  }

  get tableSize(): number {
    return this.#table.size;
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. */
  limitTable(bytes: number): void {
    const capacity = Math.min(bytes, TABLE_BYTES_MAX);
    if (capacity === this.#table.capacity) return;
    this.#announceLow = this.#announce < 0 ? capacity : Math.min(this.#announceLow, capacity);
    this.#announce = capacity;
    this.#table.resize(capacity);
  }

  /** The list has been encoded before as it is, so it needs no checks. */
  knows(list: HeaderList): boolean {
    for (let i = 0; i < MEMORIES; i++) if (this.#memories[i]?.list === list) return true;
    return false;
  }

  /** Appends the block of `list` to `out`. */
  encode(list: HeaderList, out: OutputBuffer): void {
    if (this.#announce >= 0) this.#announceSizes(out);
    const version = this.#table.version;
    for (let i = 0; i < MEMORIES; i++) {
      const memory = this.#memories[i];
      if (memory && memory.list === list && memory.version === version) {
        out.append(memory.bytes);
        return;
      }
    }
    const start = out.length;
    for (let i = 0; i < list.length; i++) this.#field(list[i]!, out);
    if (this.#table.version === version && Object.isFrozen(list)) {
      this.#memories[this.#nextMemory] = { list, version, bytes: out.copy(start) };
      this.#nextMemory = (this.#nextMemory + 1) % MEMORIES;
    }
  }

  #announceSizes(out: OutputBuffer): void {
    if (this.#announceLow < this.#announce) writeInteger(out, 0x20, 5, this.#announceLow);
    writeInteger(out, 0x20, 5, this.#announce);
    this.#announce = -1;
    this.#announceLow = -1;
  }

  #field(header: Header, out: OutputBuffer): void {
    const [name, value] = header;
    const key = `${name}\0${value}`;
    const known = STATIC_FIELDS.get(key) ?? this.#place(this.#fields.get(key));
    if (known !== undefined) {
      writeInteger(out, 0x80, 7, known);
      return;
    }
    const nameIndex = STATIC_NAMES.get(name) ?? this.#place(this.#names.get(name)) ?? 0;
    if (SECRET.has(name)) writeInteger(out, 0x10, 4, nameIndex);
    else if (this.#worthKeeping(name, value)) {
      writeInteger(out, 0x40, 6, nameIndex);
      this.#keep(header, key);
    } else writeInteger(out, 0x00, 4, nameIndex);
    if (nameIndex === 0) writeString(out, name);
    writeString(out, value);
  }

  #worthKeeping(name: string, value: string): boolean {
    if (VOLATILE.has(name)) return false;
    return fieldSize(name, value) <= Math.min(this.#table.capacity, 16 * ENTRY_OVERHEAD);
  }

  #keep(header: Header, key: string): void {
    const number = this.#table.added;
    if (!this.#table.add(header)) return;
    this.#fields.set(key, number);
    this.#names.set(header[0], number);
  }

  #forget(entry: Header, number: number): void {
    const key = `${entry[0]}\0${entry[1]}`;
    if (this.#fields.get(key) === number) this.#fields.delete(key);
    if (this.#names.get(entry[0]) === number) this.#names.delete(entry[0]);
  }

  #place(number: number | undefined): number | undefined {
    return number === undefined ? undefined : STATIC_SIZE + this.#table.added - number;
  }
}

function writeInteger(out: OutputBuffer, pattern: number, prefix: number, value: number): void {
  const mask = (1 << prefix) - 1;
  if (value < mask) {
    out.byte(pattern | value);
    return;
  }
  out.byte(pattern | mask);
  let rest = value - mask;
  while (rest >= 0x80) {
    out.byte((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  out.byte(rest);
}

function writeString(out: OutputBuffer, text: string): void {
  const packed = huffmanLength(text);
  if (packed < text.length) {
    writeInteger(out, 0x80, 7, packed);
    const offset = out.reserve(packed);
    encodeHuffman(text, out.bytes, offset);
    return;
  }
  writeInteger(out, 0x00, 7, text.length);
  const offset = out.reserve(text.length);
  for (let i = 0; i < text.length; i++) out.bytes[offset + i] = text.charCodeAt(i);
}
