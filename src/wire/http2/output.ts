/**
 * What waits to be written: one growing buffer, taken whole once per turn.
 *
 * Buffers are lent by a pool that connections share, so an idle connection holds none, and a busy
 * one writes into memory that is warm.
 */
import { type Bytes, EMPTY } from '../../base/bytes.ts';

const FIRST_BYTES = 16_384;
/** A larger buffer was an exception; keeping it would make the exception permanent. */
const KEPT_BYTES_MAX = 262_144;
const KEPT_MAX = 32;

export class BufferPool {
  readonly #spare: Bytes[] = [];

  lend(): Bytes {
    return this.#spare.pop() ?? new Uint8Array(FIRST_BYTES);
  }

  /** Only a buffer that nobody reads any more. */
  give(buffer: Bytes): void {
    if (buffer.length > KEPT_BYTES_MAX || buffer.length < FIRST_BYTES) return;
    if (this.#spare.length < KEPT_MAX) this.#spare.push(buffer);
  }
}

export class OutputBuffer {
  readonly #pool: BufferPool;
  /** Written in place by encoders, between an offset from `reserve` and `length`. */
  bytes: Bytes = EMPTY;
  length = 0;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** Makes room for `count` bytes, counts them as written, and answers where they begin. */
  reserve(count: number): number {
    const offset = this.length;
    const length = offset + count;
    if (length > this.bytes.length) this.#grow(length);
    this.length = length;
    return offset;
  }

  byte(value: number): void {
    if (this.length === this.bytes.length) this.#grow(this.length + 1);
    this.bytes[this.length++] = value;
  }

  append(bytes: Bytes): void {
    const count = bytes.length;
    const offset = this.reserve(count);
    if (count > 48) this.bytes.set(bytes, offset);
    else for (let i = 0; i < count; i++) this.bytes[offset + i] = bytes[i]!;
  }

  /** A copy of what was written from `start` on. */
  copy(start: number): Bytes {
    return this.bytes.slice(start, this.length);
  }

  /** Hands over what was written; `give` the view back to the pool when it is on its way. */
  take(): Bytes {
    const taken = this.bytes.subarray(0, this.length);
    this.bytes = EMPTY;
    this.length = 0;
    return taken;
  }

  /** Gives back a buffer that `take` handed over. */
  giveBack(taken: Bytes): void {
    this.#pool.give(new Uint8Array(taken.buffer));
  }

  #grow(needed: number): void {
    if (this.bytes.length === 0) this.bytes = this.#pool.lend();
    if (needed <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    larger.set(this.bytes.subarray(0, this.length));
    this.#pool.give(this.bytes);
    this.bytes = larger;
  }
}
