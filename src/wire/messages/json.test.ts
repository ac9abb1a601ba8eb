import { describe, expect, test } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { Event } from './gen/kv.ts';
import {
  HashResponse,
  LeaseGrantResponse,
  LeaseRevokeRequest,
  PutRequest,
  RangeRequest,
  RangeResponse,
  TxnRequest,
  TxnResponse,
} from './gen/rpc.ts';
import { errorJson, fromJson, streamErrorJson, toJson } from './json.ts';
import { JsonObjects } from './json-text.ts';

function refused(work: () => unknown): boolean {
  try {
    work();
  } catch (error) {
    return HoldfastError.is(error, 'invalid-argument');
  }
  return false;
}

describe('JSON of the gateway', () => {
  test('leaves zeros out and writes 64-bit numbers as strings, 32-bit ones as numbers', () => {
    const header = { clusterId: 2n ** 64n - 1n, memberId: 0n, revision: 5 };
    expect(toJson(RangeResponse, { header, more: false, kvs: [] })).toBe(
      '{"header":{"cluster_id":"18446744073709551615","revision":"5"}}',
    );
    expect(toJson(HashResponse, { hash: 7 })).toBe('{"hash":7}');
    expect(toJson(Event, { type: 0 })).toBe('{}');
    expect(toJson(Event, { type: 1, kv: { key: utf8('a') } })).toBe(
      '{"type":"DELETE","kv":{"key":"YQ=="}}',
    );
    expect(toJson(TxnResponse, { succeeded: true })).toBe('{"succeeded":true}');
  });

  test('writes names as etcd spells them', () => {
    expect(toJson(LeaseGrantResponse, { ID: 7_587_862_094_923_467_537n, TTL: 9 })).toBe(
      '{"ID":"7587862094923467537","TTL":"9"}',
    );
  });

  test('reads both spellings, and ignores what it does not know', () => {
    const input = '{"range_end":"Yg==","minModRevision":3,"x":[{"y":null}],"__proto__":{"a":1}}';
    const range = fromJson(RangeRequest, input);
    expect([text(range.rangeEnd), range.minModRevision]).toEqual(['b', 3]);
    expect(Object.getPrototypeOf(range)).toBe(Object.prototype);
  });

  test('reads a lease id as a number without rounding it', () => {
    const { ID } = fromJson(LeaseRevokeRequest, '{"ID":7587862094923467537}');
    expect(ID).toBe(7_587_862_094_923_467_537n);
    expect(fromJson(LeaseRevokeRequest, '{"ID":"12"}').ID).toBe(12n);
    expect(fromJson(LeaseRevokeRequest, '{"ID":1e3}').ID).toBe(1_000n);
  });

  test('reads enums by name and by number, bytes in both alphabets, null as absent', () => {
    expect(fromJson(RangeRequest, '{"sort_order":"DESCEND"}').sortOrder).toBe(2);
    expect(fromJson(RangeRequest, '{"sort_order":2,"key":null}').sortOrder).toBe(2);
    for (const key of ['_-8', '/+8=', '_-8=']) {
      expect(fromJson(PutRequest, `{"key":"${key}"}`).key).toEqual(Uint8Array.of(255, 239));
    }
    expect(fromJson(PutRequest, '').key).toHaveLength(0);
  });

  test('reads a transaction as clients of the gateway write it', () => {
    const txn = fromJson(
      TxnRequest,
      '{"compare":[{"target":"CREATE","key":"YQ==","create_revision":"0"}],' +
        '"success":[{"requestPut":{"key":"YQ==","value":"Yg==","lease":"5"}}],' +
        '"failure":[{"request_txn":{}}]}',
    );
    expect(txn.compare[0]).toMatchObject({ target: 1, createRevision: 0, version: undefined });
    expect(txn.success[0]!.requestPut!.lease).toBe(5n);
    expect(txn.failure[0]!.requestTxn).toBeDefined();
  });

  test.each([
    ['{"key":1}'],
    ['{"key":"?"}'],
    ['{"key":"a"}'],
    ['{"limit":"x"}'],
    ['{"limit":1.5}'],
    ['{"limit":"9223372036854775808"}'],
    ['{"limit":1e400}'],
    ['{"sort_order":"UP"}'],
    ['{"sort_order":"toString"}'],
    ['{"serializable":"true"}'],
    ['[]'],
    ['{"limit":1'],
    ['{"limit":1}x'],
    ['{limit:1}'],
    ['{"limit":01}'],
    ['nul'],
    [`${'{"a":'.repeat(200)}1${'}'.repeat(200)}`],
    ['{"key":"\u0001"}'],
    ['{"key":"\\u12"}'],
  ])('refuses %s', (input) => {
    expect(refused(() => fromJson(RangeRequest, input))).toBe(true);
  });

  test('refuses two members of a oneof', () => {
    const input = '{"success":[{"request_put":{},"requestRange":{}}]}';
    expect(refused(() => fromJson(TxnRequest, input))).toBe(true);
  });

  test('tells errors so that old and new clients read them', () => {
    expect(errorJson({ code: 5, message: 'm' })).toBe('{"error":"m","code":5,"message":"m"}');
    const stream = JSON.parse(streamErrorJson({ code: 14, message: 'm' }, 'Service Unavailable'));
    expect(stream.error).toMatchObject({ grpc_code: 14, http_code: 503, message: 'm' });
  });

  test('cuts a body of many objects, and refuses one that is too long', () => {
    const objects = new JsonObjects(40);
    expect(objects.feed(utf8('{"a":"}"} {"b'))).toEqual(['{"a":"}"}']);
    expect(objects.feed(utf8('":"\\"{"}\n'))).toEqual(['{"b":"\\"{"}']);
    objects.end();
    expect(() => objects.feed(utf8(`{"a":"${'x'.repeat(40)}"}`))).toThrow('above 40 bytes');
    expect(refused(() => new JsonObjects(40).feed(utf8('1')))).toBe(true);
  });
});
