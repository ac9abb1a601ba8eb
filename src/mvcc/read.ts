/** Reading: single keys and ranges, now or at an earlier revision. Deterministic; no I/O. */
import { type Bytes, binaryString, compareBytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { contains, type Interval, interval, isEmptyInterval, isSingle } from '../model/range.ts';
import type {
  KeyValue,
  RangeOperationResult,
  RangeRequest,
  Revision,
  SortTarget,
} from '../model/transaction.ts';
import {
  createOfVersion,
  decodeVersion,
  keyOfLive,
  LOG_END,
  type LoggedChange,
  liveEnd,
  liveKey,
  logKey,
  modOfVersion,
  type State,
  versionOfVersion,
  visitLog,
} from './layout.ts';
import type { TableReader } from './table.ts';

export function current(table: TableReader, key: Bytes): KeyValue | undefined {
  const record = table.get(liveKey(key));
  return record && decodeVersion(key, record);
}

/** The version of a key that stood at `revision`, if the key existed then. */
export function versionAt(
  table: TableReader,
  key: Bytes,
  revision: Revision,
): KeyValue | undefined {
  const live = table.get(liveKey(key));
  if (live && modOfVersion(live) <= revision) return decodeVersion(key, live);
  let found: KeyValue | undefined;
  changesSince(table, revision, (change) => {
    if (compareBytes(change.key, key) !== 0) return true;
    found = change.before && decodeVersion(key, change.before);
    return false;
  });
  return found;
}

/** Visits what the log says of every revision after `revision`, until `visit` answers false. */
function changesSince(
  table: TableReader,
  revision: Revision,
  visit: (change: LoggedChange) => boolean,
): void {
  let wanted = true;
  table.scan(logKey(revision + 1), LOG_END, (_stored, record) => {
    visitLog(record, (change) => {
      wanted = visit(change);
      return wanted;
    });
    return wanted;
  });
}

/** The revision a range is read at; refuses what is gone or not yet there. */
export function readRevision(request: RangeRequest, state: State): Revision {
  const revision = request.revision ?? 0;
  if (revision <= 0) return state.revision;
  if (revision > state.revision) {
    throw new HoldfastError(
      'future-revision',
      `revision ${revision} does not exist yet; the newest is ${state.revision}`,
    );
  }
  if (revision < state.compactRevision) throw compactedError(revision, state);
  return revision;
}

export function compactedError(revision: Revision, state: State): HoldfastError {
  const { compactRevision } = state;
  return new HoldfastError(
    'compacted',
    `revision ${revision} has been compacted; the oldest readable is ${compactRevision}`,
    { compactRevision },
  );
}

/**
 * Order of work: read, filter, sort, cut to the limit, strip values. `count` is the size of the
 * whole range, whatever filters and limit say.
 */
export function readRange(
  table: TableReader,
  request: RangeRequest,
  state: State,
): RangeOperationResult {
  const revision = readRevision(request, state);
  const newest = revision === state.revision;
  if (isSingle(request)) return single(table, request, revision, newest);
  const wanted = interval(request);
  if (isEmptyInterval(wanted)) return { type: 'range', kvs: [], more: false, count: 0 };
  if (newest && request.countOnly) {
    return { type: 'range', kvs: [], more: false, count: countLive(table, wanted) };
  }
  if (newest && isPlain(request)) return plain(table, request, wanted);
  if (newest && isFirstBy(request)) return firstBy(table, request, wanted);
  const all = newest ? live(table, wanted) : historic(table, wanted, revision);
  return shape(all, request);
}

function single(
  table: TableReader,
  request: RangeRequest,
  revision: Revision,
  newest: boolean,
): RangeOperationResult {
  const kv = newest ? current(table, request.key) : versionAt(table, request.key, revision);
  return shape(kv ? [kv] : [], request);
}

function shape(all: readonly KeyValue[], request: RangeRequest): RangeOperationResult {
  if (request.countOnly) return { type: 'range', kvs: [], more: false, count: all.length };
  const filtered = hasFilter(request) ? all.filter((kv) => passes(kv, request)) : all;
  const sorted = sort(filtered, request);
  const limit = request.limit ?? 0;
  const more = limit > 0 && sorted.length > limit;
  const cut = more ? sorted.slice(0, limit) : sorted;
  return { type: 'range', kvs: strip(cut, request), more, count: all.length };
}

function strip(kvs: readonly KeyValue[], request: RangeRequest): readonly KeyValue[] {
  return request.keysOnly ? kvs.map((kv) => ({ ...kv, value: new Uint8Array(0) })) : kvs;
}

/** Key order, no filter: with a limit the scan can stop and only count the rest. */
function isPlain(request: RangeRequest): boolean {
  return (
    !hasFilter(request) &&
    request.sortOrder !== 'descend' &&
    (request.sortTarget === undefined || request.sortTarget === 'key') &&
    (request.limit ?? 0) > 0
  );
}

function plain(table: TableReader, request: RangeRequest, range: Interval): RangeOperationResult {
  const limit = request.limit ?? 0;
  const kvs: KeyValue[] = [];
  let rest: Bytes | undefined;
  table.scan(liveKey(range.start), liveEnd(range.end), (stored, record) => {
    if (kvs.length === limit) {
      rest = stored;
      return false;
    }
    kvs.push(decodeVersion(keyOfLive(stored), record));
    return true;
  });
  const count = rest ? limit + countBetween(table, rest, liveEnd(range.end)) : kvs.length;
  return { type: 'range', kvs: strip(kvs, request), more: rest !== undefined, count };
}

/** The numbers of a version as it is stored. */
export const NUMBERS: Readonly<Record<'version' | 'create' | 'mod', (record: Bytes) => number>> = {
  version: versionOfVersion,
  create: createOfVersion,
  mod: modOfVersion,
};

/** Up to this many are kept in order while the range is read; more are sorted afterwards. */
const FIRST_MAX = 32;

/** The first few by a number: what everybody asks who stands in a line. */
function isFirstBy({ limit = 0, sortTarget = 'key' }: RangeRequest): boolean {
  return limit > 0 && limit <= FIRST_MAX && sortTarget in NUMBERS;
}

interface Ranked {
  readonly stored: Bytes;
  readonly record: Bytes;
  readonly rank: number;
}

/** Looks at the numbers of each record and decodes the winners alone. Ties stay in key order. */
function firstBy(table: TableReader, request: RangeRequest, range: Interval): RangeOperationResult {
  const numberOf = NUMBERS[request.sortTarget as keyof typeof NUMBERS];
  const sign = request.sortOrder === 'descend' ? -1 : 1;
  const limit = request.limit ?? 0;
  const filtered = hasFilter(request);
  const best: Ranked[] = [];
  let count = 0;
  let passing = 0;
  table.scan(liveKey(range.start), liveEnd(range.end), (stored, record) => {
    count++;
    if (filtered && !passesNumbers(modOfVersion(record), createOfVersion(record), request))
      return true;
    passing++;
    const rank = sign * numberOf(record);
    let at = best.length;
    while (at > 0 && best[at - 1]!.rank > rank) at--;
    if (at === limit) return true;
    best.splice(at, 0, { stored, record, rank });
    if (best.length > limit) best.pop();
    return true;
  });
  const kvs = best.map(({ stored, record }) => decodeVersion(keyOfLive(stored), record));
  return { type: 'range', kvs: strip(kvs, request), more: passing > limit, count };
}

function countLive(table: TableReader, range: Interval): number {
  return countBetween(table, liveKey(range.start), liveEnd(range.end));
}

function countBetween(table: TableReader, start: Bytes, end: Bytes): number {
  if (table.count) return table.count(start, end);
  let count = 0;
  table.scan(start, end, () => {
    count++;
    return true;
  });
  return count;
}

export function live(table: TableReader, range: Interval): KeyValue[] {
  const kvs: KeyValue[] = [];
  table.scan(liveKey(range.start), liveEnd(range.end), (stored, record) => {
    kvs.push(decodeVersion(keyOfLive(stored), record));
    return true;
  });
  return kvs;
}

/**
 * The range as it stood at `revision`: live keys that are old enough, and for each key changed
 * since, what the first change replaced.
 */
export function historic(table: TableReader, range: Interval, revision: Revision): KeyValue[] {
  const kvs = live(table, range).filter((kv) => kv.modRevision <= revision);
  const seen = new Set<string>();
  changesSince(table, revision, ({ key, before }) => {
    if (!contains(range, key)) return true;
    const name = binaryString(key);
    if (!seen.has(name) && before) kvs.push(decodeVersion(key.slice(), before));
    seen.add(name);
    return true;
  });
  return kvs.sort((a, b) => compareBytes(a.key, b.key));
}

function hasFilter(request: RangeRequest): boolean {
  return Boolean(
    request.minModRevision ||
      request.maxModRevision ||
      request.minCreateRevision ||
      request.maxCreateRevision,
  );
}

function passes(kv: KeyValue, request: RangeRequest): boolean {
  return passesNumbers(kv.modRevision, kv.createRevision, request);
}

function passesNumbers(mod: Revision, create: Revision, request: RangeRequest): boolean {
  const { minModRevision = 0, maxModRevision = 0 } = request;
  const { minCreateRevision = 0, maxCreateRevision = 0 } = request;
  return (
    mod >= minModRevision &&
    (maxModRevision === 0 || mod <= maxModRevision) &&
    create >= minCreateRevision &&
    (maxCreateRevision === 0 || create <= maxCreateRevision)
  );
}

const ORDERS: Record<SortTarget, (a: KeyValue, b: KeyValue) => number> = {
  key: (a, b) => compareBytes(a.key, b.key),
  version: (a, b) => a.version - b.version,
  create: (a, b) => a.createRevision - b.createRevision,
  mod: (a, b) => a.modRevision - b.modRevision,
  value: (a, b) => compareBytes(a.value, b.value),
};

/** A target without an order means ascending; ties stay in key order. */
function sort(kvs: readonly KeyValue[], request: RangeRequest): readonly KeyValue[] {
  const { sortTarget = 'key', sortOrder } = request;
  const descending = sortOrder === 'descend';
  if (sortTarget === 'key') return descending ? [...kvs].reverse() : kvs;
  const order = ORDERS[sortTarget];
  return [...kvs].sort((a, b) => (descending ? order(b, a) : order(a, b)));
}
