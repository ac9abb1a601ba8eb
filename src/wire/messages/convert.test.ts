import { describe, expect, test } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Compare, KeyValue, TxnRequest, TxnResult } from '../../model/transaction.ts';
import { decode, encode } from './codec.ts';
import {
  headerToModel,
  headerToWire,
  rangeToModel,
  rangeToWire,
  txnResultToModel,
  txnResultToWire,
  txnToModel,
  txnToWire,
  watchToModel,
  watchToWire,
} from './convert.ts';
import {
  RangeRequest,
  ResponseHeader,
  TxnResponse,
  WatchCreateRequest,
  TxnRequest as WireTxn,
} from './gen/rpc.ts';

const IDENTITY = { clusterId: 2n ** 64n - 2n, memberId: 3n, term: 2 };
const key = utf8('k');
const end = utf8('l');

function code(work: () => unknown): string | undefined {
  try {
    work();
  } catch (error) {
    return HoldfastError.is(error) ? error.code : 'foreign';
  }
  return undefined;
}

describe('a header', () => {
  test('carries revision and era there and back, and its term only rises with the era', () => {
    let last = 0;
    for (const era of [0, 1, 7, 2 ** 15 - 1]) {
      const wire = headerToWire({ revision: 2 ** 48 - 1, era }, IDENTITY);
      const read = decode(ResponseHeader, encode(ResponseHeader, wire));
      expect(headerToModel(read)).toEqual({ revision: 2 ** 48 - 1, era });
      expect(read.clusterId).toBe(IDENTITY.clusterId);
      expect(read.raftTerm).toBeGreaterThan(last);
      last = read.raftTerm;
    }
  });

  test('of etcd has era 0; one beyond the range of tokens is refused', () => {
    const header = { clusterId: 1n, memberId: 1n, revision: 9, raftTerm: 400 };
    expect(headerToModel(header)).toEqual({ revision: 9, era: 0 });
    expect(headerToModel(undefined)).toEqual({ revision: 0, era: 0 });
    expect(code(() => headerToModel({ ...header, revision: 2 ** 48 }))).toBe('internal');
  });
});

test('a transaction goes to the wire and comes back, every compare and operation', () => {
  const compare: Compare[] = (['=', '!=', '<', '>'] as const).flatMap((result): Compare[] => [
    { key, end, result, target: 'version', value: 1 },
    { key, end, result, target: 'create', value: 2 },
    { key, end, result, target: 'mod', value: 0 },
    { key, end, result, target: 'value', value: utf8('v') },
    { key, end, result, target: 'lease', value: 2n ** 62n },
  ]);
  const flags = { serializable: true, keysOnly: true, countOnly: true } as const;
  const filters = { minModRevision: 1, maxModRevision: 2, minCreateRevision: 3 };
  const txn: TxnRequest = {
    compare,
    success: [
      {
        type: 'put',
        key,
        value: utf8('v'),
        lease: 5n,
        prevKv: true,
        ignoreValue: false,
        ignoreLease: true,
      },
      { type: 'delete', key, end, prevKv: true },
      {
        ...{ type: 'range', key, end, limit: 4, revision: 5, sortTarget: 'create' },
        ...{ sortOrder: 'descend', maxCreateRevision: 4, ...flags, ...filters },
      },
      {
        type: 'txn',
        compare: [],
        success: [],
        failure: [{ type: 'delete', key, end, prevKv: false }],
      },
    ],
    failure: [],
  };
  expect(txnToModel(decode(WireTxn, encode(WireTxn, txnToWire(txn))))).toEqual(txn);
});

test('the target of a compare decides which member counts, one that is not set is zero', () => {
  const wire = decode(WireTxn, encode(WireTxn, { compare: [{ key, target: 2, version: 7 }] }));
  expect(txnToModel(wire).compare).toEqual([
    { key, end: utf8(''), result: '=', target: 'mod', value: 0 },
  ]);
});

test('what makes no sense is refused as etcd refuses it', () => {
  const txn = (request: Parameters<typeof WireTxn.write>[1]) => () =>
    txnToModel(decode(WireTxn, encode(WireTxn, request)));
  expect(code(txn({ success: [{}] }))).toBe('key-not-found');
  expect(code(txn({ compare: [{ key, target: 9 }] }))).toBe('invalid-argument');
  expect(code(txn({ compare: [{ key, result: 9 }] }))).toBe('invalid-argument');
  expect(code(txn({ success: [{ requestPut: { key, lease: -1n } }] }))).toBe('lease-not-found');
  const range = (request: object) => () =>
    rangeToModel(decode(RangeRequest, encode(RangeRequest, request)));
  expect(code(range({ sortTarget: 9 }))).toBe('invalid-argument');
  expect(code(range({ sortOrder: 9 }))).toBe('invalid-argument');
  expect(range({ revision: -3, limit: -1 })()).toMatchObject({ revision: -3, limit: 0 });
});

test('a range that is not sorted says so on the wire', () => {
  expect(rangeToWire({ key })).toMatchObject({ sortOrder: 0, sortTarget: 0 });
  expect(rangeToWire({ key, sortTarget: 'mod' })).toMatchObject({ sortOrder: 1, sortTarget: 3 });
});

test('a result comes back; operations inside carry the revision alone, nested ones nothing', () => {
  const kv: KeyValue = {
    key,
    value: end,
    createRevision: 2,
    modRevision: 3,
    version: 2,
    lease: 9n,
  };
  const result: TxnResult = {
    header: { revision: 8, era: 1 },
    succeeded: true,
    results: [
      { type: 'put', prevKv: kv },
      { type: 'put', prevKv: undefined },
      { type: 'delete', deleted: 1, prevKvs: [kv] },
      { type: 'range', kvs: [kv], more: true, count: 4 },
      {
        type: 'txn',
        succeeded: false,
        results: [{ type: 'range', kvs: [], more: false, count: 0 }],
      },
    ],
  };
  const wire = decode(TxnResponse, encode(TxnResponse, txnResultToWire(result, IDENTITY)));
  expect(txnResultToModel(wire)).toEqual(result);
  expect(wire.responses[0]!.responsePut!.header).toMatchObject({ clusterId: 0n, revision: 8 });
  expect(wire.responses[4]!.responseTxn!.header).toMatchObject({ clusterId: 0n, revision: 0 });
});

test('a watch goes to the wire and comes back; an empty key is one zero byte', () => {
  const watch = {
    key,
    end,
    startRevision: 4,
    prevKv: true,
    noPut: true,
    noDelete: true,
    progressNotify: true,
  };
  const back = decode(WatchCreateRequest, encode(WatchCreateRequest, watchToWire(watch)));
  expect(watchToModel(back)).toEqual(watch);
  expect(watchToModel(decode(WatchCreateRequest, utf8(''))).key).toEqual(Uint8Array.of(0));
});
