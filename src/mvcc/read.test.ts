import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Bytes, compareBytes } from '../base/bytes.ts';
import type { RangeRequest } from '../model/transaction.ts';
import { encodeVersion, FRESH_STATE, liveKey } from './layout.ts';
import { readRange } from './read.ts';
import type { TableReader } from './table.ts';

interface Stored {
  readonly key: Bytes;
  readonly createRevision: number;
  readonly modRevision: number;
}

/** A table of live keys in an array, in order of key. */
function tableOf(kvs: readonly Stored[]): TableReader {
  const rows = kvs.map(({ key, createRevision, modRevision }) => ({
    stored: liveKey(key),
    record: encodeVersion({ value: key, createRevision, modRevision, version: 1, lease: 0n }),
  }));
  return {
    get: (key) => rows.find(({ stored }) => compareBytes(stored, key) === 0)?.record,
    scan: (start, end, visit) => {
      for (const { stored, record } of rows) {
        if (compareBytes(stored, start) < 0) continue;
        if (end && compareBytes(stored, end) >= 0) return;
        if (!visit(stored, record)) return;
      }
    },
  };
}

test('the first few by a number are those of the whole range sorted, ties in key order', () => {
  const revision = fc.integer({ min: 1, max: 9 });
  const few = fc.array(fc.tuple(revision, revision), { maxLength: 60 });
  const order = fc.constantFrom('ascend' as const, 'descend' as const, undefined);
  const target = fc.constantFrom('create' as const, 'mod' as const);
  fc.assert(
    fc.property(
      few,
      fc.integer({ min: 1, max: 40 }),
      order,
      target,
      fc.integer({ min: 0, max: 9 }),
      (revisions, limit, sortOrder, sortTarget, maxCreateRevision) => {
        const kvs = revisions.map(([createRevision, modRevision], i) => ({
          key: Uint8Array.of(i),
          createRevision,
          modRevision,
        }));
        const request: RangeRequest = {
          key: Uint8Array.of(0),
          end: Uint8Array.of(255),
          limit,
          sortTarget,
          maxCreateRevision,
          ...(sortOrder && { sortOrder }),
        };
        const found = readRange(tableOf(kvs), request, FRESH_STATE);
        const sign = sortOrder === 'descend' ? -1 : 1;
        const number = (kv: Stored): number =>
          sortTarget === 'create' ? kv.createRevision : kv.modRevision;
        const passing = kvs
          .filter((kv) => maxCreateRevision === 0 || kv.createRevision <= maxCreateRevision)
          .sort((a, b) => sign * (number(a) - number(b)));
        expect(found.kvs.map((kv) => kv.key[0])).toEqual(
          passing.slice(0, limit).map((kv) => kv.key[0]),
        );
        expect(found.more).toBe(passing.length > limit);
        expect(found.count).toBe(kvs.length);
      },
    ),
  );
});
