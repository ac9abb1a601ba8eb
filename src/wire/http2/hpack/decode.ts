/**
 * Decodes header blocks (RFC 7541). A block is decoded whole or the connection is lost, because
 * both sides must keep the same table; a list beyond the limits is still decoded, but not kept.
 *
 * Callers of one kind send the same few blocks again and again. A block that left the table as it
 * was is remembered with its outcome; the same bytes over an unchanged table give that outcome.
 */
import { type Bytes, binaryString } from '../../../base/bytes.ts';
import { fieldProblem, type Header, type HeaderList, type Verdict } from '../headers.ts';
import { DynamicTable, fieldSize } from './dynamic-table.ts';
import { decodeHuffman } from './huffman.ts';
import { STATIC_SIZE, STATIC_TABLE } from './static-table.ts';

export interface DecoderLimits {
  /** Size of a list as RFC 9113, section 6.5.2, counts it. */
  readonly headerListBytes: number;
  readonly headers: number;
}

/** A decoded block and the verdicts on it, which are computed when first asked for. */
export class HeaderBlock {
  readonly list: HeaderList;
  /** As RFC 9113, section 6.5.2, counts it, whether kept or not. */
  readonly size: number;
  /** Beyond a limit; the list is empty then. */
  readonly tooLarge: boolean;
  /** A field that is malformed by itself. */
  readonly problem: string | undefined;
  asRequest: Verdict | undefined = undefined;
  asResponse: Verdict | undefined = undefined;
  asTrailers: Verdict | undefined = undefined;

  constructor(list: HeaderList, size: number, tooLarge: boolean, problem: string | undefined) {
    this.list = list;
    this.size = size;
    this.tooLarge = tooLarge;
    this.problem = problem;
  }

  /** The verdict of `check`, unless a field is malformed already. */
  judge(check: (list: HeaderList) => Verdict): Verdict {
    if (this.problem === undefined) return check(this.list);
    return { problem: this.problem, contentLength: -1, status: 0, bodiless: false };
  }
}

interface Memory {
  readonly bytes: Bytes;
  readonly version: number;
  readonly block: HeaderBlock;
}

const MEMORIES = 8;
const MEMORY_BYTES_MAX = 512;
/** An integer of the format needs no more octets than this for any value we accept. */
const INTEGER_MAX = 2 ** 28;

export class HpackDecoder {
  readonly #limits: DecoderLimits;
  readonly #table: DynamicTable;
  /** What our settings allow the peer to use. */
  #allowed: number;
  /** The peer must announce a smaller table before it sends fields. */
  #shrinkDue = false;
  readonly #memories: (Memory | undefined)[] = new Array(MEMORIES).fill(undefined);
  #nextMemory = 0;
  /** Entries of the table that are malformed by themselves: legal to keep, not to use. */
  readonly #tainted = new Map<Header, string>();
  #scratch = new Uint8Array(256);

  #bytes: Bytes = this.#scratch;
  #at = 0;
  #end = 0;
  #fault = '';

  constructor(limits: DecoderLimits, tableBytes = 4_096) {
    this.#limits = limits;
    this.#allowed = tableBytes;
    this.#table = new DynamicTable(tableBytes, (entry) => this.#tainted.delete(entry));
  }

  /** Why the last block could not be decoded. */
  get fault(): string {
    return this.#fault;
  }

  get tableSize(): number {
    return this.#table.size;
  }

  /** The peer has acknowledged our setting of the table's size. */
  allowTable(bytes: number): void {
    this.#allowed = bytes;
    if (bytes < this.#table.capacity) this.#shrinkDue = true;
  }

  /** Undefined when the block is wrong: the connection cannot go on. */
  decode(bytes: Bytes, start: number, end: number): HeaderBlock | undefined {
    const remembered = this.#shrinkDue ? undefined : this.#recall(bytes, start, end);
    if (remembered) return remembered;
    const version = this.#table.version;
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    this.#fault = '';
    const block = this.#block();
    this.#bytes = this.#scratch;
    if (this.#fault !== '') return undefined;
    if (this.#table.version === version && end - start <= MEMORY_BYTES_MAX) {
      this.#remember(bytes.slice(start, end), block);
    }
    return block;
  }

  #recall(bytes: Bytes, start: number, end: number): HeaderBlock | undefined {
    const length = end - start;
    const version = this.#table.version;
    next: for (let i = 0; i < MEMORIES; i++) {
      const memory = this.#memories[i];
      if (!memory || memory.version !== version || memory.bytes.length !== length) continue;
      const known = memory.bytes;
      for (let k = 0; k < length; k++) if (known[k] !== bytes[start + k]) continue next;
      return memory.block;
    }
    return undefined;
  }

  #remember(bytes: Bytes, block: HeaderBlock): void {
    this.#memories[this.#nextMemory] = { bytes, version: this.#table.version, block };
    this.#nextMemory = (this.#nextMemory + 1) % MEMORIES;
  }

