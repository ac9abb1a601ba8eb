import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compareBytes } from '../base/bytes.ts';
import {
  attachmentEnd,
  attachmentStart,
  decodeState,
  decodeVersion,
  encodeLog,
  encodeState,
  encodeVersion,
  type LoggedChange,
  visitLog,
} from './layout.ts';

const key = fc.uint8Array({ minLength: 1, maxLength: 12 });
/** Many zero and 0xff bytes: the ones the escape must get right. */
const nastyKey = fc.array(fc.constantFrom(0, 1, 0xff, 0x61), { minLength: 1, maxLength: 6 });
const anyKey = fc.oneof(
  key,
  nastyKey.map((bytes) => Uint8Array.from(bytes)),
);
const revision = fc.integer({ min: 1, max: 2 ** 48 - 1 });

test('a version, a log line and the state read back as what was written', () => {
  const lease = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
  fc.assert(
    fc.property(anyKey, key, revision, revision, lease, (k, value, mod, create, id) => {
      const kv = { key: k, value, modRevision: mod, createRevision: create, version: 7, lease: id };
      expect(decodeVersion(k, encodeVersion(kv))).toEqual(kv);
      const version = encodeVersion(kv);
      const changes = [
        { key: k, after: version, before: undefined },
        { key: value, after: undefined, before: version },
        { key: k, after: version, before: version },
      ];
      const read: LoggedChange[] = [];
      visitLog(encodeLog(changes), (change) => {
        read.push({
          key: change.key.slice(),
          after: change.after?.slice(),
          before: change.before?.slice(),
        });
        return true;
      });
      expect(read).toEqual(changes);
      const state = {
        revision: mod,
        compactRevision: create,
        era: mod % 32_768,
        noSpace: mod % 2 === 0,
        corrupt: create % 2 === 0,
      };
      expect(decodeState(encodeState(state))).toEqual(state);
    }),
  );
});

test('the attachments of a lease end before those of the next id, carries included', () => {
  for (const id of [1n, 0xffn, 0xffffn, 2n ** 63n - 1n]) {
    const next = id === 2n ** 63n - 1n ? undefined : attachmentStart(id + 1n);
    expect(compareBytes(attachmentStart(id), attachmentEnd(id))).toBeLessThan(0);
    if (next) expect(attachmentEnd(id)).toEqual(next);
  }
});
