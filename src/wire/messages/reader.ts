/**
 * Reads protobuf's wire format. Every fault of the input is a HoldfastError `invalid-argument`;
 * nothing is read beyond `end`, and nesting is bounded.
 *
 * 64-bit values come as numbers or bigints, as the field says. A number beyond 2^53 is clamped to
 * the nearest safe integer: no revision, count or time comes near, so that every comparison and
 * every limit judges the clamped value as it would the real one.
 */
import { type Bytes, EMPTY } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';

export const DEPTH_MAX = 100;
const LENGTH_DELIMITED = 2;
const GROUP_START = 3;
const GROUP_END = 4;
/** Strings up to this many bytes are read without the platform's decoder, which is slow to call. */
const SHORT_TEXT = 32;

const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const MAX = Number.MAX_SAFE_INTEGER;
/** The upper half of a 64-bit number from which on a double is not exact. */
const HIGH_MAX = 2 ** 21;

/** Two halves become one bigint through memory: several times faster than shifting. */
const halves = new Uint32Array(2);
const signed = new BigInt64Array(halves.buffer);
const unsigned = new BigUint64Array(halves.buffer);
const LOW = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;

/** Ids repeat (of the cluster, of leases), so the last ones are kept: making a bigint allocates. */
const CACHE_SIZE = 256;
const cachedLow = new Uint32Array(CACHE_SIZE);
const cachedHigh = new Uint32Array(CACHE_SIZE);
const cached: bigint[] = new Array(CACHE_SIZE).fill(0n);

function malformed(problem: string): HoldfastError {
  return new HoldfastError('invalid-argument', `malformed message: ${problem}`);
}

