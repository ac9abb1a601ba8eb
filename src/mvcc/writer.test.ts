import { expect, it } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import type { RangeOperation } from '../model/transaction.ts';

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
