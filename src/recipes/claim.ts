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

/** What one identity writes again and again, kept because every acquire does it twice. */
interface Desk {
  /** The identity's part of the JSON, without the closing brace. */
  readonly json: string;
  /** The last plain claim that waits, and the last that is held. */
  waits: Written | undefined;
  holds: Written | undefined;
}

interface Written {
  readonly sinceMs: number;
  readonly heldMs: number | undefined;
  readonly value: Bytes;
}

const DESKS = new WeakMap<Identity, Desk>();

/** The bytes may be those of an earlier claim: what was made in one millisecond says the same. */
export function encodeClaim(identity: Identity, state: ClaimState): Bytes {
  const desk = deskOf(identity);
  const { sinceMs, heldMs } = state;
  if (state.owner !== undefined || state.delayed) return write(desk, state);
  const last = heldMs === undefined ? desk.waits : desk.holds;
  if (last?.sinceMs === sinceMs && last.heldMs === heldMs) return last.value;
  const written = { sinceMs, heldMs, value: write(desk, state) };
  if (heldMs === undefined) desk.waits = written;
  else desk.holds = written;
  return written.value;
}

function write(desk: Desk, state: ClaimState): Bytes {
  let json = `${desk.json},"since":${state.sinceMs}`;
  if (state.heldMs !== undefined) json += `,"${HELD}":${state.heldMs}`;
  if (state.owner !== undefined) json += `,"owner":${JSON.stringify(state.owner)}`;
  if (state.delayed) json += ',"delayed":true';
  return utf8(`${json}}`);
}

function deskOf(identity: Identity): Desk {
  let desk = DESKS.get(identity);
  if (!desk) {
    const { holder, host, pid } = identity;
    const json = JSON.stringify({ holder, host, pid }).slice(0, -1);
    desk = { json, waits: undefined, holds: undefined };
    DESKS.set(identity, desk);
  }
  return desk;
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
