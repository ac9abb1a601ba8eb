/**
 * Where everything stands in the one ordered table, and how records are written.
 *
 *   k <key>              the live key:  mod create version lease value
 *   r <rev>              the log:       what this revision changed, in order, each change with the
 *                                       version it left behind and the version it replaced
 *   l <lease id>         a lease:       ttl remaining
 *   a <lease id> <key>   key attached to the lease
 *   s                    the state:     revision compacted era alarms
 *   c                    the identity of this history
 *
 * The log carries both images of a change, so it alone tells the past: a watch reads its events
 * from it, a read at revision R takes the live keys that are old enough and, for each key changed
 * since, what the first change after R replaced. Reads of the present touch nothing but `k`,
 * deleted keys cost a scan nothing, superseded versions are written at the end of the log and not
 * all over the table, and compaction only cuts the log off at its beginning.
 */
import { allocate, copyBytes, writeBytes } from '../base/allocate.ts';
import {
  type Bytes,
  getInt64,
  getUint32,
  getUint48,
  putInt64,
  putUint32,
  putUint48,
} from '../base/bytes.ts';
import { crc32c } from '../base/checksum.ts';
import type { KeyValue, LeaseId, Revision } from '../model/transaction.ts';

const K = 0x6b;
const R = 0x72;
const L = 0x6c;
const A = 0x61;

export const STATE_KEY: Bytes = Uint8Array.of(0x73);
export const IDENTITY_KEY: Bytes = Uint8Array.of(0x63);

/** The bounds of one section of the table. */
export const LOG_START: Bytes = Uint8Array.of(R);
export const LOG_END: Bytes = Uint8Array.of(R + 1);
export const LEASES_START: Bytes = Uint8Array.of(L);
export const LEASES_END: Bytes = Uint8Array.of(L + 1);
const LIVE_END: Bytes = Uint8Array.of(K + 1);

export function liveKey(key: Bytes): Bytes {
  const out = allocate(key.length + 1);
  out[0] = K;
  writeBytes(out, 1, key);
  return out;
}

export function liveEnd(end: Bytes | undefined): Bytes {
  return end === undefined ? LIVE_END : liveKey(end);
}

/** The user's key in a key of section `k`. */
export function keyOfLive(stored: Bytes): Bytes {
  return stored.subarray(1);
}

export function logKey(revision: Revision): Bytes {
  const out = allocate(7);
  out[0] = R;
  putUint48(out, 1, revision);
  return out;
}

export function revisionOfLog(stored: Bytes): Revision {
  return getUint48(stored, 1);
}

export function leaseKey(id: LeaseId): Bytes {
  const out = allocate(9);
  out[0] = L;
  putInt64(out, 1, id);
  return out;
}

export function leaseOfKey(stored: Bytes): LeaseId {
  return getInt64(stored, 1);
}

export function attachmentKey(id: LeaseId, key: Bytes): Bytes {
  const out = allocate(9 + key.length);
  out[0] = A;
  putInt64(out, 1, id);
  writeBytes(out, 9, key);
  return out;
}

/** The attachments of one lease: from here … */
export function attachmentStart(id: LeaseId): Bytes {
  return attachmentKey(id, new Uint8Array(0));
}

/** … to here. Lease ids are positive, so the next id exists. */
export function attachmentEnd(id: LeaseId): Bytes {
  const out = attachmentStart(id);
  for (let i = 8; i >= 0; i--) {
    out[i]!++;
    if (out[i] !== 0) break;
  }
  return out;
}

export function keyOfAttachment(stored: Bytes): Bytes {
  return copyBytes(stored, 9);
}

const VERSION_HEAD = 26;

/** A version of a key, beside the key itself. */
export function encodeVersion(kv: Omit<KeyValue, 'key'>): Bytes {
  const out = allocate(VERSION_HEAD + kv.value.length);
  putUint48(out, 0, kv.modRevision);
  putUint48(out, 6, kv.createRevision);
  putUint48(out, 12, kv.version);
  if (kv.lease !== 0n) putInt64(out, 18, kv.lease);
  writeBytes(out, VERSION_HEAD, kv.value);
  return out;
}

/** What the checksum of an empty store is: clients of etcd take 0 for "no checksum". */
export const HASH_OF_NOTHING = 1;

/** Continues the checksum of a whole store, which is the same on every engine, by one key. */
export function hashFurther(hash: number, kv: KeyValue): number {
  return crc32c(encodeVersion(kv), crc32c(kv.key, hash));
}

