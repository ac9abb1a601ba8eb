/**
 * Changes as bytes, one after the other: a put, the removal of a key, or a cut that removes a range
 * of keys. So they stand in the journal, and in the memory of what is not in the tree yet.
 */
import { writeBytes } from '../../base/allocate.ts';
import { type Bytes, getUint32, putUint32 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';

/** Length of the key (two bytes, the highest two bits tell the kind), length of the value (four). */
export const CHANGE_HEAD = 6;
const REMOVAL = 0x8000;
/** The key is the first one to go, the value the first one to stay. */
const CUT = 0x4000;
const KEY_BYTES_MAX = 0x3fff;

/** Writes a put, or without a value a removal. Answers where it ends. */
export function putChange(target: Bytes, at: number, key: Bytes, value: Bytes | undefined): number {
  return write(target, at, value ? 0 : REMOVAL, key, value);
}

export function putCut(target: Bytes, at: number, start: Bytes, end: Bytes): number {
  return write(target, at, CUT, start, end);
}

function write(
  target: Bytes,
  at: number,
  kind: number,
  key: Bytes,
  value: Bytes | undefined,
): number {
  if (key.length > KEY_BYTES_MAX) throw new Error(`a key of ${key.length} bytes is too long`);
  const head = key.length | kind;
  target[at] = head >>> 8;
  target[at + 1] = head;
  putUint32(target, at + 2, value?.length ?? 0);
  const afterKey = writeBytes(target, at + CHANGE_HEAD, key);
  return value ? writeBytes(target, afterKey, value) : afterKey;
}

export function keyLengthOfChange(source: Bytes, at: number): number {
  return (source[at]! & 0x3f) * 0x100 + source[at + 1]!;
}

/** The value of the change at `at`, as a view; undefined: a removal. */
export function valueOfChange(source: Bytes, at: number): Bytes | undefined {
  if (source[at]! & 0x80) return undefined;
  const start = at + CHANGE_HEAD + source[at]! * 0x100 + source[at + 1]!;
  // A plain view: `subarray` of a Buffer costs several times as much.
  return new Uint8Array(source.buffer, source.byteOffset + start, getUint32(source, at + 2));
}

export interface ChangeVisitor {
  /** `at` is where the change stands, for `valueOfChange`. */
  set(key: Bytes, at: number): void;
  cut(start: Bytes, end: Bytes): void;
}

/** Visits all changes in order; views, no copies. */
export function visitChanges(source: Bytes, visitor: ChangeVisitor): void {
  let at = 0;
  while (at < source.length) {
    const body = at + CHANGE_HEAD;
    if (body > source.length) throw unreadable();
    const keyEnd = body + keyLengthOfChange(source, at);
    const end = keyEnd + getUint32(source, at + 2);
    if (keyEnd === body || end > source.length) throw unreadable();
    const key = source.subarray(body, keyEnd);
    if (source[at]! & 0x40) visitor.cut(key, source.subarray(keyEnd, end));
    else visitor.set(key, at);
    at = end;
  }
}

function unreadable(): HoldfastError {
  return new HoldfastError('corrupt', 'a batch in the journal is not made of changes');
}
