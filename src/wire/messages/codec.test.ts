import { expect, test } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { decode, encode } from './codec.ts';
import { Compare, PutRequest, RangeResponse, TxnRequest } from './gen/rpc.ts';

test('a put comes back as it was, with zero values filled in', () => {
  const put = decode(PutRequest, encode(PutRequest, { key: utf8('a'), lease: 2n ** 62n + 3n }));
  expect(put).toEqual({
    key: utf8('a'),
    value: new Uint8Array(0),
    lease: 2n ** 62n + 3n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
  });
});

test('members of a oneof keep a zero that was sent apart from one that was not', () => {
  const sent = decode(Compare, encode(Compare, { version: 0 }));
  expect(sent.version).toBe(0);
  expect(sent.lease).toBeUndefined();
  expect(decode(Compare, encode(Compare, {})).version).toBeUndefined();
});

test('nested messages and lists come back in order', () => {
  const message = {
    compare: [{ key: utf8('k'), rangeEnd: utf8('l'), lease: -1n }],
    success: [
      { requestTxn: { failure: [{ requestPut: { key: new Uint8Array(300).fill(7) } }] } },
      {},
    ],
  };
  const back = decode(TxnRequest, encode(TxnRequest, message));
  expect(back.compare[0]!.lease).toBe(-1n);
  expect(back.success).toHaveLength(2);
  expect(back.success[0]!.requestTxn!.failure[0]!.requestPut!.key).toHaveLength(300);
});

test('a message larger than the slab is whole', () => {
  const kvs = Array.from({ length: 3_000 }, (_, i) => ({ key: utf8(`key/${i}`), modRevision: i }));
  const back = decode(RangeResponse, encode(RangeResponse, { kvs, count: 2 ** 40 }));
  expect(back.kvs.map((kv) => kv.modRevision)).toEqual(kvs.map((kv) => kv.modRevision));
  expect(back.count).toBe(2 ** 40);
});
