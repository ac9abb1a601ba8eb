import { expect, it } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { MemoryTable } from '../engine/memory/store.ts';
import type { Operation, RangeOperation } from '../model/transaction.ts';
import { FRESH_STATE } from './layout.ts';
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
