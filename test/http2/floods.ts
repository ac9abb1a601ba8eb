/**
 * Floods: what an attacker does to make a server work, keep or wait, each with the price it must cost
 * (its connection) while a well-behaved client is served. Used small by the tests and as
 * `prove/floods.ts` with figures; the control runs the same attacks on a server without limits.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { type Bytes, concatBytes, EMPTY, utf8 } from '../../src/base/bytes.ts';
import { encodeFrame, PREFACE, rawFrame } from '../../src/wire/http2/frame.ts';
import { HpackEncoder } from '../../src/wire/http2/hpack/encode.ts';
import type { ClientSession } from '../../src/wire/net/client.ts';
import { type Certificate, client, echoes, type Undo } from './harness.ts';
import { encodeBlock, REQUEST } from './script.ts';

export interface Flood {
  readonly name: string;
  /** Bytes for the attacker's turn number `turn`; undefined when it only waits from now on. */
  readonly turn: (turn: number) => Bytes | undefined;
  /** How many connections attack. */
  readonly connections?: number;
  readonly tls?: boolean;
  /** The attacker does not read what the server answers. */
  readonly deaf?: boolean;
  /** A pause between turns. */
  readonly everyMs?: number;
  /** Raw: without preface and SETTINGS. */
  readonly raw?: boolean;
}

const SETTINGS = encodeFrame({ type: 'settings', ack: false, entries: [] });
const BLOCK = encodeBlock(new HpackEncoder(), REQUEST);
/** The block above once its fields are in the peer's table; all indices. */
const headersOn = (stream: number, flags: number, block: Bytes = BLOCK): Bytes =>
  rawFrame(1, flags, stream, block);
const repeat = (count: number, make: (i: number) => Bytes): Bytes =>
  concatBytes(...Array.from({ length: count }, (_, i) => make(i)));
const always = (bytes: Bytes) => () => bytes;
/** Static indices only, so that every frame can be the same. */
const PLAIN = Uint8Array.of(0x83, 0x86, 0x84);

const ping = encodeFrame({ type: 'ping', ack: false, data: utf8('12345678') });

/** 4,000 bytes into the table, and 4,000 references to them in one block of 8 kB: 16 MB of headers. */
function bomb(): Bytes {
  const value = new Uint8Array(4_000).fill(0x61);
  const insert = concatBytes(Uint8Array.of(0x40, 1, 0x78, 0x7f, 0xa1, 0x1e), value);
  return concatBytes(PLAIN, insert, new Uint8Array(4_000).fill(0xbe));
}

export const FLOODS: readonly Flood[] = [
  {
    name: 'rapid reset',
    turn: (turn) =>
      repeat(500, (i) => {
        const stream = (turn * 500 + i) * 2 + 1;
        const reset = encodeFrame({ type: 'rst-stream', stream, code: 8 });
        return concatBytes(headersOn(stream, 0x4, PLAIN), reset);
      }),
  },
  {
    name: 'resets that the server is made to send',
    turn: (turn) =>
      repeat(500, (i) => {
        const stream = (turn * 500 + i) * 2 + 1;
        const nothing = encodeFrame({ type: 'window-update', stream, increment: 0 });
        return concatBytes(headersOn(stream, 0x4, PLAIN), nothing);
      }),
  },
  {
    name: 'streams beyond the allowed number',
    turn: (turn) => repeat(1_000, (i) => headersOn((turn * 1_000 + i) * 2 + 1, 0x4, PLAIN)),
  },
  {
    name: 'CONTINUATION without end',
    turn: (turn) =>
      turn === 0
        ? headersOn(1, 0x1, PLAIN)
        : repeat(8, () => rawFrame(9, 0, 1, new Uint8Array(8_000).fill(0x82))),
  },
  {
    name: 'empty CONTINUATION frames',
    turn: (turn) =>
      turn === 0 ? headersOn(1, 0x1, PLAIN) : repeat(1_000, () => rawFrame(9, 0, 1, EMPTY)),
  },
  { name: 'SETTINGS', turn: always(repeat(1_000, () => SETTINGS)) },
  { name: 'PING', turn: always(repeat(1_000, () => ping)) },
  { name: 'PING without reading the answers', turn: always(repeat(1_000, () => ping)), deaf: true },
  {
    name: 'header bomb',
    turn: (turn) => headersOn(turn * 2 + 1, 0x5, bomb()),
  },
  {
    name: 'empty DATA frames',
    turn: (turn) =>
      turn === 0 ? headersOn(1, 0x4, PLAIN) : repeat(1_000, () => rawFrame(0, 0, 1, EMPTY)),
  },
  {
    name: 'window updates',
    turn: always(
      repeat(1_000, () => encodeFrame({ type: 'window-update', stream: 0, increment: 1 })),
    ),
  },
  {
    name: 'PRIORITY and unknown frames',
    turn: always(
      repeat(500, () =>
        concatBytes(rawFrame(2, 0, 1, new Uint8Array(5)), rawFrame(0xbb, 0, 0, EMPTY)),
      ),
    ),
  },
  {
    name: 'a reader that never reads',
    deaf: true,
    turn: (turn) => {
      if (turn === 0) {
        return concatBytes(
          encodeFrame({ type: 'settings', ack: false, entries: [[4, 0x7fffffff]] }),
          encodeFrame({ type: 'window-update', stream: 0, increment: 0x7ffe0000 }),
        );
      }
      const stream = turn * 2 - 1;
      return concatBytes(
        headersOn(stream, 0x4, PLAIN),
        repeat(8, () => rawFrame(0, 0, stream, new Uint8Array(16_000))),
        rawFrame(0, 1, stream, EMPTY),
      );
    },
  },
  {
    name: 'a request that never becomes whole',
    turn: (turn) =>
      turn === 0 ? rawFrame(1, 0, 1, new Uint8Array(9_000)).subarray(0, 12) : Uint8Array.of(0),
    everyMs: 50,
  },
  {
    name: 'stalled TLS handshakes',
    tls: true,
    raw: true,
    connections: 100,
    turn: (turn) => (turn === 0 ? Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01) : undefined),
  },
  {
    name: 'connections that say nothing',
    raw: true,
    connections: 500,
    turn: () => undefined,
  },
  {
    name: 'idle connections',
    connections: 500,
    turn: () => undefined,
  },
];

