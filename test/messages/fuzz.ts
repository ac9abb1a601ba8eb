/**
 * Fuzzers on what strangers send inside of HTTP/2: gRPC framing, every message, JSON, and header
 * fields. Each target turns chance into one input and throws when something happened that no input
 * may cause: an error that is not ours, an answer that does not come back as itself, memory beyond
 * what the input is worth.
 */
import { type Bytes, concatBytes, equalBytes, text, toHex, utf8 } from '../../src/base/bytes.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import * as messageReader from '../../src/wire/grpc/message-reader.ts';
import * as metadata from '../../src/wire/grpc/metadata.ts';
import * as request from '../../src/wire/grpc/request.ts';
import * as response from '../../src/wire/grpc/response.ts';
import * as grpcStatus from '../../src/wire/grpc/status.ts';
import * as timeout from '../../src/wire/grpc/timeout.ts';
import * as codec from '../../src/wire/messages/codec.ts';
import type { Field, MessageType } from '../../src/wire/messages/descriptor.ts';
import * as json from '../../src/wire/messages/json.ts';
import * as jsonText from '../../src/wire/messages/json-text.ts';
import { heartbeat } from '../fuzz-judge.ts';
import { mutate } from '../http2/fuzz.ts';
import { MESSAGES } from './arbitrary.ts';

/** Everything under test; the control passes a copy with one bug. */
export type Wire = typeof messageReader &
  typeof metadata &
  typeof request &
  typeof response &
  typeof grpcStatus &
  typeof timeout &
  typeof codec &
  typeof json &
  typeof jsonText & { readonly messages: readonly MessageType<object>[] };

export const REAL: Wire = {
  ...messageReader,
  ...metadata,
  ...request,
  ...response,
  ...grpcStatus,
  ...timeout,
  ...codec,
  ...json,
  ...jsonText,
  messages: MESSAGES,
};

export interface FuzzTarget {
  readonly name: string;
  readonly once: (random: Random, wire: Wire) => void;
}

function demand(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

/** A copy of the sources has a class of its own, so this goes by shape. */
const isOurs = (error: unknown): error is HoldfastError => HoldfastError.is(error);

// ─── framing ───────────────────────────────────────────────────────────────────────────────────

const FRAME_MAX = 200;

function fuzzFraming(random: Random, wire: Wire): void {
  const pieces = Array.from({ length: random.integer(0, 6) }, () =>
    wire.frameMessage(
      random.bytes(random.integer(0, random.chance(0.1) ? 260 : 30)),
      random.chance(0.2),
    ),
  );
  const sound = concatBytes(...pieces);
  const bytes = random.chance(0.5) ? sound : mutate(sound, random);
  const got: string[] = [];
  const reader = new wire.MessageReader({ bytesMax: FRAME_MAX, decompress: (b) => b });
  let at = 0;
  try {
    while (at < bytes.length) {
      const end = Math.min(bytes.length, at + random.integer(1, random.chance(0.5) ? 8 : 300));
      reader.push(bytes.slice(at, end));
      at = end;
      for (let m = reader.next(); m !== undefined; m = reader.next()) got.push(toHex(m));
      demand(reader.pending <= FRAME_MAX + 5, 'more is kept than one message');
    }
    reader.end();
  } catch (error) {
    if (!isOurs(error)) throw error;
    got.push('error');
  }
  const expected = referenceMessages(bytes);
  demand(got.join() === expected.join(), `read ${got.join()} instead of ${expected.join()}`);
}

/** What the stream means, read in one piece by other code. */
function referenceMessages(bytes: Bytes): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out: string[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (at + 5 > bytes.length) return [...out, 'error'];
    const length = view.getUint32(at + 1);
    const wrong = bytes[at]! > 1 || length > FRAME_MAX || at + 5 + length > bytes.length;
    if (wrong) return [...out, 'error'];
    out.push(toHex(bytes.subarray(at + 5, at + 5 + length)));
    at += 5 + length;
  }
  return out;
}

// ─── messages ──────────────────────────────────────────────────────────────────────────────────