export function decodeVersion(key: Bytes, record: Bytes): KeyValue {
  return {
    key,
    value: copyBytes(record, VERSION_HEAD),
    createRevision: getUint48(record, 6),
    modRevision: getUint48(record, 0),
    version: getUint48(record, 12),
    lease: leaseOfVersion(record),
  };
}

export function modOfVersion(record: Bytes): Revision {
  return getUint48(record, 0);
}

export function createOfVersion(record: Bytes): Revision {
  return getUint48(record, 6);
}

export function versionOfVersion(record: Bytes): number {
  return getUint48(record, 12);
}

/** A view of the record, which must not change. */
export function valueOfVersion(record: Bytes): Bytes {
  return record.subarray(VERSION_HEAD);
}

export function leaseOfVersion(record: Bytes): LeaseId {
  for (let i = 18; i < VERSION_HEAD; i++) if (record[i] !== 0) return getInt64(record, 18);
  return 0n;
}

/** One change in the log. A deletion leaves no version behind; a creation replaces none. */
export interface LoggedChange {
  readonly key: Bytes;
  /** As `encodeVersion` wrote it. */
  readonly after: Bytes | undefined;
  readonly before: Bytes | undefined;
}

/** Each change: three lengths, then the key and the two versions; a length of 0 is "none". */
const CHANGE_HEAD = 12;

export function encodeLog(changes: readonly LoggedChange[]): Bytes {
  let length = 0;
  for (const { key, after, before } of changes) {
    length += CHANGE_HEAD + key.length + (after?.length ?? 0) + (before?.length ?? 0);
  }
  const out = allocate(length);
  let at = 0;
  for (const { key, after, before } of changes) {
    putUint32(out, at, key.length);
    putUint32(out, at + 4, after?.length ?? 0);
    putUint32(out, at + 8, before?.length ?? 0);
    at = writeBytes(out, at + CHANGE_HEAD, key);
    if (after) at = writeBytes(out, at, after);
    if (before) at = writeBytes(out, at, before);
  }
  return out;
}

/** Visits the changes of a log record in order until `visit` answers false; all views, no copies. */
export function visitLog(record: Bytes, visit: (change: LoggedChange) => boolean): void {
  for (let at = 0; at < record.length; ) {
    const key = at + CHANGE_HEAD;
    const after = key + getUint32(record, at);
    const before = after + getUint32(record, at + 4);
    const end = before + getUint32(record, at + 8);
    const change = {
      key: record.subarray(key, after),
      after: before > after ? record.subarray(after, before) : undefined,
      before: end > before ? record.subarray(before, end) : undefined,
    };
    if (!visit(change)) return;
    at = end;
  }
}

/** What a restart must know of a lease: its TTL, and what was left of it when last written. */
export interface StoredLease {
  readonly ttlMs: number;
  readonly remainingMs: number;
}

export function encodeLease(lease: StoredLease): Bytes {
  const out = allocate(12);
  putUint48(out, 0, lease.ttlMs);
  putUint48(out, 6, lease.remainingMs);
  return out;
}

export function decodeLease(record: Bytes): StoredLease {
  return { ttlMs: getUint48(record, 0), remainingMs: getUint48(record, 6) };
}

/** The state that every commit carries. */
export interface State {
  readonly revision: Revision;
  readonly compactRevision: Revision;
  readonly era: number;
  readonly noSpace: boolean;
  readonly corrupt: boolean;
}

/** A fresh store stands at revision 1, as etcd's does; nothing is compacted. */
export const FRESH_STATE: State = {
  revision: 1,
  compactRevision: 0,
  era: 0,
  noSpace: false,
  corrupt: false,
};

export function encodeState(state: State): Bytes {
  const out = allocate(15);
  putUint48(out, 0, state.revision);
  putUint48(out, 6, state.compactRevision);
  out[12] = state.era >>> 8;
  out[13] = state.era;
  out[14] = (state.noSpace ? 1 : 0) | (state.corrupt ? 2 : 0);
  return out;
}

export function decodeState(record: Bytes | undefined): State {
  if (!record) return FRESH_STATE;
  return {
    revision: getUint48(record, 0),
    compactRevision: getUint48(record, 6),
    era: record[12]! * 0x100 + record[13]!,
    noSpace: (record[14]! & 1) !== 0,
    corrupt: (record[14]! & 2) !== 0,
  };
}