export class Reader {
  readonly #bytes: Bytes;
  at = 0;
  /** Of the message being read. */
  end: number;
  #depth = 0;
  /** The halves of the last long varint. */
  #low = 0;
  #high = 0;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.end = bytes.length;
  }

  tag(): number {
    const { at } = this;
    if (at < this.end) {
      const byte = this.#bytes[at]!;
      if (byte < 0x80) {
        this.at = at + 1;
        return byte;
      }
    }
    this.#long();
    if (this.#high !== 0 || this.at - at > 5) throw malformed('a field number beyond 32 bits');
    return this.#low >>> 0;
  }

  uint32(): number {
    const { at } = this;
    if (at < this.end) {
      const byte = this.#bytes[at]!;
      if (byte < 0x80) {
        this.at = at + 1;
        return byte;
      }
    }
    this.#long();
    return this.#low >>> 0;
  }

  int32(): number {
    return this.uint32() | 0;
  }

  bool(): boolean {
    const { at } = this;
    if (at < this.end && this.#bytes[at]! < 2) {
      this.at = at + 1;
      return this.#bytes[at] === 1;
    }
    this.#long();
    return this.#low !== 0 || this.#high !== 0;
  }

  int64(): number {
    const { at } = this;
    if (at < this.end) {
      const byte = this.#bytes[at]!;
      if (byte < 0x80) {
        this.at = at + 1;
        return byte;
      }
    }
    this.#long();
    const high = this.#high | 0;
    if (high >= HIGH_MAX) return MAX;
    if (high < -HIGH_MAX) return -MAX;
    const value = high * 0x1_0000_0000 + (this.#low >>> 0);
    return Math.max(value, -MAX);
  }

  uint64(): number {
    const { at } = this;
    if (at < this.end) {
      const byte = this.#bytes[at]!;
      if (byte < 0x80) {
        this.at = at + 1;
        return byte;
      }
    }
    this.#long();
    const high = this.#high >>> 0;
    return high >= HIGH_MAX ? MAX : high * 0x1_0000_0000 + (this.#low >>> 0);
  }

  bigInt64(): bigint {
    const value = this.bigUint64();
    return this.#high < 0 ? BigInt.asIntN(64, value) : value;
  }

  bigUint64(): bigint {
    this.#long();
    const low = this.#low >>> 0;
    const high = this.#high >>> 0;
    if (low === 0 && high === 0) return 0n;
    const place = (low ^ (high * 31)) & (CACHE_SIZE - 1);
    if (cachedLow[place] === low && cachedHigh[place] === high) return cached[place]!;
    halves[LOW] = low;
    halves[HIGH] = high;
    cachedLow[place] = low;
    cachedHigh[place] = high;
    const value = unsigned[0]!;
    cached[place] = value;
    return value;
  }

  /** A copy: what is kept must not hold on to, or change with, the memory it came in. */
  bytes(): Bytes {
    const length = this.#length();
    if (length === 0) return EMPTY;
    const { at } = this;
    this.at = at + length;
    return this.#bytes.slice(at, at + length);
  }

  string(): string {
    const length = this.#length();
    const { at } = this;
    const stop = at + length;
    this.at = stop;
    const bytes = this.#bytes;
    if (length <= SHORT_TEXT) {
      let out = '';
      let i = at;
      for (; i < stop; i++) {
        const byte = bytes[i]!;
        if (byte >= 0x80) break;
        out += String.fromCharCode(byte);
      }
      if (i === stop) return out;
    }
    try {
      return textDecoder.decode(bytes.subarray(at, stop));
    } catch {
      throw malformed('a string that is not UTF-8');
    }
  }

  /** Begins a message (or a packed list) inside; the answer goes to `leave`. */
  enter(): number {
    const length = this.#length();
    if (++this.#depth > DEPTH_MAX) throw malformed(`nested deeper than ${DEPTH_MAX}`);
    const outer = this.end;
    this.end = this.at + length;
    return outer;
  }

  leave(outer: number): void {
    this.#depth--;
    this.end = outer;
  }

  /** A field that the message does not know, or knows with another type. */
  skip(tag: number, known: readonly number[]): void {
    const number = tag >>> 3;
    if (number === 0) throw malformed('field number 0');
    if (known.includes(number)) throw malformed(`field ${number} has the wrong type`);
    this.#skipValue(number, tag & 7, this.#depth);
  }

  #skipValue(number: number, wireType: number, depth: number): void {
    switch (wireType) {
      case 0:
        this.#long();
        return;
      case 1:
        this.#forward(8);
        return;
      case LENGTH_DELIMITED:
        this.#forward(this.#length());
        return;
      case GROUP_START:
        this.#skipGroup(number, depth + 1);
        return;
      case 5:
        this.#forward(4);
        return;
      default:
        throw malformed(wireType === GROUP_END ? 'a group ends unopened' : 'an unknown type');
    }
  }

  #skipGroup(number: number, depth: number): void {
    if (depth > DEPTH_MAX) throw malformed(`nested deeper than ${DEPTH_MAX}`);
    for (;;) {
      const tag = this.tag();
      const inner = tag >>> 3;
      if (inner === 0) throw malformed('field number 0');
      if ((tag & 7) === GROUP_END) {
        if (inner !== number) throw malformed('a group ends with another number');
        return;
      }
      this.#skipValue(inner, tag & 7, depth);
    }
  }

  #forward(count: number): void {
    if (count > this.end - this.at) throw malformed('truncated');
    this.at += count;
  }

  #length(): number {
    const { at } = this;
    let length: number;
    if (at < this.end && this.#bytes[at]! < 0x80) {
      length = this.#bytes[at]!;
      this.at = at + 1;
    } else {
      this.#long();
      length = this.#high === 0 ? this.#low >>> 0 : Number.POSITIVE_INFINITY;
    }
    if (length > this.end - this.at) throw malformed('truncated');
    return length;
  }

  /** A varint of any length into the two halves. */
  #long(): void {
    const bytes = this.#bytes;
    const { end } = this;
    let { at } = this;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= end) throw malformed('truncated');
      const byte = bytes[at++]!;
      const bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else high |= shift < 63 ? bits << (shift - 32) : bits << 31;
      if (byte < 0x80) {
        if (shift === 63 && byte > 1) throw malformed('a number beyond 64 bits');
        this.at = at;
        this.#low = low;
        this.#high = high;
        return;
      }
    }
    throw malformed('a number longer than ten bytes');
  }
}

/** Splits a bigint for the writer; bits beyond 64 are cut. */
export function split(value: bigint): void {
  signed[0] = value;
}

export function splitLow(): number {
  return halves[LOW]!;
}

export function splitHigh(): number {
  return halves[HIGH]!;
}