const WORDS = [
  '',
  'a',
  'key',
  '\u20ac',
  '\u{1f512}',
  '__proto__',
  'constructor',
  '%41',
  'x'.repeat(200),
];

function randomValue(field: Field, random: Random, depth: number): unknown {
  switch (field.kind) {
    case 'bool':
      return random.chance(0.5);
    case 'int32':
      return random.integer(-(2 ** 31), 2 ** 31);
    case 'uint32':
      return random.integer(0, 2 ** 32);
    case 'int64':
      return random.pick([0, 1, -1, 300, 2 ** 40, -(2 ** 33), Number.MAX_SAFE_INTEGER]);
    case 'uint64':
      return random.pick([0, 1, 300, 2 ** 40, Number.MAX_SAFE_INTEGER]);
    case 'big-int64':
      return random.pick([
        0n,
        1n,
        -1n,
        2n ** 62n,
        -(2n ** 63n),
        BigInt(random.integer(0, 2 ** 50)),
      ]);
    case 'big-uint64':
      return random.pick([0n, 1n, 2n ** 64n - 1n, BigInt(random.integer(0, 2 ** 50))]);
    case 'string':
      return random.pick(WORDS);
    case 'bytes':
      return random.bytes(random.integer(0, random.chance(0.1) ? 300 : 12));
    case 'enum':
      return random.integer(0, 6);
    case 'message':
      return randomMessage(field.message!(), random, depth + 1);
  }
}

export function randomMessage(type: MessageType<object>, random: Random, depth = 0): object {
  const message: Record<string, unknown> = {};
  const taken = new Set<string>();
  for (const field of type.fields) {
    if (random.chance(0.35) || (depth > 4 && field.kind === 'message')) continue;
    if (field.oneof) {
      if (taken.has(field.oneof)) continue;
      taken.add(field.oneof);
    }
    message[field.local] = field.repeated
      ? Array.from({ length: random.integer(0, 4) }, () => randomValue(field, random, depth))
      : randomValue(field, random, depth);
  }
  return message;
}

/** What was accepted must come back as itself from then on. */
function settled(wire: Wire, type: MessageType<object>, message: object): Bytes {
  const bytes = wire.encode(type, message).slice();
  const again = wire.encode(type, wire.decode(type, bytes));
  demand(equalBytes(bytes, again), `${type.name} is not stable: ${toHex(bytes)}`);
  return bytes;
}

function fuzzMessages(random: Random, wire: Wire): void {
  const type = random.pick(wire.messages);
  const sound = wire.encode(type, randomMessage(type, random)).slice();
  const known = wire.encode(type, wire.decode(type, sound)).slice();
  const among = wire.encode(type, wire.decode(type, concatBytes(unknownField(random), sound)));
  demand(equalBytes(known, among), `an unknown field changes ${type.name}`);
  const kind = random.next();
  const bytes =
    kind < 0.7
      ? mutate(sound, random)
      : kind < 0.9
        ? random.bytes(random.integer(0, 60))
        : nested(random);
  let message: object;
  try {
    message = wire.decode(type, bytes);
  } catch (error) {
    if (isOurs(error) && error.code === 'invalid-argument') return;
    throw error;
  }
  const settledBytes = settled(wire, type, message);
  // Nothing comes out that did not come in: only zeros and clamped numbers change lengths.
  demand(settledBytes.length <= bytes.length * 10 + 20, `${type.name} has grown`);
}

/** A field that no message has, of every type. */
function unknownField(random: Random): Bytes {
  const number = 1_000;
  const tag = (type: number): number[] => {
    const value = (number << 3) | type;
    return [(value & 0x7f) | 0x80, value >>> 7];
  };
  const inside = random.bytes(random.integer(0, 200));
  const length = [(inside.length & 0x7f) | 0x80, inside.length >>> 7];
  return random.pick([
    Uint8Array.from([...tag(0), 0xff, 0x7f]),
    Uint8Array.from([...tag(1), ...random.bytes(8)]),
    Uint8Array.from([...tag(2), ...length, ...inside]),
    Uint8Array.from([...tag(3), ...tag(2), ...length, ...inside, ...tag(4)]),
    Uint8Array.from([...tag(5), ...random.bytes(4)]),
  ]);
}

