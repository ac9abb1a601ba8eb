/**
 * Fuzzers on the HTTP/2 machine. Each target turns a seed into one input and throws when something
 * happened that no input may cause: an exception, a stream that ended twice or never, output that is
 * no sequence of frames, memory or time beyond what the input is worth.
 */
import { type Bytes, concatBytes, toHex } from '../../src/base/bytes.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import { Connection, type ConnectionOptions, type Role } from '../../src/wire/http2/connection.ts';
import { decodeFrame, encodeFrame, PREFACE, rawFrame } from '../../src/wire/http2/frame.ts';
import type { Header } from '../../src/wire/http2/headers.ts';
import { HpackDecoder } from '../../src/wire/http2/hpack/decode.ts';
import { HpackEncoder } from '../../src/wire/http2/hpack/encode.ts';
import type { Stream } from '../../src/wire/http2/stream.ts';
import { heartbeat } from '../fuzz-judge.ts';
import { conversation } from './conversation.ts';
import { encodeBlock, type MakeConnection, REQUEST, RESPONSE } from './script.ts';

export type MakeDecoder = () => HpackDecoder;

export interface FuzzTarget {
  readonly name: string;
  /** One input; throws on a finding. `make` and `decoder` let the control plant a bug. */
  readonly once: (random: Random, make?: MakeConnection, decoder?: MakeDecoder) => void;
}

