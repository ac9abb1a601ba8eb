/** Who may touch which keys: intervals granted by roles. Pure; the range is parsed exactly once. */
import { type Bytes, compareBytes } from '../../base/bytes.ts';
import { type Interval, interval, isEmptyInterval, type KeyRange } from '../../model/range.ts';

export type Right = 'read' | 'write';
export type PermissionType = Right | 'readwrite';

export interface Permission extends KeyRange {
  readonly type: PermissionType;
}

export function grants(permission: Permission, right: Right): boolean {
  return permission.type === 'readwrite' || permission.type === right;
}

/** Whether the permissions, taken together, cover the whole interval. An empty one grants nothing. */
export function covers(
  permissions: readonly Permission[],
  right: Right,
  wanted: Interval,
): boolean {
  const granted = permissions
    .filter((permission) => grants(permission, right))
    .map(interval)
    .filter((range) => !isEmptyInterval(range))
    .sort((a, b) => compareBytes(a.start, b.start));
  // Walk from the start of what is wanted as far as the granted intervals reach without a gap.
  let reached: Bytes = wanted.start;
  for (const range of granted) {
    if (compareBytes(range.start, reached) > 0) return false;
    if (range.end === undefined) return true;
    if (compareBytes(range.end, reached) > 0) reached = range.end;
    if (wanted.end !== undefined && compareBytes(reached, wanted.end) >= 0) return true;
  }
  return false;
}

export function sameRange(a: KeyRange, b: KeyRange): boolean {
  const end = (range: KeyRange): Bytes => range.end ?? new Uint8Array(0);
  return compareBytes(a.key, b.key) === 0 && compareBytes(end(a), end(b)) === 0;
}