/** Very deep, of every wire type that nests. */
function nested(random: Random): Bytes {
  const open = random.pick([[0x12], [0x1a], [0x22], [0x0b], [0x13]]);
  let bytes = random.bytes(random.integer(0, 4));
  for (let i = random.integer(0, 300); i > 0; i--) {
    bytes =
      (open[0]! & 7) === 3 ? concatBytes(Uint8Array.from(open), bytes) : wrap(open[0]!, bytes);
  }
  return bytes;
}

function wrap(tag: number, bytes: Bytes): Bytes {
  const length =
    bytes.length < 128 ? [bytes.length] : [(bytes.length & 0x7f) | 0x80, bytes.length >>> 7];
  return concatBytes(Uint8Array.of(tag, ...length), bytes);
}

// ─── JSON ──────────────────────────────────────────────────────────────────────────────────────

const TRICKS = [
  '"__proto__"',
  '"constructor"',
  '"toString"',
  '"-1"',
  '1e400',
  '-0',
  'null',
  '[[',
  '{"a":',
  '"\\ud800"',
  '1e3',
  '"AA=="',
  '"_-8"',
];

function fuzzJson(random: Random, wire: Wire): void {
  const type = random.pick(wire.messages);
  const sound = wire.toJson(
    type,
    wire.decode(type, wire.encode(type, randomMessage(type, random))),
  );
  const input = mutateText(sound, random);
  let message: object | undefined;
  try {
    message = wire.fromJson(type, input);
  } catch (error) {
    if (!isOurs(error) || error.code !== 'invalid-argument') throw error;
  }
  if (message) {
    const bytes = settled(wire, type, message);
    const back = wire.fromJson(type, wire.toJson(type, wire.decode(type, bytes)));
    demand(
      equalBytes(wire.encode(type, back), bytes),
      `${type.name} is not stable as JSON: ${input}`,
    );
  }
  demand(({} as Record<string, unknown>).polluted === undefined, 'the prototype was changed');
  cutObjects(random, wire, `${sound} ${input}${sound}`);
}

