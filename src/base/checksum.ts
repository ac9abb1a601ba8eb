/** CRC-32C (Castagnoli), eight bytes at a time. Every stored record carries one. */
import type { Bytes } from './bytes.ts';

/** Eight tables of 256: the effect of a byte that 0 to 7 more bytes follow. */
const TABLES = new Int32Array(8 * 256);
for (let i = 0; i < 256; i++) {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  TABLES[i] = crc;
}
for (let i = 256; i < 8 * 256; i++) {
  const shorter = TABLES[i - 256]!;
  TABLES[i] = TABLES[shorter & 0xff]! ^ (shorter >>> 8);
}

/** Continues from `crc`, so that a checksum can run over several pieces. */
export function crc32c(bytes: Bytes, crc = 0): number {
  let state = ~crc;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    state ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    state =
      TABLES[1792 + (state & 0xff)]! ^
      TABLES[1536 + ((state >>> 8) & 0xff)]! ^
      TABLES[1280 + ((state >>> 16) & 0xff)]! ^
      TABLES[1024 + (state >>> 24)]! ^
      TABLES[768 + bytes[i + 4]!]! ^
      TABLES[512 + bytes[i + 5]!]! ^
      TABLES[256 + bytes[i + 6]!]! ^
      TABLES[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) state = TABLES[(state ^ bytes[i]!) & 0xff]! ^ (state >>> 8);
  return ~state >>> 0;
}