function demand(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

/** Changes some bytes, cuts, doubles or moves pieces: what is near to sound finds the most. */
export function mutate(bytes: Bytes, random: Random): Bytes {
  let out: Bytes = bytes.slice();
  for (let i = random.integer(0, 6); i > 0 && out.length > 0; i--) {
    const at = random.integer(0, out.length);
    const length = Math.min(out.length - at, random.integer(1, 40));
    switch (random.integer(0, 6)) {
      case 0:
        out[at] = random.integer(0, 256);
        break;
      case 1:
        out[at]! ^= 1 << random.integer(0, 8);
        break;
      case 2:
        out = concatBytes(out.subarray(0, at), out.subarray(at + length));
        break;
      case 3:
        out = concatBytes(out.subarray(0, at), out.subarray(at, at + length), out.subarray(at));
        break;
      case 4:
        out = concatBytes(out.subarray(0, at), random.bytes(length), out.subarray(at));
        break;
      default:
        out[at] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
    }
  }
  return out;
}

// ─── header blocks ───────────────────────────────────────────────────────────────────────────────

const LIMITS = { headerListBytes: 16_384, headers: 128 };

function randomList(random: Random): Header[] {
  const names = [':path', 'x-a', 'x-b', 'grpc-timeout', 'authorization', 'content-type'];
  return Array.from({ length: random.integer(1, 8) }, (): Header => {
    const length = random.chance(0.1) ? random.integer(0, 400) : random.integer(0, 12);
    return [random.pick(names), String.fromCharCode(...random.bytes(length))];
  });
}

/** Two decoders, one with warm memory and one that is rebuilt, must agree on every block. */
function fuzzBlocks(random: Random, _make?: MakeConnection, make?: MakeDecoder): void {
  const decoder = make ? make() : new HpackDecoder(LIMITS);
  const encoder = new HpackEncoder();
  const history: Bytes[] = [];
  for (let i = random.integer(1, 12); i > 0; i--) {
    const sound = encodeBlock(encoder, randomList(random));
    const again = history.length > 0 && random.chance(0.3);
    const block = again ? random.pick(history) : random.chance(0.6) ? sound : mutate(sound, random);
    const got = decoder.decode(block, 0, block.length);
    const fresh = new HpackDecoder(LIMITS);
    for (const past of history) fresh.decode(past, 0, past.length);
    const wanted = fresh.decode(block, 0, block.length);
    history.push(block);
    demand(
      JSON.stringify(got?.list) === JSON.stringify(wanted?.list),
      `a block means different things: ${toHex(block)}`,
    );
    demand(decoder.tableSize <= 4_096, 'the table is larger than allowed');
    if (!got) {
      demand(decoder.fault !== '', 'a refused block without a reason');
      return;
    }
    let size = 0;
    for (const [name, value] of got.list) size += name.length + value.length + 32;
    demand(size <= LIMITS.headerListBytes, 'a list larger than its limit was kept');
    demand(got.list.length <= LIMITS.headers, 'more fields than the limit were kept');
  }
}

// ─── connections ─────────────────────────────────────────────────────────────────────────────────

interface Watch {
  readonly connection: Connection;
  readonly check: (now: number) => void;
}

/** A connection whose events are checked against what a handler may rely on. */
function watched(role: Role, random: Random, make?: MakeConnection): Watch {
  const ended = new Map<Stream, 'end' | 'reset'>();
  const begun = new Set<Stream>();
  const alive = (stream: Stream, event: string): void => {
    demand(ended.get(stream) === undefined, `${event} on stream ${stream.id}, which has ended`);
  };
  const finish = (stream: Stream, end: boolean): void => {
    if (end) ended.set(stream, 'end');
  };
  const answer = (stream: Stream): void => {
    if (role === 'client' || random.chance(0.3)) return;
    stream.sendHeaders(RESPONSE);
    stream.sendData(new Uint8Array(random.integer(0, 2_000)));
    if (random.chance(0.8)) stream.sendTrailers([['grpc-status', '0']]);
  };
  const options: ConnectionOptions = {
    limits: { concurrentStreams: 20, bufferedBytes: 200_000 },
    streamWindow: random.pick([10, 1_000, 65_535, 200_000]),
    headerTableBytes: random.pick([0, 100, 4_096]),
    handler: {
      onHeaders(stream, headers, end) {
        alive(stream, 'headers');
        demand(role === 'client' || !begun.has(stream), 'headers twice');
        demand(headers.length > 0, 'no headers');
        begun.add(stream);
        stream.holdCredit = random.chance(0.5);
        finish(stream, end);
        if (end) answer(stream);
      },
      onData(stream, bytes, end) {
        alive(stream, 'data');
        finish(stream, end);
        if (random.chance(0.7)) stream.credit(bytes.length);
        if (end) answer(stream);
        else if (random.chance(0.05)) {
          ended.set(stream, 'reset');
          stream.reset(8);
        }
      },
      onTrailers(stream) {
        alive(stream, 'trailers');
        finish(stream, true);
        answer(stream);
      },
      onReset(stream) {
        // A reset may follow the peer's end: the answer is under way still.
        demand(ended.get(stream) !== 'reset', `stream ${stream.id} was reset twice`);
        ended.set(stream, 'reset');
      },
    },
  };
  const connection = make ? make(role, options) : new Connection(role, options);
  const own: Stream[] = [];
  if (role === 'client') {
    for (let i = 0; i < 4; i++) {
      const stream = connection.request(REQUEST, i % 2 === 0);
      if (i % 2 === 1)
        stream.sendData(new Uint8Array(random.integer(0, 90_000)), random.chance(0.5));
      own.push(stream);
    }
  }
  const check = (): void => {
    demand(connection.buffered < 1_000_000, `${connection.buffered} bytes are kept`);
    demand(connection.openStreams <= 20, 'more streams than allowed');
    if (!connection.closed) return;
    demand(connection.openStreams === 0, 'a closed connection with open streams');
    for (const stream of [...begun, ...own]) {
      demand(stream.state === 'closed', `stream ${stream.id} is ${stream.state} after the end`);
    }
  };
  return { connection, check };
}

/** Everything written so far is whole frames. */
function checkOutput(connection: Connection, role: Role, first: boolean): void {
  const parts: Bytes[] = [];
  for (;;) {
    const bytes = connection.takeOutput();
    if (bytes.length === 0) break;
    parts.push(bytes.slice());
    connection.giveBack(bytes);
  }
  const bytes = concatBytes(...parts);
  let at = first && role === 'client' ? PREFACE.length : 0;
  while (at < bytes.length) {
    const next = decodeFrame(bytes, at);
    demand(next !== undefined, 'something was written that is no frame');
    at = next.end;
  }
}

function feed(role: Role, input: Bytes, random: Random, make?: MakeConnection): void {
  const { connection, check } = watched(role, random, make);
  let first = true;
  let at = 0;
  let now = 0;
  while (at < input.length) {
    const end = Math.min(input.length, at + random.pick([1, 9, 100, 1_000, 100_000]));
    connection.receive(input.slice(at, end), now);
    check(now);
    if (random.chance(0.7)) {
      checkOutput(connection, role, first);
      first = false;
    }
    at = end;
    now += random.integer(0, 50);
  }
  checkOutput(connection, role, first);
  connection.transportClosed();
  check(now);
}

/** Frames with random types, flags, streams and payloads on an open connection. */
function fuzzFrames(random: Random, make?: MakeConnection): void {
  const role: Role = random.chance(0.5) ? 'server' : 'client';
  const parts: Bytes[] = role === 'server' ? [PREFACE] : [];
  parts.push(encodeFrame({ type: 'settings', ack: false, entries: [] }));
  for (let i = random.integer(1, 20); i > 0; i--) {
    const type = random.integer(0, 11);
    const length = random.pick([0, 4, 5, 6, 8, random.integer(0, 200)]);
    const payload = random.chance(0.5) ? random.bytes(length) : new Uint8Array(length);
    parts.push(rawFrame(type, random.integer(0, 256), random.pick([0, 1, 2, 3, 5, 7]), payload));
  }
  feed(role, concatBytes(...parts), random, make);
}

/** Whole conversations, sound at first and then mutated. */
function fuzzConnections(random: Random, make?: MakeConnection): void {
  const role: Role = random.chance(0.5) ? 'server' : 'client';
  const sound = conversation(role, random);
  feed(role, random.chance(0.3) ? sound : mutate(sound, random), random, make);
}

/** Bytes before anything is agreed on. */
function fuzzBeginnings(random: Random, make?: MakeConnection): void {
  const role: Role = random.chance(0.5) ? 'server' : 'client';
  const start = random.chance(0.5) ? mutate(PREFACE, random) : random.bytes(random.integer(0, 60));
  feed(role, concatBytes(start, random.bytes(random.integer(0, 100))), random, make);
}

export const TARGETS: readonly FuzzTarget[] = [
  { name: 'header blocks', once: fuzzBlocks },
  { name: 'frames', once: fuzzFrames },
  { name: 'connections', once: fuzzConnections },
  { name: 'beginnings', once: fuzzBeginnings },
];

export interface FuzzResult {
  readonly inputs: number;
  /** Processor time of the slowest input: the machine's other load is no finding. */
  readonly slowestMs: number;
  /** The seed of the input that found something, and what. */
  readonly finding: { readonly seed: number; readonly what: string } | undefined;
}

/** Runs inputs until the time is over, the number is reached, or something is found. */
export function fuzz(
  target: FuzzTarget,
  seed: number,
  until: { readonly forMs?: number; readonly inputs?: number },
  make?: MakeConnection,
  decoder?: MakeDecoder,
): FuzzResult {
  const startedMs = performance.now();
  let inputs = 0;
  let slowestMs = 0;
  for (;;) {
    if (inputs >= (until.inputs ?? Number.POSITIVE_INFINITY)) break;
    if (performance.now() - startedMs > (until.forMs ?? Number.POSITIVE_INFINITY)) break;
    const own = (seed + inputs) >>> 0;
    heartbeat(own);
    const from = process.cpuUsage();
    try {
      target.once(seededRandom(own), make, decoder);
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      return { inputs, slowestMs, finding: { seed: own, what } };
    }
    const { user, system } = process.cpuUsage(from);
    slowestMs = Math.max(slowestMs, (user + system) / 1_000);
    inputs++;
  }
  return { inputs, slowestMs, finding: undefined };
}