  #block(): HeaderBlock {
    const list: Header[] = [];
    let size = 0;
    let problem: string | undefined;
    let tooLarge = false;
    this.#sizeUpdates();
    while (this.#at < this.#end && this.#fault === '') {
      const field = this.#field();
      if (!field) break;
      size += fieldSize(field[0], field[1]);
      if (size > this.#limits.headerListBytes || list.length >= this.#limits.headers) {
        tooLarge = true;
      }
      if (tooLarge) continue;
      list.push(field);
      if (this.#problem !== undefined) problem ??= this.#problem;
    }
    return new HeaderBlock(Object.freeze(tooLarge ? [] : list), size, tooLarge, problem);
  }

  /** What is wrong with the field read last. */
  #problem: string | undefined = undefined;

  /** Section 4.2: at the start of a block only, and obligatory after the allowance shrank. */
  #sizeUpdates(): void {
    while (this.#at < this.#end && (this.#bytes[this.#at]! & 0xe0) === 0x20) {
      const capacity = this.#integer(5);
      if (this.#fault !== '') return;
      if (capacity > this.#allowed) {
        this.#fault = 'a table larger than allowed';
        return;
      }
      this.#table.resize(capacity);
      this.#shrinkDue = this.#table.capacity > this.#allowed;
    }
    if (this.#shrinkDue) this.#fault = 'the table was not made smaller as our settings demand';
  }

  #field(): Header | undefined {
    const first = this.#bytes[this.#at]!;
    if (first & 0x80) return this.#indexed(this.#integer(7));
    if (first & 0x40) {
      const field = this.#literal(6);
      if (field) {
        if (this.#problem !== undefined) this.#tainted.set(field, this.#problem);
        if (!this.#table.add(field)) this.#tainted.delete(field);
      }
      return field;
    }
    if (first & 0x20) {
      this.#fault = 'a change of the table inside a block';
      return undefined;
    }
    return this.#literal(4);
  }

  #indexed(index: number): Header | undefined {
    if (this.#fault !== '') return undefined;
    this.#problem = undefined;
    if (index > 0 && index <= STATIC_SIZE) return STATIC_TABLE[index];
    const entry = this.#table.at(index - STATIC_SIZE);
    if (!entry) this.#fault = 'an index outside the table';
    else if (this.#tainted.size > 0) this.#problem = this.#tainted.get(entry);
    return entry;
  }

  #literal(prefix: number): Header | undefined {
    const index = this.#integer(prefix);
    if (this.#fault !== '') return undefined;
    const name = index === 0 ? this.#string() : this.#indexed(index)?.[0];
    if (name === undefined || this.#fault !== '') return undefined;
    const value = this.#string();
    if (this.#fault !== '') return undefined;
    this.#problem = fieldProblem(name, value);
    return [name, value];
  }

  /** Section 5.1. */
  #integer(prefix: number): number {
    const mask = (1 << prefix) - 1;
    let value = this.#bytes[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= 28; shift += 7) {
      if (this.#at >= this.#end) break;
      const byte = this.#bytes[this.#at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if ((byte & 0x80) !== 0) continue;
      if (value > INTEGER_MAX) break;
      return value;
    }
    this.#fault = 'an integer that is cut off or too large';
    return 0;
  }

  /** Section 5.2. */
  #string(): string {
    if (this.#at >= this.#end) {
      this.#fault = 'a string that is cut off';
      return '';
    }
    const huffman = (this.#bytes[this.#at]! & 0x80) !== 0;
    const length = this.#integer(7);
    const start = this.#at;
    if (this.#fault !== '') return '';
    if (length > this.#end - start) {
      this.#fault = 'a string that is cut off';
      return '';
    }
    this.#at = start + length;
    return huffman ? this.#huffman(start, length) : characters(this.#bytes, start, start + length);
  }

  #huffman(start: number, length: number): string {
    const room = Math.ceil((length * 8) / 5);
    if (this.#scratch.length < room) this.#scratch = new Uint8Array(room * 2);
    const decoded = decodeHuffman(this.#bytes, start, start + length, this.#scratch);
    if (decoded >= 0) return characters(this.#scratch, 0, decoded);
    this.#fault = 'a wrong Huffman string';
    return '';
  }
}

/** Most strings are short; for them a loop beats a view and a call with its elements. */
function characters(bytes: Bytes, start: number, end: number): string {
  if (end - start > 64) return binaryString(bytes.subarray(start, end));
  let out = '';
  for (let i = start; i < end; i++) out += String.fromCharCode(bytes[i]!);
  return out;
}
