/**
 * One entry of the audit log, and the bytes that its hash is made of.
 *
 * An entry holds the hash of the one before it, so a log can be checked by whoever has it, and its
 * newest hash stands for all of it. The encoding is a list of fields, each a length of four bytes,
 * big end first, and then as many bytes of UTF-8; numbers are written in decimal:
 *
 *   holdfast-audit-1  seq  wallMs  era  revision  server  user  tenant  certificate  address
 *   act  subject  outcome  reason  times  of  previous
 *
 * No two entries have one encoding, and it can be made anew in a few lines of any language.
 */
import { type Bytes, concatBytes, putUint32, text, toHex, utf8 } from '../base/bytes.ts';

/** `unknown`: begun, or its answer was lost; a later entry whose `of` names this one may tell. */
export type AuditOutcome = 'done' | 'refused' | 'unknown';

export const AUDIT_OUTCOMES: readonly AuditOutcome[] = ['done', 'refused', 'unknown'];

/** Who did something, as far as the server knows; what it does not know is empty. */
export interface AuditActor {
  readonly user: string;
  readonly tenant: string;
  /** Common name of the client's certificate, if one was verified. */
  readonly certificate: string;
  readonly address: string;
}

/** What was done, before it has a place in the chain. */
export interface AuditAct extends AuditActor {
  /** On the wall clock of the server; clocks of several need not agree. */
  readonly wallMs: number;
  /** A word with a dot: `user.add`. */
  readonly act: string;
  readonly subject: string;
  readonly outcome: AuditOutcome;
  readonly reason: string;
  /** So many alike are told by this one entry. */
  readonly times: number;
  /** The entry that said that it was begun; 0: none did. */
  readonly of: number;
}

export interface AuditEntry extends AuditAct {
  /** 1, 2, 3 …, without a gap. */
  readonly seq: number;
  readonly era: number;
  /** Where the store stood when the entry was made; it is kept in a later revision. */
  readonly revision: number;
  /** The name of the server that wrote it. */
  readonly server: string;
  /** Hash of the entry before, in hex; of the first one, zeros. */
  readonly previous: string;
  readonly hash: string;
}

export type Sha256 = (bytes: Bytes) => Bytes;

/** The place that an entry gets in the chain. */
export interface AuditPlace {
  readonly seq: number;
  readonly era: number;
  readonly revision: number;
  readonly server: string;
  readonly previous: string;
}

const VERSION = 'holdfast-audit-1';
export const NO_HASH: string = '0'.repeat(64);
/** Said where the era rises: what the former era wrote behind this point is in another chain. */
export const ERA_ACT = 'era.begin';
/** Stands for entries that were removed. */
export const PRUNE_ACT = 'audit.prune';

export const NOBODY: AuditActor = { user: '', tenant: '', certificate: '', address: '' };

export function encodeFields(fields: readonly (string | number)[]): Bytes {
  const parts: Bytes[] = [];
  for (const field of fields) {
    const value = utf8(String(field));
    const length = new Uint8Array(4);
    putUint32(length, 0, value.length);
    parts.push(length, value);
  }
  return concatBytes(...parts);
}

/** What the hash is made of. */
export function canonical(entry: Omit<AuditEntry, 'hash'>): Bytes {
  const { seq, wallMs, era, revision, server, user, tenant, certificate, address } = entry;
  const { act, subject, outcome, reason, times, of, previous } = entry;
  return encodeFields([
    ...[VERSION, seq, wallMs, era, revision, server, user, tenant, certificate, address],
    ...[act, subject, outcome, reason, times, of, previous],
  ]);
}

/** The entry in its place. Texts are cut to a bound, so that nobody can make an entry long. */
export function linked(act: AuditAct, place: AuditPlace, sha256: Sha256): AuditEntry {
  const entry = {
    seq: place.seq,
    wallMs: Math.floor(act.wallMs),
    era: place.era,
    revision: place.revision,
    server: short(place.server, NAME_LENGTH_MAX),
    user: short(act.user, NAME_LENGTH_MAX),
    tenant: short(act.tenant, NAME_LENGTH_MAX),
    certificate: short(act.certificate, NAME_LENGTH_MAX),
    address: short(act.address, NAME_LENGTH_MAX),
    act: act.act,
    subject: short(act.subject, TEXT_LENGTH_MAX),
    outcome: act.outcome,
    reason: short(act.reason, TEXT_LENGTH_MAX),
    times: act.times,
    of: act.of,
    previous: place.previous,
  };
  return { ...entry, hash: toHex(sha256(canonical(entry))) };
}

const NAME_LENGTH_MAX = 128;
const TEXT_LENGTH_MAX = 512;

/** Half a surrogate pair has no UTF-8 and would share its hash with another text. */
function short(value: string, lengthMax: number): string {
  const cut = value.length <= lengthMax ? value : `${value.slice(0, lengthMax - 1)}…`;
  return text(utf8(cut));
}

/** The entry as one line of JSON, always the same for the same entry; without a line feed. */
export function writeEntry(entry: AuditEntry): string {
  const { seq, wallMs, era, revision, server, user, tenant, certificate, address } = entry;
  const { act, subject, outcome, reason, times, of, previous, hash } = entry;
  const who = { server, user, tenant, certificate, address };
  const what = { act, subject, outcome, reason, times, of };
  return JSON.stringify({ seq, wallMs, era, revision, ...who, ...what, previous, hash });
}

const NUMBERS = ['seq', 'wallMs', 'era', 'revision', 'times', 'of'] as const;
const TEXTS = [
  ...(['server', 'user', 'tenant', 'certificate', 'address'] as const),
  ...(['act', 'subject', 'outcome', 'reason', 'previous', 'hash'] as const),
];

/** Undefined for every line that `writeEntry` does not write. */
export function readEntry(line: string): AuditEntry | undefined {
  let entry: AuditEntry;
  try {
    entry = JSON.parse(line) as AuditEntry;
  } catch {
    return undefined;
  }
  return isEntry(entry) && writeEntry(entry) === line ? entry : undefined;
}

function isEntry(value: unknown): value is AuditEntry {
  const entry = Object(value) as Record<string, unknown>;
  return (
    NUMBERS.every((name) => Number.isSafeInteger(entry[name]) && (entry[name] as number) >= 0) &&
    TEXTS.every((name) => typeof entry[name] === 'string' && isWhole(entry[name] as string)) &&
    AUDIT_OUTCOMES.includes(entry.outcome as AuditOutcome)
  );
}

function isWhole(value: string): boolean {
  return !/\p{Surrogate}/u.test(value);
}
