/**
 * The rules of a watch as small pure functions over what was asked, what was told, and a replay of
 * everything that happened. Each answers what is wrong, or nothing.
 *
 * They see only a watch from outside, so they hold for every engine, over every restart and fault,
 * and in any experiment that keeps its batches.
 */
import { binaryString, compareBytes, equalBytes, printable } from '../base/bytes.ts';
import { contains, interval } from '../model/range.ts';
import type { KeyValue, Revision } from '../model/transaction.ts';
import type { Event, WatchBatch, WatchRequest } from '../model/watch.ts';

export interface WatchRecord {
  readonly request: WatchRequest;
  readonly batches: readonly WatchBatch[];
}

/** One change that happened, with the pair that stood before it. */
export interface Change {
  readonly type: 'put' | 'delete';
  readonly kv: KeyValue;
  readonly before: KeyValue | undefined;
}

/** Every change of some keys from some revision on, in order. */
export type Replay = readonly Change[];

export interface Violation {
  readonly validator: string;
  readonly what: string;
}

export type Validator = (record: WatchRecord, replay: Replay) => string | undefined;

/** A replay from the events of one watch that saw everything; earlier versions are unknown. */
export function replayOf(events: readonly Event[]): Replay {
  const standing = new Map<string, KeyValue>();
  return events.map(({ type, kv, prevKv }) => {
    const name = binaryString(kv.key);
    const before = standing.get(name) ?? prevKv;
    if (type === 'put') standing.set(name, kv);
    else standing.delete(name);
    return { type, kv, before };
  });
}

export function validateWatch(record: WatchRecord, replay: Replay): readonly Violation[] {
  return Object.entries(WATCH_VALIDATORS).flatMap(([validator, validate]) => {
    const what = validate(record, replay);
    return what === undefined ? [] : [{ validator, what }];
  });
}

export type WatchRule =
  | 'filter'
  | 'ordered'
  | 'unique'
  | 'atomic'
  | 'bookmarkable'
  | 'resumable'
  | 'isCreate'
  | 'reliable'
  | 'prevKv';

export const WATCH_VALIDATORS: Readonly<Record<WatchRule, Validator>> = {
  filter,
  ordered,
  unique,
  atomic,
  bookmarkable,
  resumable,
  isCreate,
  reliable,
  prevKv,
};

/** Every event matches the range and the filters of its watch. */
function filter({ request, batches }: WatchRecord): string | undefined {
  const stray = eventsOf(batches).find((event) => !wanted(request, event.type, event.kv.key));
  return stray && `${describe(stray)} does not belong to the watch`;
}

/** Revisions never decrease. */
function ordered({ batches }: WatchRecord): string | undefined {
  let last = 0;
  for (const event of eventsOf(batches)) {
    if (event.kv.modRevision < last) return `${describe(event)} comes after revision ${last}`;
    last = event.kv.modRevision;
  }
  return undefined;
}

/** No key and revision appear twice. */
function unique({ batches }: WatchRecord): string | undefined {
  const seen = new Set<string>();
  for (const event of eventsOf(batches)) {
    const name = nameOf(event.kv);
    if (seen.has(name)) return `${describe(event)} is told twice`;
    seen.add(name);
  }
  return undefined;
}

/** A batch never goes on with the revision that ended the one before. */
function atomic({ batches }: WatchRecord): string | undefined {
  let last: Revision | undefined;
  for (const { events } of batches) {
    const first = events[0]?.kv.modRevision;
    if (first === undefined) continue;
    if (first === last) return `revision ${first} is split over two batches`;
    last = events.at(-1)!.kv.modRevision;
  }
  return undefined;
}

/**
 * A batch's header is a promise that everything up to it was told: nothing at or below it comes
 * later, it never falls, it is never below the batch's own events nor before the start.
 */
function bookmarkable({ request, batches }: WatchRecord): string | undefined {
  let mark = (request.startRevision ?? 0) - 1;
  for (const { header, events } of batches) {
    const late = events.find(({ kv }) => kv.modRevision <= mark);
    if (late) return `${describe(late)} comes after everything up to ${mark} was promised`;
    if (header.revision < mark) return `the mark falls from ${mark} to ${header.revision}`;
    const beyond = events.find(({ kv }) => kv.modRevision > header.revision);
    if (beyond) return `${describe(beyond)} lies beyond the mark ${header.revision} it comes with`;
    mark = Math.max(mark, header.revision);
  }
  return undefined;
}

