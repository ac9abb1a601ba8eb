/** Leases: time-bounded claims that own keys. */
import type { Bytes } from '../base/bytes.ts';
import type { Header, LeaseId } from './transaction.ts';

export interface LeaseGrantRequest {
  /** 0n or absent: the authority picks. */
  readonly id?: LeaseId;
  /** Raised to the engine's minimum if below, and answered as granted. */
  readonly ttlMs: number;
}

export interface LeaseGrant {
  readonly header: Header;
  readonly id: LeaseId;
  readonly ttlMs: number;
}

export interface LeaseRenewal {
  readonly header: Header;
  readonly id: LeaseId;
  /** Time left from when the authority handled the renewal. */
  readonly ttlMs: number;
}

export interface LeaseInfo {
  readonly header: Header;
  readonly id: LeaseId;
  readonly grantedTtlMs: number;
  readonly remainingTtlMs: number;
  /** Attached keys in key order; present only when asked for. */
  readonly keys?: readonly Bytes[];
}

export const LEASE_ID_MAX: LeaseId = 2n ** 63n - 1n;

/** etcd's bound on a time to live, 9,000,000,000 s, in milliseconds. */
export const LEASE_TTL_MS_MAX = 9_000_000_000_000;

/** The lease id as it stands in the keys of locks and elections: lower-case hex, no padding. */
export function leaseHex(id: LeaseId): string {
  return id.toString(16);
}
