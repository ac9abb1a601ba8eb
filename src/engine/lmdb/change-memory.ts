/**
 * Changes in memory, as they stand in the journal, one after the other. Each has an address; what
 * has been written stays as it is until the layer is released. The changes of the open batch stand
 * in one piece, so that they are written to the disk as they are.
 */
import { copyBytes } from '../../base/allocate.ts';
import type { Bytes } from '../../base/bytes.ts';
import { CHANGE_HEAD, keyLengthOfChange, putChange, putCut, valueOfChange } from './changes.ts';
import { type HashSecret, hashKey } from './key-hash.ts';

/** Memory that is not touched costs nothing, and few pieces are quickly looked through. */
const PIECE_BYTES = 2 ** 22;
/** A value that is longer is not copied for whoever reads it; its piece is not used again then. */
const COPIED_BYTES_MAX = 1_024;
/** What is kept for use: the pieces of one layer. */
const FREE_PIECES_MAX = 20;
/** Addresses are kept in 32 bits, the greatest of which means "nowhere". */
const BYTES_MAX = 2 ** 32 - 1;

/** A stretch of addresses and the memory behind it. */
interface Piece {
  readonly base: number;
  readonly memory: Bytes;
  /** Somebody has a view of it that may outlive the layer. */
  isLent: boolean;
}

/**
 * Pieces that may be written over. The first touch of each page of new memory is dear, on a virtual
 * machine more than everything else that is done with what is written there.
 */
export class FreePieces {
  readonly #free: Bytes[] = [];

  take(): Bytes {
    return this.#free.pop() ?? new Uint8Array(PIECE_BYTES);
  }

  give(memory: Bytes): void {
    const isUsual = memory.length === PIECE_BYTES;
    if (isUsual && this.#free.length < FREE_PIECES_MAX) this.#free.push(memory);
  }
}

export class ChangeMemory {
  readonly #free: FreePieces | undefined;
  #pieces: Piece[];
  /** Where the open batch begins, and the end of everything. */
  #begin: number;
  #end: number;

  /** With `free`, memory comes from there, and goes back there when it is released. */
  constructor(free?: FreePieces, pieces: Piece[] = [], end = 0) {
    this.#free = free;
    this.#pieces = pieces;
    this.#begin = end;
    this.#end = end;
  }

  get bytes(): number {
    return this.#end;
  }

  /** How much of that is the open batch. */
  get openBytes(): number {
    return this.#end - this.#begin;
  }

  /** Writes a put, or without a value a removal, and answers its address. */
  put(key: Bytes, value: Bytes | undefined): number {
    const { base, memory } = this.#room(CHANGE_HEAD + key.length + (value?.length ?? 0));
    const address = this.#end;
    this.#end = base + putChange(memory, address - base, key, value);
    return address;
  }

  putCut(start: Bytes, end: Bytes): void {
    const { base, memory } = this.#room(CHANGE_HEAD + start.length + end.length);
    this.#end = base + putCut(memory, this.#end - base, start, end);
  }

