/**
 * base64url (RFC 4648, section 5) without padding. Reading is strict: one text for each value, so
 * that nobody can alter a text that is compared or signed and keep its meaning.
 */
import type { Bytes } from './bytes.ts';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const VALUES: ReadonlyMap<string, number> = new Map([...ALPHABET].map((sign, at) => [sign, at]));

export function toBase64url(bytes: Bytes): string {
  let out = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const group = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    const signs = Math.min(4, bytes.length - i + 1);
    for (let at = 0; at < signs; at++) out += ALPHABET[(group >> (18 - 6 * at)) & 63];
  }
  return out;
}

/** `undefined` for anything that `toBase64url` does not write. */
export function fromBase64url(text: string): Bytes | undefined {
  if (text.length % 4 === 1) return undefined;
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let group = 0;
  let bits = 0;
  let at = 0;
  for (const sign of text) {
    const value = VALUES.get(sign);
    if (value === undefined) return undefined;
    group = (group << 6) | value;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes[at++] = group >> bits;
    group &= (1 << bits) - 1;
  }
  // Bits that belong to no byte must be the zeros that were written.
  return group === 0 ? bytes : undefined;
}
