/**
 * Key ranges, in two forms. `KeyRange` is as a request brings it: `end` absent (or empty) is the
 * single key, one zero byte is "everything from `key`". `Interval` is the same parsed once, so that
 * evaluation and authorisation can never read the sentinels differently.
 */
import { type Bytes, compareBytes } from '../base/bytes.ts';

export interface KeyRange {
  readonly key: Bytes;
  readonly end?: Bytes | undefined;
}

export interface Interval {
  readonly start: Bytes;
  /** Exclusive; `undefined` is unbounded. */
  readonly end: Bytes | undefined;
  readonly single: boolean;
}

const FROM_KEY: Bytes = Uint8Array.of(0);

/** Whether the request means one key alone. */
export function isSingle({ end }: KeyRange): boolean {
  return !end || end.length === 0;
}

export function interval(range: KeyRange): Interval {
  const { key, end } = range;
  if (!end || isSingle(range)) return { start: key, end: keyAfter(key), single: true };
  if (end.length === 1 && end[0] === 0) return { start: key, end: undefined, single: false };
  return { start: key, end, single: false };
}

/** The first key after `key` in byte order. */
export function keyAfter(key: Bytes): Bytes {
  const after = new Uint8Array(key.length + 1);
  after.set(key);
  return after;
}

export function isEmptyInterval(range: Interval): boolean {
  return range.end !== undefined && compareBytes(range.start, range.end) >= 0;
}

export function contains(range: Interval, key: Bytes): boolean {
  return (
    compareBytes(key, range.start) >= 0 &&
    (range.end === undefined || compareBytes(key, range.end) < 0)
  );
}

/** All keys that begin with `prefix`, as a request would say it; an empty prefix is every key. */
export function prefixRange(prefix: Bytes): KeyRange {
  if (prefix.length === 0) return { key: FROM_KEY, end: FROM_KEY };
  return { key: prefix, end: prefixEnd(prefix) };
}

/** The end of a prefix: its last byte below 0xff raised by one, the rest cut. */
export function prefixEnd(prefix: Bytes): Bytes {
  for (let i = prefix.length - 1; i >= 0; i--) {
    if (prefix[i]! < 0xff) {
      // Not `slice`: of a Buffer that is the same memory.
      const end = new Uint8Array(prefix.subarray(0, i + 1));
      end[i]!++;
      return end;
    }
  }
  return FROM_KEY;
}

/** Every key from `key` on. */
export function fromKey(key: Bytes): KeyRange {
  return { key, end: FROM_KEY };
}
