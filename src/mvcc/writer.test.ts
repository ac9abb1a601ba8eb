import { expect, it } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { MemoryTable } from '../engine/memory/store.ts';
import type { Operation, RangeOperation } from '../model/transaction.ts';
import { encodeLease, FRESH_STATE, leaseKey } from './layout.ts';
import { Writer } from './writer.ts';

it('a revision below 0 is the newest, but in a transaction too old, as in etcd', async () => {
  const engine = await openMemoryEngine();
  const put = { type: 'put' as const, key: utf8('a') };
  const read = (revision: number): RangeOperation => ({ type: 'range', key: utf8('a'), revision });
  await engine.txn({ success: [put] });
  expect((await engine.range(read(-5))).count).toBe(1);
  expect((await engine.txn({ success: [put, read(-1)] })).succeeded).toBe(true);
  await expect(engine.txn({ success: [put, read(-2)] })).rejects.toMatchObject({
    code: 'compacted',
  });
  const { header } = await engine.txn({ success: [put] });
  await engine.compact(header.revision);
  await expect(engine.txn({ success: [put, read(-1)] })).rejects.toMatchObject({
    code: 'compacted',
  });
  // Refused before anything of it ran.
  expect((await engine.range(read(0))).kvs[0]?.modRevision).toBe(header.revision);
  await engine.close();
});

it('more than the log can take is deleted in parts: refused before anything ran, nested or not', () => {
  const put = (key: string): Operation => ({
    type: 'put',
    key: utf8(key),
    value: new Uint8Array(1_000),
  });
  const remove: Operation = { type: 'delete', key: utf8('k/'), end: utf8('k0') };
  const writer = new Writer(new MemoryTable(), FRESH_STATE, { has: () => false }, 5_200);
  for (let i = 0; i < 5; i++) writer.txn({ success: [put(`k/${i}`)] });
  const { revision } = writer.state;
  for (const success of [
    [put('x'), put('k/5'), remove, remove],
    [put('x'), { type: 'txn', success: [remove] }, remove],
  ] satisfies Operation[][]) {
    expect(() => writer.txn({ success })).toThrow('delete them in parts');
  }
  expect(writer.state.revision).toBe(revision);
  expect(writer.txn({ success: [{ type: 'range', key: utf8('x') }] }).results).toMatchObject([
    { kvs: [] },
  ]);
  expect(writer.txn({ success: [remove] }).results).toMatchObject([{ deleted: 5 }]);
});

it('a lease that holds more than the log can take ends in several revisions, itself the last', () => {
  const table = new MemoryTable();
  const writer = new Writer(table, FRESH_STATE, { has: () => true }, 2_500);
  const put = (i: number): Operation => ({
    type: 'put',
    key: utf8(`k/${i}`),
    value: new Uint8Array(1_000),
    lease: 7n,
  });
  table.put(leaseKey(7n), encodeLease({ ttlMs: 1_000, remainingMs: 1_000 }));
  for (let i = 0; i < 8; i++) writer.txn({ success: [put(i)] });
  const before = writer.state.revision;
  const parts: [number, boolean, number][] = [];
  for (let done = false; !done; ) {
    const ended = writer.revoke(7n);
    done = ended.done;
    const all: RangeOperation = { type: 'range', key: utf8('k/'), end: utf8('k0') };
    const [left] = writer.txn({ success: [all] }).results;
    const count = left?.type === 'range' ? left.count : -1;
    parts.push([ended.revision - before, table.get(leaseKey(7n)) !== undefined, count]);
  }
  expect(parts).toEqual([
    [1, true, 5],
    [2, true, 2],
    [3, false, 0],
  ]);
});