export interface Ports {
  readonly plain: number;
  readonly tls: number;
}

export interface Victim {
  readonly ports: Ports;
  readonly ask: () => Promise<{ rss: number; lag: number; connections: number }>;
}

/** Starts the server in its own process. */
export async function victim(
  undo: Undo,
  certificate: Certificate,
  mode: 'limits' | 'off',
): Promise<Victim> {
  const file = fileURLToPath(new URL('flood-server.ts', import.meta.url));
  const args = [mode, certificate.keyFile, certificate.certFile];
  const child: ChildProcess = fork(file, args, {
    execArgv: ['--conditions=holdfast/source', '--import', 'tsx'],
  });
  undo(() => child.kill('SIGKILL'));
  const [ports] = (await once(child, 'message')) as [Ports];
  const ask = async () => {
    child.send('stats');
    const [stats] = await once(child, 'message');
    return stats as { rss: number; lag: number; connections: number };
  };
  return { ports, ask };
}

export interface FloodResult {
  readonly name: string;
  /** Attacking connections that were closed by the server in time. */
  readonly lost: number;
  readonly attackers: number;
  readonly lostAfterMs: number;
  readonly sentBytes: number;
  /** How much the server's memory grew at most. */
  readonly grownBytes: number;
  /** Calls of the well-behaved client meanwhile, and the slowest. */
  readonly served: number;
  readonly slowestMs: number;
}

interface Attacker {
  readonly socket: Socket;
  closedAtMs: number;
  sent: number;
}

async function attacker(undo: Undo, flood: Flood, ports: Ports): Promise<Attacker> {
  const port = flood.tls ? ports.tls : ports.plain;
  const socket = connectTcp({ host: '127.0.0.1', port, noDelay: true });
  undo(() => socket.destroy());
  const state: Attacker = { socket, closedAtMs: 0, sent: 0 };
  const lost = (): void => {
    state.closedAtMs ||= performance.now();
  };
  socket.on('error', lost);
  socket.on('close', lost);
  socket.on('end', lost);
  if (!flood.deaf) socket.on('data', () => {});
  await new Promise<void>((resolve) => {
    socket.once('connect', resolve);
    socket.once('close', resolve);
  });
  if (!flood.raw) socket.write(concatBytes(PREFACE, SETTINGS));
  return state;
}

/** One attacker's turns until it has lost its connection or the time is over. */
async function press(flood: Flood, state: Attacker, untilMs: number): Promise<void> {
  const { socket } = state;
  const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
  for (let turn = 0; state.closedAtMs === 0 && performance.now() < untilMs; turn++) {
    const bytes = flood.turn(turn);
    if (!bytes) {
      await pause(20);
      continue;
    }
    state.sent += bytes.length;
    if (!socket.write(bytes))
      await Promise.race([once(socket, 'drain').catch(() => {}), pause(100)]);
    else await pause(flood.everyMs ?? 0);
    // What a deaf attacker cannot even write any more has reached its end.
    while (
      socket.writableLength > 4 * 2 ** 20 &&
      state.closedAtMs === 0 &&
      performance.now() < untilMs
    ) {
      await pause(20);
    }
  }
}

/** A client that behaves, until told to stop. */
async function behave(session: ClientSession, stop: () => boolean) {
  let served = 0;
  let slowestMs = 0;
  while (!stop()) {
    const from = performance.now();
    await echoes(session, 1, 100);
    slowestMs = Math.max(slowestMs, performance.now() - from);
    served++;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return { served, slowestMs };
}

export async function runFlood(
  undo: Undo,
  flood: Flood,
  target: Victim,
  forMs: number,
): Promise<FloodResult> {
  const honest = await client(undo, { port: target.ports.plain });
  const before = await target.ask();
  const count = flood.connections ?? 1;
  const startedMs = performance.now();
  const attackers = await Promise.all(
    Array.from({ length: count }, () => attacker(undo, flood, target.ports)),
  );
  let over = false;
  let grownBytes = 0;
  const serving = behave(honest, () => over);
  const watching = (async () => {
    while (!over) {
      grownBytes = Math.max(grownBytes, (await target.ask()).rss - before.rss);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  })();
  await Promise.all(attackers.map((state) => press(flood, state, startedMs + forMs)));
  over = true;
  const { served, slowestMs } = await serving;
  await watching;
  const lost = attackers.filter((state) => state.closedAtMs > 0);
  for (const { socket } of attackers) socket.destroy();
  await honest.close();
  return {
    name: flood.name,
    lost: lost.length,
    attackers: count,
    lostAfterMs: Math.max(0, ...lost.map((state) => state.closedAtMs - startedMs)),
    sentBytes: attackers.reduce((sum, state) => sum + state.sent, 0),
    grownBytes,
    served,
    slowestMs,
  };
}
