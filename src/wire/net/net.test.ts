import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { get as httpsGet } from 'node:https';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { locate } from '../../../scripts/packages.mjs';
import {
  ANSWER,
  type Certificate,
  call,
  certificate,
  client,
  echoes,
  echoServer,
  pattern,
} from '../../../test/http2/harness.ts';
import { REQUEST } from '../../../test/http2/script.ts';
import { type Bytes, concatBytes, utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import { deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import { encodeFrame, PREFACE, rawFrame } from '../http2/frame.ts';
import type { Header } from '../http2/headers.ts';
import { Gate } from './gate.ts';
import { protocolOf } from './peek.ts';
import { DEFAULT_TIMES } from './server-session.ts';

const steps: (() => unknown)[] = [];
const undo = (step: () => unknown): void => {
  steps.push(step);
};
afterEach(async () => {
  for (const step of steps.splice(0).reverse()) await step();
});

/** Waits for the network, which has no clock of ours. */
async function until(what: () => boolean): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (what()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error(`it never came to be: ${what}`);
}

interface Raw {
  readonly socket: Socket;
  readonly closed: () => boolean;
}

async function rawClient(port: number, ...bytes: readonly Bytes[]): Promise<Raw> {
  const socket = connectTcp({ host: '127.0.0.1', port });
  undo(() => socket.destroy());
  let closed = false;
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
  });
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  socket.on('data', () => {});
  if (bytes.length > 0) socket.write(concatBytes(...bytes));
  return { socket, closed: () => closed };
}

const SETTINGS = encodeFrame({ type: 'settings', ack: false, entries: [] });

/** Sends data on no stream, hears that it may go, and stays. */
async function ruleBreaker(port: number): Promise<{ readonly socket: Socket }> {
  const socket = connectTcp({ host: '127.0.0.1', port, allowHalfOpen: true });
  undo(() => socket.destroy());
  socket.on('error', () => {});
  socket.write(concatBytes(PREFACE, SETTINGS, rawFrame(0, 0, 0, new Uint8Array(1))));
  socket.resume();
  await new Promise((resolve) => socket.once('end', resolve));
  return { socket };
}

/** A peer that accepts and then does what it is told. */
async function rawServer(serve: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  undo(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as { port: number }).port;
}

