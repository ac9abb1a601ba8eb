import { describe, expect, test } from 'vitest';
import { HoldfastError } from '../../model/errors.ts';
import { decode, encode } from './codec.ts';
import { KeyValue } from './gen/kv.ts';
import {
  Compare,
  LeaseGrantRequest,
  LeaseGrantResponse,
  PutRequest,
  RangeRequest,
  TxnRequest,
  WatchCreateRequest,
} from './gen/rpc.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);

/** The error of decoding, whatever the bytes are in. */
function refusal(type: Parameters<typeof decode>[0], input: Uint8Array): string {
  try {
    decode(type, input);
  } catch (error) {
    expect(HoldfastError.is(error, 'invalid-argument')).toBe(true);
    return (error as Error).message;
  }
  return 'accepted';
}

describe('malformed bytes are refused', () => {
  const cases: readonly (readonly [string, Uint8Array, string])[] = [
    ['a length beyond the end', bytes(0x0a, 5, 1), 'truncated'],
    ['a length of more than 32 bits', bytes(0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), 'truncated'],
    ['a number without end', bytes(0x18, 0x80), 'truncated'],
    ['a tag alone', bytes(0x18), 'truncated'],
    ['a number of eleven bytes', bytes(0x18, ...new Array(10).fill(0x80), 0), 'longer than ten'],
    ['a number beyond 64 bits', bytes(0x18, ...new Array(9).fill(0xff), 2), 'beyond 64 bits'],
    ['a known field of another type', bytes(0x08, 1), 'field 1 has the wrong type'],
    ['field number 0', bytes(0x02, 0), 'field number 0'],
    ['a tag beyond 32 bits', bytes(0xf8, 0xff, 0xff, 0xff, 0xff, 0x01, 0), 'beyond 32 bits'],
    ['type 6', bytes(0xfe, 0x01), 'an unknown type'],
    ['a group that ends unopened', bytes(0xfc, 0x01), 'a group ends unopened'],
    ['a group that ends as another', bytes(0xfb, 0x01, 0x84, 0x02), 'with another number'],
    ['a group without end', bytes(0xfb, 0x01, 0x08, 1), 'truncated'],
  ];
  test.each(cases)('%s', (_name, input, message) => {
    expect(refusal(RangeRequest, input)).toContain(message);
  });

  test('a string that is not UTF-8, short or long', () => {
    for (const length of [3, 100]) {
      const text = new Uint8Array(length).fill(0xff);
      expect(refusal(LeaseGrantResponse, bytes(0x22, length, ...text))).toContain('not UTF-8');
    }
  });

  test('transactions nested without end, before the stack is', () => {
    let message: Parameters<typeof encode<Parameters<typeof TxnRequest.write>[1]>>[1] = {};
    for (let i = 0; i < 49; i++) message = { success: [{ requestTxn: message }] };
    expect(decode(TxnRequest, encode(TxnRequest, message)).success).toHaveLength(1);
    const deeper = { success: [{ requestTxn: { success: [{ requestTxn: message }] } }] };
    expect(refusal(TxnRequest, encode(TxnRequest, deeper))).toContain('nested deeper');
    const groups = new Uint8Array(5_000).fill(0xfb).map((b, i) => (i % 2 ? 0x01 : b));
    expect(refusal(RangeRequest, groups)).toContain('nested deeper');
  });
});

describe('what a newer or lax peer sends is understood', () => {
  test('unknown fields of every type are skipped', () => {
    const unknown = bytes(
      ...[0xf8, 0x01, 7, 0xfa, 0x01, 2, 1, 2, 0xfd, 0x01, 1, 2, 3, 4],
      ...[0xf9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0xfb, 0x01, 0x08, 1, 0xfc, 0x01],
    );
    expect(decode(RangeRequest, bytes(...unknown, 0x18, 9)).limit).toBe(9);
  });

  test('a list of enums packed, unpacked, or both', () => {
    const { filters } = decode(WatchCreateRequest, bytes(0x28, 1, 0x2a, 2, 0, 1, 0x28, 0));
    expect(filters).toEqual([1, 0, 1, 0]);
  });

  test('numbers longer than they need be', () => {
    expect(decode(RangeRequest, bytes(0x18, 0x89, 0x80, 0x00)).limit).toBe(9);
    expect(decode(PutRequest, bytes(0x20, 0x80, 0x80, 0x02)).prevKv).toBe(true);
  });

  test('the last member of a oneof counts, and a message sent in two pieces is one', () => {
    const compare = decode(Compare, bytes(0x20, 1, 0x3a, 1, 97));
    expect([compare.version, compare.value]).toEqual([undefined, bytes(97)]);
    const txn = decode(TxnRequest, bytes(0x12, 10, 0x12, 3, 10, 1, 97, 0x12, 3, 0x12, 1, 98));
    const { key, value } = txn.success[0]!.requestPut!;
    expect([key, value]).toEqual([bytes(97), bytes(98)]);
  });
});

describe('64-bit numbers', () => {
  test('are exact below 2^53 and clamped beyond, in both directions', () => {
    const limit = (...value: number[]) => decode(RangeRequest, bytes(0x18, ...value)).limit;
    expect(limit(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f)).toBe(Number.MAX_SAFE_INTEGER);
    expect(limit(0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10)).toBe(Number.MAX_SAFE_INTEGER);
    expect(limit(...new Array(8).fill(0xff), 0x7f)).toBe(Number.MAX_SAFE_INTEGER);
    expect(limit(...new Array(9).fill(0xff), 1)).toBe(-1);
    expect(limit(...new Array(9).fill(0x80), 1)).toBe(-Number.MAX_SAFE_INTEGER);
  });

  test('of ids are exact over their whole range', () => {
    for (const ID of [1n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n]) {
      expect(decode(LeaseGrantRequest, encode(LeaseGrantRequest, { ID })).ID).toBe(ID);
    }
  });

  test('that are not whole or not exact cannot be sent', () => {
    for (const limit of [1.5, 2 ** 60, Number.POSITIVE_INFINITY]) {
      expect(() => encode(RangeRequest, { limit })).toThrow(HoldfastError);
    }
    // A failed encoding leaves nothing behind.
    expect(encode(RangeRequest, { limit: 1 })).toEqual(bytes(0x18, 1));
  });
});

test('what is decoded does not change with the memory it came in', () => {
  const input = encode(KeyValue, { key: bytes(1, 2, 3), value: new Uint8Array(100).fill(4) });
  const kv = decode(KeyValue, input);
  input.fill(9);
  expect([kv.key, kv.value[0]]).toEqual([bytes(1, 2, 3), 4]);
});
