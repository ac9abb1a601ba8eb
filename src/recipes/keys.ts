/**
 * Where recipes keep their keys.
 *
 * Locks and elections stand in etcd's own layout, `<name>/<lease in hex>`, so that `etcdctl lock`
 * and Go's `concurrency` package queue in the same line. Everything else lives under `.holdfast/`,
 * with names escaped so that `a` and `a/b` never share a prefix. A namespace goes before both.
 */
import { type Bytes, binaryString, concatBytes, text, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { leaseHex } from '../model/lease.ts';
import type { LeaseId } from '../model/transaction.ts';

const RESERVED = '.holdfast/';
const NAME_LENGTH_MAX = 1_024;

export function checkName(name: string): string {
  const well =
    typeof name === 'string' &&
    name.length > 0 &&
    name.length <= NAME_LENGTH_MAX &&
    !name.includes('\0') &&
    !name.startsWith('/') &&
    !name.endsWith('/') &&
    !name.startsWith(RESERVED);
  if (well) return name;
  throw new HoldfastError(
    'invalid-argument',
    `${JSON.stringify(name)} is not a name: 1 to ${NAME_LENGTH_MAX} characters, no slash at either end, not below "${RESERVED}"`,
  );
}

/** The line in which the claims on a lock or an election stand. */
export function linePrefix(namespace: string, name: string): Bytes {
  return utf8(`${namespace}${checkName(name)}/`);
}

/** A key of our own: `<namespace>.holdfast/<kind>/<name>[/<rest>]`. */
export function ownKey(namespace: string, kind: string, name: string, rest?: string): Bytes {
  const place = `${namespace}${RESERVED}${kind}/${escapeName(name)}`;
  return utf8(rest === undefined ? place : `${place}/${rest}`);
}

function escapeName(name: string): string {
  try {
    return encodeURIComponent(name);
  } catch {
    throw new HoldfastError('invalid-argument', 'a name must be well-formed text');
  }
}

/**
 * Whether `key` stands in the line of `prefix` itself. A lock named `a/b` keeps its claims below
 * the prefix of a lock named `a`; they are no claims on `a`.
 */
export function standsIn(prefix: Bytes, key: Bytes): boolean {
  for (let i = prefix.length; i < key.length; i++) if (key[i] === 0x2f) return false;
  return true;
}

/** The lease that a claim's key names, if it has the form of one. */
export function leaseOfClaim(prefix: Bytes, key: Bytes): LeaseId | undefined {
  const match = /^([0-9a-f]{1,16})(?:[-~].*)?$/.exec(text(key.subarray(prefix.length)));
  return match ? BigInt(`0x${match[1]}`) : undefined;
}

/** Where the claims of one session in one line have their keys. */
export interface ClaimKeys {
  readonly prefix: Bytes;
  /** The prefix as a string: lines are told apart by bytes, not by what people call them. */
  readonly line: string;
  /** The key of slot 0, which nearly every claim has. */
  readonly first: Bytes;
}

export function claimKeys(prefix: Bytes, lease: LeaseId): ClaimKeys {
  return { prefix, line: binaryString(prefix), first: claimKey(prefix, lease, 0) };
}

/**
 * The key of one claim. The first claim of a session has etcd's form; further ones of the same
 * session in the same line get a number, so that tasks of one process exclude each other too.
 */
export function claimKey(prefix: Bytes, lease: LeaseId, slot: number): Bytes {
  return concatBytes(prefix, utf8(slot === 0 ? leaseHex(lease) : `${leaseHex(lease)}-${slot}`));
}
