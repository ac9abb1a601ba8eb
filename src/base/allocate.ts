/**
 * Room for byte strings of the size that records have.
 *
 * An array beyond 64 bytes has memory of its own outside the engine's heap, which costs ten times
 * what a view of memory that is already there does, to make and again to collect. So pieces of
 * middling size are cut from a slab. A piece is given out once and never again; a slab stays as
 * long as any of its pieces.
 *
 * A piece shares its `buffer` with others: pass on the array, never `array.buffer` alone, and
 * transfer neither.
 */
import type { Bytes } from './bytes.ts';

const SLAB_BYTES = 8_192;
/** Up to here an array lives on the heap, and is cheap by itself. */
const ON_HEAP_BYTES_MAX = 64;
/** Beyond this a slab would hold too few pieces to be worth it. */
const PIECE_BYTES_MAX = 1_024;

let slab = new ArrayBuffer(SLAB_BYTES);
let used = 0;

/** A new array, all zero. */
export function allocate(length: number): Bytes {
  if (length <= ON_HEAP_BYTES_MAX || length > PIECE_BYTES_MAX) return new Uint8Array(length);
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
  // A Buffer's `slice` would be the same memory; `set` from a view of it costs a view.
  const copy = allocate(length);
  if (length > LOOP_BYTES_MAX) copy.set(source.subarray(start, end));
  else for (let i = 0; i < length; i++) copy[i] = source[start + i]!;
  return copy;
}

/** Below this a loop is faster than a call into the platform. */
const LOOP_BYTES_MAX = 128;