describe('the server driver', () => {
  it.each([
    ['says nothing', []],
    ['sends half a preface', [PREFACE.subarray(0, 10)]],
    ['sends the preface and no SETTINGS', [PREFACE]],
  ])('closes a connection that %s in time, not before', async (_what, bytes) => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock });
    const raw = await rawClient(server.port, ...bytes);
    await until(() => server.connections === 1);
    clock.advance(DEFAULT_TIMES.handshakeTimeoutMs - 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(raw.closed()).toBe(false);
    clock.advance(DEFAULT_TIMES.sweepMs + 1_000);
    await until(raw.closed);
    await until(() => server.connections === 0);
  });

  it('closes a connection that begins a frame and does not finish it', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock });
    const raw = await rawClient(server.port, PREFACE, SETTINGS, rawFrame(1, 0, 1, pattern(50)));
    const [session] = await sessionsOf(server);
    await until(() => session!.connection.midFrame);
    clock.advance(DEFAULT_TIMES.frameTimeoutMs - 1_000);
    expect(session!.connection.closed).toBe(false);
    clock.advance(5_000);
    await until(raw.closed);
    expect(session!.connection.closed).toBe(true);
  });

  it('closes an idle connection, and not one with an open stream', async () => {
    const clock = new ManualClock();
    const times = { keepaliveMs: Number.POSITIVE_INFINITY, maxAgeGraceMs: 100 };
    const { server } = await echoServer(undo, { clock, ...times });
    const idle = await client(undo, { port: server.port, clock });
    const busy = await client(undo, { port: server.port, clock, keepaliveMs: 1e9 });
    await echoes(idle, 1, 1);
    const open = openStream(busy);
    await open.headers;
    clock.advance(DEFAULT_TIMES.idleTimeoutMs + 5_000);
    await until(() => idle.exhausted);
    await idle.closed;
    expect(busy.exhausted).toBe(false);
    open.finish();
    await open.trailers;
  });

  it('does not take a connection for idle whose calls are answered within their turn', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock, idleTimeoutMs: 10_000 });
    const session = await client(undo, { port: server.port, clock, keepaliveMs: 1e9 });
    for (let i = 0; i < 10; i++) {
      await echoes(session, 1, 10);
      clock.advance(5_000);
    }
    expect(session.exhausted).toBe(false);
    clock.advance(10_000);
    await until(() => session.exhausted);
  });

  it('pings a quiet peer, keeps one that answers, and drops one that does not', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock });
    const alive = await client(undo, { port: server.port, clock, keepaliveMs: 1e9 });
    await rawClient(server.port, PREFACE, SETTINGS);
    await until(() => server.connections === 2);
    await sessionsOf(server, 2);
    for (let i = 0; i < 30; i++) {
      clock.advance(5_000);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await until(() => server.connections === 1);
    await echoes(alive, 1, 10);
  });

  it('drains a connection at its greatest age and lets its stream finish', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock, maxAgeMs: 60_000 });
    const session = await client(undo, { port: server.port, clock, keepaliveMs: 1e9 });
    const open = openStream(session);
    await open.headers;
    clock.advance(70_000);
    await until(() => session.exhausted);
    open.finish();
    await open.trailers;
    await session.closed;
  });

  it('drops a peer that does not read, and keeps only a bounded amount for it', async () => {
    const clock = new ManualClock();
    let buffered = 0;
    const { server } = await echoServer(undo, {
      clock,
      keepaliveMs: 1e9,
      accept: () => ({
        onHeaders: (stream) => stream.sendHeaders(ANSWER),
        onData: (stream, bytes) => stream.sendData(bytes),
        onTrailers: () => {},
        onReset: () => {},
      }),
    });
    const raw = await rawClient(
      server.port,
      PREFACE,
      encodeFrame({ type: 'settings', ack: false, entries: [[4, 0x7fffffff]] }),
      encodeFrame({ type: 'window-update', stream: 0, increment: 0x7fff0000 - 65_535 }),
    );
    raw.socket.pause();
    const block = Uint8Array.of(0x83, 0x86, 0x84);
    raw.socket.write(rawFrame(1, 0x4, 1, block));
    const [session] = await sessionsOf(server);
    let more = true;
    raw.socket.on('drain', () => {
      more = true;
    });
    for (let i = 0; i < 3_000 && !raw.closed(); i++) {
      if (more) more = raw.socket.write(rawFrame(0, 0, 1, new Uint8Array(16_384)));
      buffered = Math.max(buffered, session!.connection.buffered);
      if (i % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect(buffered).toBeGreaterThan(2 ** 20);
    expect(buffered).toBeLessThan(2 * 2 ** 20);
    expect(server.connections).toBe(1);
    clock.advance(DEFAULT_TIMES.writeTimeoutMs + 5_000);
    await until(() => server.connections === 0);
  });

  it.each([
    ['in total', { maxConnections: 3 }],
    ['per address', { maxConnectionsPerAddress: 3 }],
  ])('takes so many connections %s and closes one more at once', async (_what, options) => {
    const { server } = await echoServer(undo, options);
    const three = [];
    for (let i = 0; i < 3; i++) three.push(await client(undo, { port: server.port }));
    const fourth = await rawClient(server.port, PREFACE, SETTINGS);
    await until(fourth.closed);
    await echoes(three[0]!, 5, 10);
    await three[1]!.close();
    await until(() => server.connections === 2);
    await echoes(await client(undo, { port: server.port }), 1, 10);
  });

  it.each(['end', 'destroy'] as const)(
    'sees a peer go that broke the rules, by its %s, and waits for no clock',
    async (way) => {
      const { server } = await echoServer(undo, { clock: new ManualClock() });
      const { socket } = await ruleBreaker(server.port);
      expect(server.connections).toBe(1);
      socket[way]();
      await until(() => server.connections === 0);
    },
  );

  it('does not listen for long to a peer that broke the rules', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock });
    const [{ socket }, [session]] = await Promise.all([
      ruleBreaker(server.port),
      sessionsOf(server),
    ]);
    socket.write(new Uint8Array(64 * 2 ** 20));
    await until(() => session!.socket.isPaused());
    expect(session!.socket.bytesRead).toBeLessThan(2 ** 20);
    clock.advance(10_000);
    await until(() => server.connections === 0);
  });

  it('serves on a unix socket', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-net-'));
    undo(() => rmSync(directory, { recursive: true, force: true }));
    const path = join(directory, 'socket');
    await echoServer(undo, { path });
    await echoes(await client(undo, { path }), 10, 100);
  });

  it('loses only the connection whose handler throws, again and again, and says so', async () => {
    const faults: unknown[] = [];
    const fault = (): never => {
      throw new Error('a bug');
    };
    const { server } = await echoServer(undo, {
      accept: () => ({ onHeaders: fault, onData: fault, onTrailers: fault, onReset: fault }),
      onHandlerError: (error) => faults.push(error),
    });
    const session = await client(undo, { port: server.port });
    const error = await call(session, pattern(1)).catch((caught: unknown) => caught);
    expect(HoldfastError.is(error, 'unavailable')).toBe(true);
    // In `onHeaders`, and in `onReset` when the connection is given up for it.
    expect(faults).toHaveLength(2);
    await client(undo, { port: server.port });
  });

  it('settles every drain, however often and with whatever close it was asked for', async () => {
    const { server } = await echoServer(undo);
    await client(undo, { port: server.port });
    await Promise.all([server.drain(1_000), server.drain(1_000), server.close()]);
    await server.close();
  });

  it('drops what is left when the time to drain is over', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock });
    const session = await client(undo, { port: server.port });
    const open = openStream(session);
    await open.headers;
    const drained = server.drain(5_000);
    await until(() => session.exhausted);
    clock.advance(6_500);
    await expect(open.trailers).rejects.toMatchObject({ outcome: 'unknown' });
    await drained;
  });
});

