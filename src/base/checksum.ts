/** CRC-32C (Castagnoli), four bytes at a time. Every stored record carries one. */
import type { Bytes } from './bytes.ts';

/** Four tables of 256: the effect of a byte that 0, 1, 2 or 3 more bytes follow. */
const TABLES = new Int32Array(4 * 256);
for (let i = 0; i < 256; i++) {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  TABLES[i] = crc;
}
for (let i = 256; i < 4 * 256; i++) {
  const shorter = TABLES[i - 256]!;
  TABLES[i] = TABLES[shorter & 0xff]! ^ (shorter >>> 8);
}

/** Continues from `crc`, so that a checksum can run over several pieces. */
export function crc32c(bytes: Bytes, crc = 0): number {
  let state = ~crc;
  let i = 0;
  for (const end = bytes.length - 3; i < end; i += 4) {
    state ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    state =
      TABLES[768 + (state & 0xff)]! ^
      TABLES[512 + ((state >>> 8) & 0xff)]! ^
      TABLES[256 + ((state >>> 16) & 0xff)]! ^
      TABLES[state >>> 24]!;
  }
  for (; i < bytes.length; i++) state = TABLES[(state ^ bytes[i]!) & 0xff]! ^ (state >>> 8);
  return ~state >>> 0;
}