function mutateText(sound: string, random: Random): string {
  const kind = random.next();
  if (kind < 0.3) return text(mutate(utf8(sound), random));
  if (kind < 0.4)
    return random
      .pick(['[', '{"a":', '{"success":[{"requestTxn":'])
      .repeat(random.integer(1, 5_000));
  // Puts a trick in the place of some value or name.
  const places = [...sound.matchAll(/"[^"]*"|[0-9]+|true/g)];
  if (places.length === 0) return random.pick(TRICKS);
  const place = random.pick(places);
  return (
    sound.slice(0, place.index) + random.pick(TRICKS) + sound.slice(place.index + place[0].length)
  );
}

/** Any cutting of a body gives the same objects, or fails as well. */
function cutObjects(random: Random, wire: Wire, body: string): void {
  const bytes = utf8(body);
  const read = (size: () => number): string => {
    const objects = new wire.JsonObjects(100_000);
    const out: string[] = [];
    try {
      for (let at = 0; at < bytes.length; ) {
        const end = Math.min(bytes.length, at + size());
        out.push(...objects.feed(bytes.subarray(at, end)));
        at = end;
      }
      objects.end();
    } catch (error) {
      if (!isOurs(error)) throw error;
      return 'error';
    }
    return out.join('\n');
  };
  const whole = read(() => bytes.length);
  const cut = read(() => random.integer(1, 40));
  demand(whole === cut, `the objects depend on the cutting: ${body}`);
}

// ─── header fields ─────────────────────────────────────────────────────────────────────────────

const NAMES = [
  ':method',
  ':path',
  ':status',
  'content-type',
  'grpc-timeout',
  'grpc-status',
  'grpc-message',
  'grpc-encoding',
  'grpc-accept-encoding',
  'grpc-status-details-bin',
  'x-bin',
  'token',
];
const VALUES = [
  'POST',
  '200',
  '404',
  'application/grpc',
  'application/grpc+proto',
  '5S',
  '99999999H',
  '0',
  '13',
  '999',
  'gzip',
  'a%20b',
  '%e2%82%ac',
  '%',
  'AAEC',
  'AA==',
  '/a/b',
];

function randomText(random: Random): string {
  const kind = random.next();
  if (kind < 0.5) return random.pick(VALUES);
  if (kind < 0.7) return String.fromCharCode(...mutate(utf8(random.pick(VALUES)), random));
  return String.fromCharCode(...random.bytes(random.integer(0, 20)));
}

function fuzzHeaders(random: Random, wire: Wire): void {
  const list = Array.from(
    { length: random.integer(0, 8) },
    () => [random.pick(NAMES), randomText(random)] as const,
  );
  const head = wire.readRequest(list);
  demand(head.type === 'refused' || !(head.timeoutMs! < 0), 'a negative timeout');
  wire.readResponse(list, random.chance(0.5));
  const status = wire.readTrailers(list);
  demand(Number.isInteger(status.code) && status.code >= 0, 'a status without code');
  wire.receivedMetadata(list);

  const value = randomText(random);
  const ms = wire.parseTimeout(value);
  if (ms !== undefined) {
    demand(Number.isFinite(ms) && ms >= 0, `timeout ${value}`);
    demand(
      wire.parseTimeout(wire.formatTimeout(ms))! >= Math.min(ms, 3.59e14),
      `shorter: ${value}`,
    );
  }
  const plain = wire.decodeMessage(value);
  if (!/%[0-9a-fA-F]{2}/.test(value) && /^[\x20-\x7e]*$/.test(value)) {
    demand(plain === value, `message ${JSON.stringify(value)} became ${JSON.stringify(plain)}`);
  }
  demand(
    wire.decodeMessage(wire.encodeMessage(plain)) === plain.trim(),
    `message ${JSON.stringify(plain)}`,
  );
  const bytes = random.bytes(random.integer(0, 20));
  demand(equalBytes(wire.decodeBinary(wire.encodeBinary(bytes))!, bytes), 'binary metadata');
}

export const TARGETS: readonly FuzzTarget[] = [
  { name: 'framing', once: fuzzFraming },
  { name: 'messages', once: fuzzMessages },
  { name: 'json', once: fuzzJson },
  { name: 'headers', once: fuzzHeaders },
];

export interface FuzzResult {
  readonly inputs: number;
  readonly slowestMs: number;
  readonly finding: { readonly seed: number; readonly what: string } | undefined;
}

/** An input that took long is tried again: a busy machine is no finding, a slow input stays slow. */
function quickest(target: FuzzTarget, seed: number, wire: Wire, firstMs: number): number {
  let bestMs = firstMs;
  for (let i = 0; i < 3; i++) {
    const from = performance.now();
    target.once(seededRandom(seed), wire);
    bestMs = Math.min(bestMs, performance.now() - from);
  }
  return bestMs;
}

/** Runs a target on seeds from `seed` on, until the time or the number is used up or it finds something. */
export function fuzz(
  target: FuzzTarget,
  seed: number,
  until: { readonly inputs?: number; readonly forMs?: number },
  wire: Wire = REAL,
): FuzzResult {
  const start = performance.now();
  const inputsMax = until.inputs ?? Number.POSITIVE_INFINITY;
  const forMs = until.forMs ?? Number.POSITIVE_INFINITY;
  let slowestMs = 0;
  let now = start;
  let inputs = 0;
  for (; inputs < inputsMax && now - start < forMs; inputs++) {
    heartbeat(seed + inputs);
    try {
      target.once(seededRandom(seed + inputs), wire);
    } catch (error) {
      return { inputs, slowestMs, finding: { seed: seed + inputs, what: String(error) } };
    }
    const after = performance.now();
    if (after - now > slowestMs)
      slowestMs = Math.max(slowestMs, quickest(target, seed + inputs, wire, after - now));
    now = performance.now();
  }
  return { inputs, slowestMs, finding: undefined };
}