  /** Takes a batch as it was read from the disk, without a copy; answers where it begins. */
  adopt(batch: Bytes): number {
    const last = this.#pieces[this.#pieces.length - 1];
    // Batches of one file are views of the same memory: one piece holds them all.
    const shared = last && last.memory.buffer === batch.buffer;
    // What stands before it in the file is in a piece already, and needs no addresses again.
    const rest = shared ? last.memory : new Uint8Array(batch.buffer, batch.byteOffset);
    const piece = shared ? last : newPiece(this.#end, rest);
    if (!shared) this.#pieces.push(piece);
    const begin = piece.base + batch.byteOffset - rest.byteOffset;
    this.#end = begin + batch.length;
    if (this.#end >= BYTES_MAX) throw tooMuch();
    this.#begin = this.#end;
    return begin;
  }

  /** Closes the open batch and answers its bytes. */
  seal(): Bytes {
    const batch = this.#open();
    this.#begin = this.#end;
    return batch;
  }

  sameKey(address: number, key: Bytes): boolean {
    const { base, memory } = this.#pieceOf(address);
    const at = address - base;
    if (keyLengthOfChange(memory, at) !== key.length) return false;
    const start = at + CHANGE_HEAD;
    // The ends of keys differ more often than their beginnings.
    for (let i = key.length - 1; i >= 0; i--) if (memory[start + i] !== key[i]) return false;
    return true;
  }

  /** How the key at the address stands to another: less than 0 if it comes before. */
  compareKey(address: number, key: Bytes): number {
    const { base, memory } = this.#pieceOf(address);
    const start = address - base + CHANGE_HEAD;
    const length = keyLengthOfChange(memory, address - base);
    const shorter = Math.min(length, key.length);
    for (let i = 0; i < shorter; i++) {
      const difference = memory[start + i]! - key[i]!;
      if (difference !== 0) return difference;
    }
    return length - key.length;
  }

  hashAt(secret: HashSecret, address: number): number {
    const { base, memory } = this.#pieceOf(address);
    const at = address - base;
    return hashKey(secret, memory, at + CHANGE_HEAD, keyLengthOfChange(memory, at));
  }

  compareKeys(a: number, b: number): number {
    return this.compareKey(a, this.key(b));
  }

  /** A view, of no use once the layer is released. */
  key(address: number): Bytes {
    const { base, memory } = this.#pieceOf(address);
    const at = address - base;
    const start = memory.byteOffset + at + CHANGE_HEAD;
    return new Uint8Array(memory.buffer, start, keyLengthOfChange(memory, at));
  }

  /** The value, to keep; undefined: a removal. */
  value(address: number): Bytes | undefined {
    const piece = this.#pieceOf(address);
    const value = valueOfChange(piece.memory, address - piece.base);
    if (!value || !this.#free || piece.isLent) return value;
    if (value.length <= COPIED_BYTES_MAX) return copyBytes(value);
    piece.isLent = true;
    return value;
  }

  /** What is sealed by now. The memory is shared: what is written stays. */
  copy(): ChangeMemory {
    for (const piece of this.#pieces) piece.isLent = true;
    return new ChangeMemory(undefined, [...this.#pieces], this.#begin);
  }

  /** Nobody asks any more. */
  release(): void {
    for (const { memory, isLent } of this.#pieces) if (!isLent) this.#free?.give(memory);
    this.#pieces = [];
  }

  #open(): Bytes {
    if (this.#begin === this.#end) return NOTHING;
    const { base, memory } = this.#pieces[this.#pieces.length - 1]!;
    return memory.subarray(this.#begin - base, this.#end - base);
  }

  /** The piece of memory where the open batch stands, with room for so many bytes. */
  #room(needed: number): Piece {
    if (this.#end + needed >= BYTES_MAX) throw tooMuch();
    const piece = this.#pieces[this.#pieces.length - 1];
    const fits = piece && this.#end + needed <= piece.base + piece.memory.length;
    return fits ? piece : this.#grow(needed);
  }

  /** A new piece of memory, to which the open batch moves, so that it stands in one piece. */
  #grow(needed: number): Piece {
    const open = this.#open();
    const bytes = Math.max(PIECE_BYTES, 2 * (open.length + needed));
    const usual = bytes === PIECE_BYTES ? this.#free?.take() : undefined;
    const memory = usual ?? new Uint8Array(bytes);
    memory.set(open);
    const piece = newPiece(this.#begin, memory);
    // A piece that held nothing but this batch has no addresses left.
    while (this.#pieces.length > 0 && this.#pieces[this.#pieces.length - 1]!.base >= piece.base) {
      this.#pieces.pop();
    }
    this.#pieces.push(piece);
    return piece;
  }

  /** Most reads are of what was written lately: look at the end first. */
  #pieceOf(address: number): Piece {
    const pieces = this.#pieces;
    let high = pieces.length - 1;
    if (pieces[high]!.base <= address) return pieces[high]!;
    let low = 0;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (pieces[middle]!.base <= address) low = middle;
      else high = middle;
    }
    return pieces[low]!;
  }
}

const NOTHING: Bytes = new Uint8Array(0);

function newPiece(base: number, memory: Bytes): Piece {
  return { base, memory, isLent: false };
}

function tooMuch(): Error {
  return new Error('the changes of one layer may not fill 4 GiB');
}
