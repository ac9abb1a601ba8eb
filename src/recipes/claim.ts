/**
 * What stands under a claim's key: who claims, since when, and whether the claim has become a
 * hold. Foreign clients store an empty value; then only the lease is known.
 */
import { type Bytes, utf8 } from '../base/bytes.ts';
import type { KeyValue, LeaseId } from '../model/transaction.ts';
import { type Identity, parseRecord } from './authority.ts';

export interface ClaimRecord {
  readonly holder?: string | undefined;
  readonly host?: string | undefined;
  readonly pid?: number | undefined;
  /** Who of the process: a task or job; deadlocks are found between owners. */
  readonly owner?: string | undefined;
  /** When it came, as the claimant's wall clock says. */
  readonly sinceMs?: number | undefined;
  /** When it became the holder; absent while it waits. */
  readonly heldMs?: number | undefined;
  /** A second key outlives this one after an unclean loss. */
  readonly delayed?: boolean | undefined;
}

/** A claim as others see it. */
export interface Claim extends ClaimRecord {
  readonly key: Bytes;
  readonly lease: LeaseId;
  /** Its place in the order of all claims; with the era, its token. */
  readonly createRevision: number;
}

export interface ClaimState {
  readonly sinceMs: number;
  readonly heldMs?: number | undefined;
  readonly owner?: string | undefined;
  readonly delayed?: boolean | undefined;
}

/** Named so that a value which a user gave to an election is not mistaken for it. */
const HELD = 'holdfast-held';

/** Written by hand because every acquire does it. */
export function encodeClaim(identity: Identity, state: ClaimState): Bytes {
  let json = `${identityJson(identity)},"since":${state.sinceMs}`;
  if (state.heldMs !== undefined) json += `,"${HELD}":${state.heldMs}`;
  if (state.owner !== undefined) json += `,"owner":${JSON.stringify(state.owner)}`;
  if (state.delayed) json += ',"delayed":true';
  return utf8(`${json}}`);
}

const IDENTITIES = new WeakMap<Identity, string>();

function identityJson(identity: Identity): string {
  let json = IDENTITIES.get(identity);
  if (json === undefined) {
    const { holder, host, pid } = identity;
    json = JSON.stringify({ holder, host, pid }).slice(0, -1);
    IDENTITIES.set(identity, json);
  }
  return json;
}

export function decodeClaim(value: Bytes): ClaimRecord {
  const record = parseRecord(value);
  if (!record) return {};
  const textOf = (field: unknown): string | undefined =>
    typeof field === 'string' ? field : undefined;
  const numberOf = (field: unknown): number | undefined =>
    typeof field === 'number' ? field : undefined;
  return {
    holder: textOf(record.holder),
    host: textOf(record.host),
    pid: numberOf(record.pid),
    owner: textOf(record.owner),
    sinceMs: numberOf(record.since),
    heldMs: numberOf(record[HELD]),
    delayed: record.delayed === true,
  };
}

export function claimOf(kv: KeyValue): Claim {
  return {
    ...decodeClaim(kv.value),
    key: kv.key,
    lease: kv.lease,
    createRevision: kv.createRevision,
  };
}

export function describeClaim(claim: ClaimRecord & { readonly lease?: LeaseId }): string {
  const who = claim.holder ?? (claim.lease ? `lease ${claim.lease.toString(16)}` : 'somebody');
  const since = claim.heldMs ?? claim.sinceMs;
  return since === undefined ? who : `${who} since ${new Date(since).toISOString()}`;
}
