/**
 * Random conversations for properties and fuzzers: mostly sound frames in mostly sensible order, some
 * with something wrong, so that both the rules and their violations are visited.
 */
import { type Bytes, concatBytes, toHex } from '../../src/base/bytes.ts';
import type { Random } from '../../src/base/random.ts';
import type { ConnectionOptions, Role } from '../../src/wire/http2/connection.ts';
import { encodeFrame, type Frame, PREFACE } from '../../src/wire/http2/frame.ts';
import type { Header } from '../../src/wire/http2/headers.ts';
import { HpackEncoder } from '../../src/wire/http2/hpack/encode.ts';
import { encodeBlock, type MakeConnection, REQUEST, RESPONSE, Script } from './script.ts';

/** Streams the client side of a conversation has opened before it begins. */
const OPENED = 4;

/** All a peer says to a connection of the given role, SETTINGS included. */
export function conversation(role: Role, random: Random): Bytes {
  const encoder = new HpackEncoder();
  const parts: Bytes[] = role === 'server' ? [PREFACE] : [];
  parts.push(encodeFrame({ type: 'settings', ack: false, entries: settingsOf(random) }));
  if (random.chance(0.9)) parts.push(encodeFrame({ type: 'settings', ack: true, entries: [] }));
  const frames = random.integer(1, 30);
  let next = 1;
  for (let i = 0; i < frames; i++) {
    const open = role === 'server' && random.chance(0.4);
    const stream = open ? next : random.integer(0, Math.max(OPENED, next / 2 + 1)) * 2 + 1;
    if (open) next += 2;
    parts.push(...frameOf(random, encoder, role, stream, open));
  }
  const whole = concatBytes(...parts);
  if (random.chance(0.2) && whole.length > 0) {
    for (let i = random.integer(1, 4); i > 0; i--) {
      whole[random.integer(0, whole.length)] = random.integer(0, 256);
    }
  }
  return whole;
}

function settingsOf(random: Random): [number, number][] {
  const entries: [number, number][] = [];
  if (random.chance(0.3)) entries.push([1, random.pick([0, 64, 4_096, 65_536])]);
  if (random.chance(0.3)) entries.push([4, random.pick([0, 1, 100, 65_535, 1_000_000])]);
  if (random.chance(0.2)) entries.push([5, random.pick([16_384, 100_000])]);
  return entries;
}

const NAMES = ['x-a', 'x-b', 'grpc-timeout', 'authorization', 'content-length', 'te', 'X-Bad'];

function listOf(random: Random, role: Role, open: boolean): Header[] {
  const first = open || random.chance(0.4) ? (role === 'server' ? REQUEST : RESPONSE) : [];
  const more = Array.from({ length: random.integer(0, 4) }, (): Header => {
    const value = random.pick(['1', 'trailers', '', 'x'.repeat(random.integer(0, 200)), 'ä ']);
    return [random.chance(0.9) ? random.pick(NAMES.slice(0, 4)) : random.pick(NAMES), value];
  });
  return [...first, ...more];
}

function frameOf(
  random: Random,
  encoder: HpackEncoder,
  role: Role,
  stream: number,
  open: boolean,
): Bytes[] {
  const endStream = random.chance(0.3);
  const padding = random.chance(0.1) ? random.integer(0, 256) : undefined;
  if (open || random.chance(0.25)) {
    const block = encodeBlock(encoder, listOf(random, role, open));
    const cut = random.chance(0.2) ? random.integer(0, block.length + 1) : block.length;
    const whole = cut === block.length;
    const head: Frame = {
      type: 'headers',
      stream,
      endStream,
      endHeaders: whole,
      block: block.subarray(0, cut),
      padding,
    };
    if (whole) return [encodeFrame(head)];
    const tail: Frame = {
      type: 'continuation',
      stream,
      endHeaders: true,
      block: block.subarray(cut),
    };
    return [encodeFrame(head), encodeFrame(tail)];
  }
  return [encodeFrame(otherFrame(random, stream, endStream, padding))];
}

function otherFrame(
  random: Random,
  stream: number,
  endStream: boolean,
  padding: number | undefined,
): Frame {
  const kind = random.integer(0, 12);
  if (kind < 5) {
    const data = random.bytes(random.integer(0, 300));
    return { type: 'data', stream, endStream, data, padding };
  }
  if (kind === 5) return { type: 'rst-stream', stream, code: random.integer(0, 16) };
  if (kind === 6) {
    const increment = random.pick([0, 1, 100, 65_535, 0x7fffffff]);
    return { type: 'window-update', stream: random.chance(0.3) ? 0 : stream, increment };
  }
  if (kind === 7) return { type: 'ping', ack: random.chance(0.3), data: random.bytes(8) };
  if (kind === 8) return { type: 'settings', ack: random.chance(0.2), entries: [] };
  if (kind === 9) return { type: 'settings', ack: false, entries: settingsOf(random) };
  if (kind === 10) {
    return {
      type: 'goaway',
      lastStream: stream,
      code: 0,
      debug: 'x'.repeat(random.integer(0, 50)),
    };
  }
  return {
    type: 'unknown',
    code: random.integer(10, 255),
    flags: random.integer(0, 256),
    stream,
    payload: random.bytes(random.integer(0, 20)),
  };
}

/** Feeds the bytes, cut at the given places, and answers all that came of it. */
export function outcome(
  role: Role,
  bytes: Bytes,
  cuts: readonly number[],
  options: Partial<ConnectionOptions> = {},
  make?: MakeConnection,
): { readonly events: readonly string[]; readonly output: string } {
  const script = new Script(role, {
    ...options,
    ...(make ? { make } : {}),
    bare: true,
    above: {
      onHeaders: (stream, _headers, end) => {
        if (stream.id % 4 === 1) stream.holdCredit = true;
        if (role === 'server' && end) {
          stream.sendHeaders(RESPONSE);
          stream.sendData(new Uint8Array(500), true);
        }
      },
      onData: (stream, data, end) => {
        stream.credit(data.length >> 1);
        if (role === 'client') return;
        stream.sendHeaders(RESPONSE);
        stream.sendData(data.slice());
        if (end) stream.sendTrailers([['t', '1']]);
      },
    },
  });
  if (role === 'client') {
    for (let i = 0; i < OPENED; i++) {
      const stream = script.connection.request(REQUEST, i % 2 === 0);
      if (i % 2 === 1) stream.sendData(new Uint8Array(70_000), true);
    }
  }
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    // A copy, so that a slice kept across chunks would be noticed.
    if (to > from) script.bytes(bytes.slice(from, to));
    from = Math.max(from, to);
  }
  return { events: [...script.events], output: toHex(script.taken()) };
}
