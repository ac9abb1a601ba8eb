/**
 * Room for byte strings of the size that keys and records have.
 *
 * Making an array with memory of its own is dear: beyond 64 bytes at once, and below as soon as a
 * view of it is taken; and it is as dear again to collect. So short pieces are cut from a slab. A
 * piece is given out once and never again; a slab stays as long as any of its pieces.
 *
 * A piece shares its `buffer` with others: pass on the array, never `array.buffer` alone, and
 * transfer neither.
 */
import type { Bytes } from './bytes.ts';

const SLAB_BYTES = 8_192;
/** Beyond this a slab would hold too few pieces to be worth it. */
const PIECE_BYTES_MAX = 1_024;

let slab = new ArrayBuffer(SLAB_BYTES);
let used = 0;

/** A new array, all zero. */
export function allocate(length: number): Bytes {
  if (length > PIECE_BYTES_MAX) return new Uint8Array(length);
  if (used + length > SLAB_BYTES) {
    slab = new ArrayBuffer(SLAB_BYTES);
    used = 0;
  }
  const piece = new Uint8Array(slab, used, length);
  used += length;
  return piece;
}

/** A copy of `source` from `start` on, up to and without `end`. */
export function copyBytes(source: Bytes, start = 0, end: number = source.length): Bytes {
  const length = end - start;
  const copy = allocate(length);
  if (length > LOOP_BYTES_MAX) copy.set(source.subarray(start, end));
  else for (let i = 0; i < length; i++) copy[i] = source[start + i]!;
  return copy;
}

/** Writes `source` into `target` and answers where it ends. */
export function writeBytes(target: Bytes, at: number, source: Bytes): number {
  const { length } = source;
  if (length > LOOP_BYTES_MAX) target.set(source, at);
  else for (let i = 0; i < length; i++) target[at + i] = source[i]!;
  return at + length;
}

/** Below this a loop is faster than a view and a call into the platform. */
const LOOP_BYTES_MAX = 64;
