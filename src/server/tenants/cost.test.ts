import { describe, expect, test } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import type { KeyValue, TxnRequest } from '../../model/transaction.ts';
import { costOfFound, costOfResults, costOfTxn } from './cost.ts';

const put = (bytes: number): TxnRequest => ({
  success: [{ type: 'put', key: utf8('k'), value: new Uint8Array(bytes) }],
});

describe('a request', () => {
  test('costs more the more it writes, and the more of its tenant watch', () => {
    expect(costOfTxn(put(65_536), 0)).toBeGreaterThan(10 * costOfTxn(put(100), 0));
    expect(costOfTxn(put(100), 50)).toBeGreaterThan(10 * costOfTxn(put(100), 0));
  });

  test('costs what its dearer branch does, with what is nested in it', () => {
    const nested: TxnRequest = { failure: [{ type: 'txn', ...put(65_536) }] };
    expect(costOfTxn(nested, 0)).toBeGreaterThan(costOfTxn(put(65_536), 0));
  });

  test('costs what it found: keys, bytes, and keys that were only counted', () => {
    const kv = { key: utf8('k'), value: new Uint8Array(4_096) } as KeyValue;
    const some = costOfFound({ kvs: [kv], count: 1 });
    expect(costOfFound({ kvs: [kv, kv], count: 2 })).toBeCloseTo(2 * some);
    expect(costOfFound({ kvs: [], count: 100_000 })).toBeGreaterThan(10);
    const range = { type: 'range', kvs: [kv], count: 1, more: false } as const;
    const inside = { type: 'txn', succeeded: true, results: [range] } as const;
    expect(costOfResults([inside], 0)).toBeCloseTo(some);
    const deletion = { type: 'delete', deleted: 1_000, prevKvs: [] } as const;
    expect(costOfResults([deletion], 0)).toBeGreaterThan(10);
  });
});
