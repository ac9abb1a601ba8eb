/** Random messages of any type, made from its descriptor. */
import fc from 'fast-check';
import type { Field, MessageType } from '../../src/wire/messages/descriptor.ts';
import * as audit from '../../src/wire/messages/gen/audit.ts';
import * as auth from '../../src/wire/messages/gen/auth.ts';
import * as authority from '../../src/wire/messages/gen/authority.ts';
import * as election from '../../src/wire/messages/gen/election.ts';
import * as health from '../../src/wire/messages/gen/health.ts';
import * as kv from '../../src/wire/messages/gen/kv.ts';
import * as lock from '../../src/wire/messages/gen/lock.ts';
import * as rpc from '../../src/wire/messages/gen/rpc.ts';
import * as status from '../../src/wire/messages/gen/status.ts';
import { METHODS } from '../../src/wire/messages/services.ts';

export type AnyMessage = MessageType<object>;

function isMessageType(value: unknown): value is AnyMessage {
  return typeof value === 'object' && value !== null && 'fields' in value && 'read' in value;
}

/** Every message there is. */
export const MESSAGES: readonly AnyMessage[] = [
  ...[audit, auth, authority, election, health, kv, lock, rpc, status],
]
  .flatMap((module) => Object.values<unknown>(module))
  .filter(isMessageType);

/** Every message a method takes, which is what strangers can send to a server. */
export const REQUESTS: readonly AnyMessage[] = [...new Set(METHODS.map((m) => m.request))];

const INT64 = fc.oneof(
  fc.constantFrom(0, 1, -1, 127, 128, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER, -(2 ** 40)),
  fc.maxSafeInteger(),
);
const BYTES = fc.oneof(fc.uint8Array({ maxLength: 12 }), fc.uint8Array({ maxLength: 400 }));
const TEXT = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.string({ unit: 'grapheme-ascii', maxLength: 150 }),
);

function arbitraryValue(field: Field, depth: number): fc.Arbitrary<unknown> {
  switch (field.kind) {
    case 'bool':
      return fc.boolean();
    case 'int32':
      return fc.integer();
    case 'uint32':
      return fc.nat({ max: 0xffff_ffff });
    case 'int64':
      return INT64;
    case 'uint64':
      return INT64.map(Math.abs);
    case 'big-int64':
      return fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n);
    case 'big-uint64':
      return fc.bigInt(0n, 2n ** 64n - 1n);
    case 'string':
      return TEXT;
    case 'bytes':
      return BYTES;
    case 'enum':
      return fc.constantFrom(...Object.values(field.enumeration!));
    case 'message':
      return fc.constant(null).chain(() => messageOf(field.message!(), depth + 1));
  }
}

function arbitraryField(field: Field, depth: number): fc.Arbitrary<unknown> {
  const deep = field.kind === 'message' && depth >= 4;
  if (field.repeated) {
    return deep ? fc.constant([]) : fc.array(arbitraryValue(field, depth), { maxLength: 3 });
  }
  if (field.kind === 'message' || field.oneof) {
    return deep
      ? fc.constant(undefined)
      : fc.option(arbitraryValue(field, depth), { nil: undefined, freq: 3 });
  }
  return arbitraryValue(field, depth);
}

/** At most one member of each oneof is set. */
export function messageOf(type: AnyMessage, depth = 0): fc.Arbitrary<Record<string, unknown>> {
  const fields = Object.fromEntries(
    type.fields.map((field) => [field.local, arbitraryField(field, depth)]),
  );
  return fc.tuple(fc.record(fields), fc.nat()).map(([message, choice]) => {
    const groups = new Set(type.fields.flatMap((field) => field.oneof ?? []));
    for (const group of groups) {
      const members = type.fields.filter((field) => field.oneof === group);
      const kept = members[choice % members.length];
      for (const member of members) if (member !== kept) message[member.local] = undefined;
    }
    return message;
  });
}
