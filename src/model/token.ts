/**
 * Fencing tokens: `era · 2^48 + revision`, a positive 63-bit integer.
 *
 * In the first era (0) a token is simply the revision. A restore raises the era, so every token
 * after it is greater than every token before it, whatever revision the backup carried.
 */
import { HoldfastError } from './errors.ts';

export type Token = bigint;

const REVISION_BITS = 48n;
export const REVISION_MAX: number = 2 ** 48 - 1;
export const ERA_MAX: number = 2 ** 15 - 1;
export const TOKEN_MAX: Token = 2n ** 63n - 1n;

export function makeToken(era: number, revision: number): Token {
  if (!Number.isInteger(era) || era < 0 || era > ERA_MAX) {
    throw new HoldfastError('token-invalid', `era ${era} is not in 0..${ERA_MAX}`);
  }
  if (!Number.isInteger(revision) || revision < 1 || revision > REVISION_MAX) {
    throw new HoldfastError('token-invalid', `revision ${revision} is not in 1..2^48-1`);
  }
  return (BigInt(era) << REVISION_BITS) + BigInt(revision);
}

export function tokenEra(token: Token): number {
  return Number(token >> REVISION_BITS);
}

export function tokenRevision(token: Token): number {
  return Number(token & ((1n << REVISION_BITS) - 1n));
}

/** The form on wires and in headers: decimal digits, no sign, no leading zero. */
export function formatToken(token: Token): string {
  return token.toString(10);
}

/** Reads what `formatToken` wrote and nothing else; a near miss is refused, never repaired. */
export function parseToken(input: unknown): Token {
  const token = typeof input === 'bigint' ? input : parseDecimal(input);
  if (token === undefined || token < 1n || token > TOKEN_MAX) {
    throw new HoldfastError(
      'token-invalid',
      `${describe(input)} is not a token: expected a whole number from 1 to 2^63-1 in decimal`,
    );
  }
  return token;
}

function parseDecimal(input: unknown): bigint | undefined {
  if (typeof input === 'number') return Number.isSafeInteger(input) ? BigInt(input) : undefined;
  if (typeof input !== 'string' || !/^[1-9][0-9]{0,18}$/.test(input)) return undefined;
  return BigInt(input);
}

function describe(input: unknown): string {
  return typeof input === 'string' ? JSON.stringify(input.slice(0, 40)) : String(input);
}

export function compareTokens(a: Token, b: Token): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
