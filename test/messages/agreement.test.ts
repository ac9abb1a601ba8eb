/** Our codec against two others, on random values of every message. */
import {
  create,
  fromJson as esFromJson,
  toJson as esToJson,
  fromBinary,
  toBinary,
} from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decode, encode } from '../../src/wire/messages/codec.ts';
import { fromJson, toJson } from '../../src/wire/messages/json.ts';
import { MESSAGES, messageOf } from './arbitrary.ts';
import { protobufEs, protobufJs } from './references.ts';

const js = protobufJs();
const es = protobufEs(js);
const RUNS = { numRuns: 25 };

test('every message of the .proto files is here', () => {
  expect(MESSAGES).toHaveLength(134);
  for (const type of MESSAGES) expect(es.getMessage(type.name), type.name).toBeDefined();
});

describe.each(MESSAGES.map((type) => [type.name, type] as const))('%s', (name, type) => {
  test('agrees with protobufjs and protobuf-es, byte for byte and in JSON, and comes back', () => {
    const other = js.lookupType(name);
    const schema = es.getMessage(name)!;
    fc.assert(
      fc.property(messageOf(type), (message) => {
        const bytes = encode(type, message).slice();
        const back = decode(type, bytes);
        expect(encode(type, back)).toEqual(bytes);
        expect(decode(type, Buffer.from(bytes))).toEqual(back);

        expect(new Uint8Array(other.encode(other.decode(bytes)).finish())).toEqual(bytes);

        const theirs = fromBinary(schema, bytes);
        expect(toBinary(schema, theirs)).toEqual(bytes);
        const json = toJson(type, back);
        const theirJson = esToJson(schema, theirs, { useProtoFieldName: true });
        expect(JSON.parse(json)).toEqual(theirJson);
        expect(encode(type, fromJson(type, json))).toEqual(bytes);
        const camel = JSON.stringify(esToJson(schema, theirs));
        expect(encode(type, fromJson(type, camel))).toEqual(bytes);
        expect(toBinary(schema, esFromJson(schema, JSON.parse(json)))).toEqual(bytes);
      }),
      RUNS,
    );
  });
});

test('what is compared is not empty', () => {
  const schema = es.getMessage('etcdserverpb.PutRequest')!;
  expect(toBinary(schema, create(schema))).toHaveLength(0);
  const [sample] = fc.sample(messageOf(MESSAGES.find((m) => m.name.endsWith('.PutRequest'))!), {
    numRuns: 1,
    seed: 1,
  });
  expect(Object.keys(sample!)).toHaveLength(6);
});
