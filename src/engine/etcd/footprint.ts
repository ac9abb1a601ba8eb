/**
 * What a transaction touches and weighs: whether it can travel in one request with others.
 *
 * Touched is every key that it compares, reads, writes or deletes, in whichever branch and depth.
 * Transactions whose keys do not meet give the same answers together as one after another, in any
 * order: none sees what another does. That two only read the same key would not matter; it is
 * not told apart, because whoever shares a revision writes.
 */
import { type Bytes, compareBytes } from '../../base/bytes.ts';
import {
  contains,
  type Interval,
  interval,
  isEmptyInterval,
  type KeyRange,
} from '../../model/range.ts';
import type { Operation, TxnRequest } from '../../model/transaction.ts';

export interface Footprint {
  /** In order, and apart from each other. */
  readonly touched: readonly Interval[];
  /** About as many as it has on the wire. */
  readonly bytes: number;
  /** As the server counts: the longest list of each level, summed over the deepest way down. */
  readonly operations: number;
  /** A key that one of the branches puts; absent when none puts. */
  readonly put: Bytes | undefined;
  readonly attachesLease: boolean;
}

/** Tags, lengths and numbers around the keys and values of one operation. */
const FRAME_BYTES = 48;

interface Tracks {
  readonly ranges: Interval[];
  bytes: number;
  put: Bytes | undefined;
  attachesLease: boolean;
}

export function footprint(request: TxnRequest): Footprint {
  const ranges: Interval[] = [];
  const tracks: Tracks = { ranges, bytes: FRAME_BYTES, put: undefined, attachesLease: false };
  const operations = follow(request, tracks);
  const { bytes, put, attachesLease } = tracks;
  return { touched: apart(ranges), bytes, operations, put, attachesLease };
}

function follow({ compare = [], success = [], failure = [] }: TxnRequest, tracks: Tracks): number {
  for (const condition of compare) {
    const { value } = condition;
    if (value instanceof Uint8Array) tracks.bytes += value.length;
    touch(condition, tracks);
  }
  const below = Math.max(followAll(success, tracks), followAll(failure, tracks));
  return Math.max(compare.length, success.length, failure.length) + below;
}

function followAll(operations: readonly Operation[], tracks: Tracks): number {
  let below = 0;
  for (const operation of operations) {
    if (operation.type === 'txn') {
      tracks.bytes += FRAME_BYTES;
      below = Math.max(below, follow(operation, tracks));
      continue;
    }
    touch(operation, tracks);
    if (operation.type !== 'put') continue;
    tracks.bytes += operation.value?.length ?? 0;
    tracks.put ??= operation.key;
    if (operation.lease) tracks.attachesLease = true;
  }
  return below;
}

function touch(range: KeyRange, tracks: Tracks): void {
  const { key, end } = range;
  tracks.bytes += FRAME_BYTES + key.length + (end?.length ?? 0);
  // A claim compares its line first, and the rest of it is about keys in there.
  if (!end && tracks.ranges.some((known) => contains(known, key))) return;
  const touched = interval(range);
  if (!isEmptyInterval(touched)) tracks.ranges.push(touched);
}

/** The same keys, without overlaps. */
function apart(ranges: Interval[]): Interval[] {
  if (ranges.length < 2) return ranges;
  ranges.sort((a, b) => compareBytes(a.start, b.start));
  const merged: Interval[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (!last || isBefore(last, range.start)) merged.push(range);
    else if (endsBefore(last, range)) merged[merged.length - 1] = { ...last, end: range.end };
  }
  return merged;
}

function isBefore(range: Interval, key: Bytes): boolean {
  return range.end !== undefined && compareBytes(range.end, key) <= 0;
}

function endsBefore(a: Interval, b: Interval): boolean {
  return a.end !== undefined && (b.end === undefined || compareBytes(a.end, b.end) < 0);
}

/** The keys of those that already travel together. */
export class Ground {
  readonly #taken: Interval[] = [];

  /** Takes the keys, all or none: false when one of them is taken. */
  take(touched: readonly Interval[]): boolean {
    const places = touched.map((range) => this.#placeOf(range));
    if (places.includes(-1)) return false;
    // From the last on, so that the places before stay what they are.
    for (let i = touched.length - 1; i >= 0; i--) this.#taken.splice(places[i]!, 0, touched[i]!);
    return true;
  }

  /** Where the range belongs in the order; -1 when it meets one that is taken. */
  #placeOf(range: Interval): number {
    let low = 0;
    let high = this.#taken.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(this.#taken[middle]!, range.start)) low = middle + 1;
      else high = middle;
    }
    const next = this.#taken[low];
    return next === undefined || isBefore(range, next.start) ? low : -1;
  }
}