/** The first event is the first matching change at or after the start. */
function resumable({ request, batches }: WatchRecord, replay: Replay): string | undefined {
  const start = request.startRevision ?? 0;
  const first = eventsOf(batches)[0];
  if (start <= 0 || !first) return undefined;
  const due = replay.find(
    ({ type, kv }) => kv.modRevision >= start && wanted(request, type, kv.key),
  );
  if (!due || nameOf(due.kv) === nameOf(first.kv)) return undefined;
  return `the watch from ${start} begins with ${describe(first)} instead of ${describe(due)}`;
}

/** A put is marked as creation exactly when the key did not exist just before. */
function isCreate({ batches }: WatchRecord, replay: Replay): string | undefined {
  const changes = byName(replay);
  for (const event of eventsOf(batches)) {
    const change = changes.get(nameOf(event.kv));
    if (event.type !== 'put' || !change) continue;
    const created = event.kv.createRevision === event.kv.modRevision;
    if (created !== (event.kv.version === 1)) return `${describe(event)} contradicts itself`;
    if (created !== (change.before === undefined)) {
      return `${describe(event)} is ${created ? '' : 'not '}marked as creation`;
    }
  }
  return undefined;
}

/** Up to the last mark the events are exactly the matching changes, with the same pairs. */
function reliable({ request, batches }: WatchRecord, replay: Replay): string | undefined {
  const told = eventsOf(batches);
  const start = request.startRevision ?? 0;
  const from = start > 0 ? start : (told[0]?.kv.modRevision ?? Number.POSITIVE_INFINITY);
  const upTo = batches.at(-1)?.header.revision ?? 0;
  const due = replay.filter(
    ({ type, kv }) =>
      kv.modRevision >= from && kv.modRevision <= upTo && wanted(request, type, kv.key),
  );
  for (let i = 0; i < Math.max(due.length, told.length); i++) {
    const [a, b] = [due[i], told[i]];
    if (a && b && a.type === b.type && sameKv(a.kv, b.kv)) continue;
    return `event ${i} should be ${a ? describe(a) : 'none'} and is ${b ? describe(b) : 'missing'}`;
  }
  return undefined;
}

/** A previous pair is the one just before; it may be absent, as after a compaction. */
function prevKv({ request, batches }: WatchRecord, replay: Replay): string | undefined {
  const changes = byName(replay);
  for (const event of eventsOf(batches)) {
    if (event.prevKv === undefined) continue;
    if (!request.prevKv) return `${describe(event)} brings a previous pair nobody asked for`;
    const before = changes.get(nameOf(event.kv))?.before;
    if (!before || !sameKv(before, event.prevKv)) {
      return `${describe(event)} brings a previous pair that did not stand before it`;
    }
  }
  return undefined;
}

function eventsOf(batches: readonly WatchBatch[]): readonly Event[] {
  return batches.flatMap((batch) => batch.events);
}

function wanted(request: WatchRequest, type: 'put' | 'delete', key: Uint8Array): boolean {
  return !(type === 'put' ? request.noPut : request.noDelete) && contains(interval(request), key);
}

function byName(replay: Replay): Map<string, Change> {
  return new Map(replay.map((change) => [nameOf(change.kv), change]));
}

function nameOf(kv: KeyValue): string {
  return `${kv.modRevision}/${binaryString(kv.key)}`;
}

function describe({ type, kv }: { readonly type: string; readonly kv: KeyValue }): string {
  return `${type} ${printable(kv.key)} at ${kv.modRevision}`;
}

function sameKv(a: KeyValue, b: KeyValue): boolean {
  return (
    compareBytes(a.key, b.key) === 0 &&
    equalBytes(a.value, b.value) &&
    a.modRevision === b.modRevision &&
    a.createRevision === b.createRevision &&
    a.version === b.version &&
    a.lease === b.lease
  );
}