async function sessionsOf(server: { sessions: Iterable<unknown> }, count = 1) {
  await until(() => [...server.sessions].length === count);
  return [...server.sessions] as import('./server-session.ts').ServerSession[];
}

/** A call that stays open until `finish`. */
function openStream(session: Awaited<ReturnType<typeof client>>) {
  const headers = deferred<void>();
  const trailers = deferred<void>();
  trailers.promise.catch(() => {});
  const request = session.request(
    [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', '/'],
    ],
    {
      onHeaders: () => headers.resolve(),
      onData: () => {},
      onTrailers: () => trailers.resolve(),
      onFailed: (error) => trailers.reject(error),
    },
  );
  return {
    headers: headers.promise,
    trailers: trailers.promise,
    finish: () => request.sendData(utf8('end'), true),
  };
}

describe.skipIf(!locate('openssl'))('with TLS (openssl makes the certificate)', () => {
  let scratch: string;
  let made: Certificate;
  beforeAll(() => {
    scratch = mkdtempSync(join(tmpdir(), 'holdfast-net-'));
    made = certificate(scratch);
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  it('a handshake that stalls is closed in time', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock, tls: made });
    const raw = await rawClient(server.port, Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00));
    await until(() => server.connections === 1);
    clock.advance(DEFAULT_TIMES.handshakeTimeoutMs - 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(raw.closed()).toBe(false);
    clock.advance(2_000);
    await until(raw.closed);
  });

  it('a connection that has finished its handshake is not taken for a stranger later', async () => {
    const clock = new ManualClock();
    const { server } = await echoServer(undo, { clock, tls: made });
    const tls = { ca: made.cert, servername: 'localhost' };
    const session = await client(undo, { port: server.port, tls, keepaliveMs: 1e9 });
    clock.advance(3 * DEFAULT_TIMES.handshakeTimeoutMs);
    await echoes(session, 3, 10);
  });

  it('HTTP/1.1 goes to the server for it, on the same port', async () => {
    const http1 = createHttpServer((request, response) => response.end(`hello ${request.url}`));
    const { server } = await echoServer(undo, { tls: made, http1 });
    const body = await new Promise<string>((resolve, reject) => {
      const options = { host: '127.0.0.1', port: server.port, path: '/health', agent: false };
      httpsGet({ ...options, ca: made.cert, servername: 'localhost' }, (response) => {
        response.setEncoding('utf8').on('data', resolve);
      }).on('error', reject);
    });
    expect(body).toBe('hello /health');
  });

  it('a client refuses a certificate it does not know, and a wrong name', async () => {
    const { server } = await echoServer(undo, { tls: made });
    const wrong = { port: server.port, tls: { servername: 'localhost' } };
    await expect(client(undo, wrong)).rejects.toMatchObject({ code: 'unavailable' });
    const name = { port: server.port, tls: { ca: made.cert, servername: 'elsewhere' } };
    await expect(client(undo, name)).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('new handshakes use the certificates set last', async () => {
    const { server } = await echoServer(undo, { tls: made });
    const before = await client(undo, {
      port: server.port,
      tls: { ca: made.cert, servername: 'localhost' },
    });
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-net-'));
    undo(() => rmSync(directory, { recursive: true, force: true }));
    const next = certificate(directory);
    server.setSecureContext({ key: next.key, cert: next.cert });
    const tls = { ca: next.cert, servername: 'localhost' };
    await echoes(await client(undo, { port: server.port, tls }), 3, 10);
    await echoes(before, 3, 10);
  });
});

describe('the client driver', () => {
  it('rejects as `unavailable` when nothing listens', async () => {
    const port = await rawServer(() => {});
    for (const step of steps.splice(0)) await step();
    await expect(client(undo, { port })).rejects.toMatchObject({
      code: 'unavailable',
      outcome: 'rejected',
    });
  });

  it('gives up connecting to a peer that says nothing, in time', async () => {
    const clock = new ManualClock();
    const port = await rawServer(() => {});
    const connecting = client(undo, { port, clock, connectTimeoutMs: 3_000 });
    connecting.catch(() => {});
    await until(() => clock.pending > 0);
    clock.advance(3_001);
    await expect(connecting).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('gives up connecting when aborted', async () => {
    const port = await rawServer(() => {});
    const abort = new AbortController();
    const connecting = client(undo, { port, signal: abort.signal });
    abort.abort();
    await expect(connecting).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('notices a peer that stalls within keepalive and its timeout; the calls end as unknown', async () => {
    const clock = new ManualClock();
    const port = await rawServer((socket) => {
      socket.write(SETTINGS);
      socket.on('data', () => {});
    });
    const session = await client(undo, {
      port,
      clock,
      keepaliveMs: 10_000,
      keepaliveTimeoutMs: 5_000,
    });
    const pending = call(session, pattern(10)).catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 20));
    clock.advance(20_001);
    expect(await pending).toMatchObject({ code: 'unavailable', outcome: 'unknown' });
    expect(await session.closed).toMatchObject({ code: 'unavailable' });
  });

  it('keeps to the streams the peer allows; the others wait and are all answered', async () => {
    const { server, echo } = await echoServer(undo, { limits: { concurrentStreams: 3 } });
    const session = await client(undo, { port: server.port });
    const all = echoes(session, 200, 100);
    expect(session.active).toBe(3);
    expect(session.queued).toBe(197);
    await all;
    expect(echo.handled).toBe(200);
  });

  it('fails a call in line whose headers are larger than the peer accepts; the next has its turn', async () => {
    const limits = { concurrentStreams: 1, headerListBytes: 300 };
    const { server } = await echoServer(undo, { limits });
    const session = await client(undo, { port: server.port });
    const large: Header[] = [...REQUEST, ['x', 'y'.repeat(200)]];
    const [first, second, third] = await Promise.allSettled([
      call(session, pattern(1), REQUEST),
      call(session, pattern(1), large),
      call(session, pattern(1), REQUEST),
    ]);
    expect([first.status, second.status, third.status]).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
  });

  it('refuses a call beyond the longest line, and drops a cancelled one from it', async () => {
    const { server } = await echoServer(undo, { limits: { concurrentStreams: 1 } });
    const session = await client(undo, { port: server.port, maxQueued: 1 });
    const first = openStream(session);
    const second = openStream(session);
    expect(() => openStream(session)).toThrow(/wait/);
    await first.headers;
    first.finish();
    await first.trailers;
    await second.headers;
  });

  it('says `rejected` for what was never sent and `unknown` for what was, when the peer dies', async () => {
    let peer: Socket | undefined;
    const port = await rawServer((socket) => {
      peer = socket;
      socket.write(encodeFrame({ type: 'settings', ack: false, entries: [[3, 1]] }));
      socket.on('data', () => {});
    });
    const session = await client(undo, { port });
    const sent = call(session, pattern(10)).catch((error: unknown) => error);
    const waiting = call(session, pattern(10)).catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 20));
    peer!.destroy();
    expect(await sent).toMatchObject({ code: 'unavailable', outcome: 'unknown' });
    expect(await waiting).toMatchObject({ code: 'unavailable', outcome: 'rejected' });
    expect(() => session.request([], {} as never)).toThrow(HoldfastError);
  });

  it('refuses a call whose headers are larger than the peer accepts', async () => {
    const { server } = await echoServer(undo, { limits: { headerListBytes: 300 } });
    const session = await client(undo, { port: server.port });
    await expect(
      Promise.resolve().then(() => call(session, pattern(1), [...REQUEST, ['x', 'y'.repeat(200)]])),
    ).rejects.toMatchObject({ code: 'request-too-large', outcome: 'rejected' });
    await call(session, pattern(1), REQUEST);
  });

  it('ends every call when the connection is lost, also when one of their handlers throws', async () => {
    const faults: unknown[] = [];
    const port = await rawServer((socket) => {
      socket.write(SETTINGS);
      socket.on('data', (chunk) => chunk.length > 60 && setTimeout(() => socket.destroy(), 30));
    });
    const session = await client(undo, { port, onHandlerError: (error) => faults.push(error) });
    const silent = { onHeaders: () => {}, onData: () => {}, onTrailers: () => {} };
    session.request(REQUEST, {
      ...silent,
      onFailed: () => {
        throw new Error('a bug');
      },
    });
    await expect(call(session, pattern(60))).rejects.toMatchObject({ outcome: 'unknown' });
    await session.closed;
    expect(faults).toHaveLength(1);
  });

  it('says `rejected` for a refused stream', async () => {
    const port = await rawServer((socket) => {
      socket.write(SETTINGS);
      socket.write(encodeFrame({ type: 'settings', ack: true, entries: [] }));
      let seen = 0;
      socket.on('data', (chunk) => {
        seen += chunk.length;
        if (seen > 100) socket.write(encodeFrame({ type: 'rst-stream', stream: 1, code: 7 }));
        seen = seen > 100 ? Number.NEGATIVE_INFINITY : seen;
      });
    });
    const session = await client(undo, { port });
    await expect(call(session, pattern(100))).rejects.toMatchObject({
      code: 'unavailable',
      outcome: 'rejected',
    });
  });

  it('closes when the calls under way have ended, and takes no more meanwhile', async () => {
    const { server } = await echoServer(undo);
    const session = await client(undo, { port: server.port });
    const open = openStream(session);
    const closing = session.close();
    expect(() => openStream(session)).toThrow(/closed/);
    await open.headers;
    open.finish();
    await open.trailers;
    await closing;
    expect(await session.closed).toBeUndefined();
  });

  it('loses a peer that breaks the rules, and says which', async () => {
    const port = await rawServer((socket) => {
      socket.write(SETTINGS);
      socket.on('data', () => socket.write(rawFrame(0, 0, 0, utf8('x'))));
    });
    const session = await client(undo, { port });
    await expect(call(session, pattern(1))).rejects.toMatchObject({ outcome: 'unknown' });
    expect(await session.closed).toMatchObject({ message: /PROTOCOL_ERROR: DATA on stream 0/ });
  });
});

describe('small parts', () => {
  it('the gate counts per address and in total, and forgets who left', () => {
    const gate = new Gate(3, 2);
    const leave = gate.enter('a')!;
    expect(gate.enter('a')).toBeDefined();
    expect(gate.enter('a')).toBeUndefined();
    expect(gate.enter('b')).toBeDefined();
    expect(gate.enter('c')).toBeUndefined();
    leave();
    expect(gate.enter('c')).toBeDefined();
    expect(gate.open).toBe(3);
  });

  it('the peek tells HTTP/2 from the rest as soon as a byte differs', () => {
    expect(protocolOf(utf8('PRI * HTTP/2.0'))).toBeUndefined();
    expect(protocolOf(PREFACE)).toBe('h2');
    expect(protocolOf(utf8('PUT / HTTP/1.1'))).toBe('other');
    expect(protocolOf(utf8('PRI * HTTP/2.1'))).toBe('other');
  });
});
