/** Byte strings: comparison, joining, text, and the fixed-width numbers used in stored records. */
import { allocate, copyBytes } from './allocate.ts';

export type Bytes = Uint8Array;

export const EMPTY: Bytes = new Uint8Array(0);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Where short text is encoded before it is copied: `encode` costs several times as much. */
const desk = new Uint8Array(768);

export function utf8(text: string): Bytes {
  // A unit of text takes three bytes at most.
  if (text.length * 3 > desk.length) return encoder.encode(text);
  return copyBytes(desk, 0, encoder.encodeInto(text, desk).written);
}

export function text(bytes: Bytes): string {
  return decoder.decode(bytes);
}

/** Order of unsigned bytes; a prefix comes before what it begins. */
export function compareBytes(a: Bytes, b: Bytes): number {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

export function equalBytes(a: Bytes, b: Bytes): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function concatBytes(...parts: readonly Bytes[]): Bytes {
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = allocate(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/**
 * One character per byte: a string that is equal, ordered and hashed as the bytes are, so that
 * bytes can be keys of a Map. Not text.
 */
export function binaryString(bytes: Bytes): string {
  if (bytes.length <= BINARY_PIECE) return fromCodes(bytes);
  let out = '';
  for (let i = 0; i < bytes.length; i += BINARY_PIECE) {
    out += fromCodes(bytes.subarray(i, i + BINARY_PIECE));
  }
  return out;
}

/** Engines bound the number of arguments of a call. */
const BINARY_PIECE = 4_096;

function fromCodes(bytes: Bytes): string {
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

export function fromBinaryString(binary: string): Bytes {
  const bytes = allocate(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** Length with each zero byte counted twice: what a key takes where zero bytes must be escaped. */
export function escapedLength(bytes: Bytes): number {
  let zeros = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === 0) zeros++;
  return bytes.length + zeros;
}

export function toHex(bytes: Bytes): string {
  let out = '';
  for (const byte of bytes) out += byte.toString(16).padStart(2, '0');
  return out;
}

/** Shows a key to a person: as text when it is printable ASCII, in hex otherwise. */
export function printable(bytes: Bytes): string {
  const plain = bytes.every((byte) => byte >= 0x20 && byte < 0x7f);
  return plain ? text(bytes) : `0x${toHex(bytes)}`;
}

/** Writes a whole number below 2^48 as six bytes, big end first, so that bytes sort as numbers. */
export function putUint48(target: Bytes, offset: number, value: number): void {
  const high = Math.floor(value / 2 ** 32);
  target[offset] = high >>> 8;
  target[offset + 1] = high;
  target[offset + 2] = value >>> 24;
  target[offset + 3] = value >>> 16;
  target[offset + 4] = value >>> 8;
  target[offset + 5] = value;
}

export function getUint48(source: Bytes, offset: number): number {
  const high = source[offset]! * 0x100 + source[offset + 1]!;
  const low =
    source[offset + 2]! * 0x1000000 +
    ((source[offset + 3]! << 16) | (source[offset + 4]! << 8) | source[offset + 5]!);
  return high * 2 ** 32 + low;
}

export function putUint32(target: Bytes, offset: number, value: number): void {
  target[offset] = value >>> 24;
  target[offset + 1] = value >>> 16;
  target[offset + 2] = value >>> 8;
  target[offset + 3] = value;
}

export function getUint32(source: Bytes, offset: number): number {
  return (
    source[offset]! * 0x1000000 +
    ((source[offset + 1]! << 16) | (source[offset + 2]! << 8) | source[offset + 3]!)
  );
}

/** One 64-bit number and the same memory as two halves: no arithmetic on big numbers is needed. */
const whole = new BigInt64Array(1);
const halves = new Uint32Array(whole.buffer);
const LOW = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? 0 : 1;

/** Writes a signed 64-bit number, big end first. */
export function putInt64(target: Bytes, offset: number, value: bigint): void {
  whole[0] = value;
  putUint32(target, offset, halves[1 - LOW]!);
  putUint32(target, offset + 4, halves[LOW]!);
}

export function getInt64(source: Bytes, offset: number): bigint {
  halves[1 - LOW] = getUint32(source, offset);
  halves[LOW] = getUint32(source, offset + 4);
  return whole[0]!;
}
