/**
 * Writes protobuf's wire format from the end to the front: the length of what is inside is known
 * when its prefix is due, so one pass suffices and nothing is measured or moved.
 *
 * Finished messages are views of a shared slab whose bytes are never written again.
 */
import type { Bytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { split, splitHigh, splitLow } from './reader.ts';

const SLAB_BYTES = 65_536;
/** Longer texts go through the platform's encoder. */
const SHORT_TEXT = 64;
const textEncoder = new TextEncoder();

export class Writer {
  #slab: Bytes = new Uint8Array(SLAB_BYTES);
  /** What is written begins here … */
  #at = SLAB_BYTES;
  /** … and ends here. */
  #stop = SLAB_BYTES;

  /** Forgets what a failed encoding left. */
  begin(): void {
    this.#at = this.#stop;
  }

  /** What has been written since `begin`. */
  finish(): Bytes {
    const bytes = this.#slab.subarray(this.#at, this.#stop);
    this.#stop = this.#at;
    return bytes;
  }

  /** How much has been written; the mark for `close`. */
  get length(): number {
    return this.#stop - this.#at;
  }

  /** Puts length and tag in front of what was written since the mark. */
  close(tag: number, mark: number): void {
    this.#varint(this.length - mark);
    this.#varint(tag);
  }

  bool(tag: number, value: boolean): void {
    this.#varint(value ? 1 : 0);
    this.#varint(tag);
  }

  uint32(tag: number, value: number): void {
    this.#varint(value >>> 0);
    this.#varint(tag);
  }

  int32(tag: number, value: number): void {
    this.packedInt32(value);
    this.#varint(tag);
  }

  /** An element of a packed list: no tag. */
  packedInt32(value: number): void {
    if (value >= 0) this.#varint(value >>> 0);
    else this.#pair(value >>> 0, 0xffff_ffff);
  }

  int64(tag: number, value: number): void {
    if (value >= 0 && value <= 0xffff_ffff && Number.isInteger(value)) this.#varint(value);
    else {
      if (!Number.isSafeInteger(value)) throw unsafe(value);
      this.#pair(value >>> 0, Math.floor(value / 0x1_0000_0000) >>> 0);
    }
    this.#varint(tag);
  }

  uint64(tag: number, value: number): void {
    if (value < 0) throw unsafe(value);
    this.int64(tag, value);
  }

  bigInt64(tag: number, value: bigint): void {
    split(value);
    this.#pair(splitLow(), splitHigh());
    this.#varint(tag);
  }

  bytes(tag: number, value: Bytes): void {
    const { length } = value;
    this.#room(length);
    const at = this.#at - length;
    if (length < 24) for (let i = 0; i < length; i++) this.#slab[at + i] = value[i]!;
    else this.#slab.set(value, at);
    this.#at = at;
    this.#varint(length);
    this.#varint(tag);
  }

  string(tag: number, value: string): void {
    if (value.length > SHORT_TEXT || !this.#ascii(value)) {
      this.bytes(tag, textEncoder.encode(value));
      return;
    }
    this.#varint(value.length);
    this.#varint(tag);
  }

  /** Five bytes in front, as gRPC frames a message. */
  frame(flags: number): void {
    const { length } = this;
    this.#room(5);
    const at = this.#at - 5;
    this.#slab[at] = flags;
    this.#slab[at + 1] = length >>> 24;
    this.#slab[at + 2] = length >>> 16;
    this.#slab[at + 3] = length >>> 8;
    this.#slab[at + 4] = length;
    this.#at = at;
  }

  #ascii(value: string): boolean {
    const { length } = value;
    this.#room(length);
    const at = this.#at - length;
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) return false;
      this.#slab[at + i] = code;
    }
    this.#at = at;
    return true;
  }

  #varint(value: number): void {
    if (value < 0x80) {
      this.#room(1);
      this.#slab[--this.#at] = value;
    } else this.#pair(value, 0);
  }

  /** A varint of two unsigned halves. */
  #pair(low: number, high: number): void {
    let size = 1;
    if (high === 0) for (let rest = low >>> 7; rest !== 0; rest >>>= 7) size++;
    else {
      size = 5;
      for (let rest = high >>> 3; rest !== 0; rest >>>= 7) size++;
    }
    this.#room(size);
    let at = this.#at - size;
    this.#at = at;
    let lowBits = low;
    let highBits = high;
    for (let i = 1; i < size; i++) {
      this.#slab[at++] = (lowBits & 0x7f) | 0x80;
      lowBits = (lowBits >>> 7) | (highBits << 25);
      highBits >>>= 7;
    }
    this.#slab[at] = lowBits & 0x7f;
  }

  /** Makes sure that `count` bytes fit in front; moves what is unfinished to a new slab if not. */
  #room(count: number): void {
    if (this.#at >= count) return;
    const { length } = this;
    const slab = new Uint8Array(Math.max(SLAB_BYTES, (length + count) * 2));
    slab.set(this.#slab.subarray(this.#at, this.#stop), slab.length - length);
    this.#slab = slab;
    this.#stop = slab.length;
    this.#at = slab.length - length;
  }
}

function unsafe(value: number): HoldfastError {
  return new HoldfastError('invalid-argument', `${value} cannot be sent as a 64-bit number`);
}
