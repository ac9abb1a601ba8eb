/** What a client may cost: each limit at exactly the limit, one below, and one beyond. */
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { ManualClock } from '../base/clock.ts';
import type { Engine } from '../engine/contract.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { eventually } from '../testing/waiting.ts';
import { PREFACE } from '../wire/http2/frame.ts';
import { decode, encode, encodeFramed } from '../wire/messages/codec.ts';
import {
  CompareTarget,
  PutRequest,
  WatchRequest,
  WatchResponse,
} from '../wire/messages/gen/rpc.ts';
import { toJson } from '../wire/messages/json.ts';
import { HealthService, KVService, WatchService } from '../wire/messages/services.ts';
import { attachedStatus } from '../wire/messages/status.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';
import { type RunningServer, type ServeOptions, serve } from './serve.ts';

let engine: Engine;
const cleanups: (() => unknown)[] = [];

beforeEach(async () => {
  engine = await openMemoryEngine();
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await engine.close();
});

async function serving(options: Partial<ServeOptions> = {}): Promise<RunningServer> {
  const server = await serve({ engine, listen: { port: 0 }, ...options });
  cleanups.push(() => server.close());
  return server;
}

function clientOf({ port }: RunningServer): GrpcClient {
  const client = new GrpcClient({ port, deadlineMs: 30_000 });
  cleanups.push(() => client.destroy());
  return client;
}

function refusal(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => 'done',
    (error: unknown) => attachedStatus(error),
  );
}

/** A put whose message has exactly so many bytes. */
function putOf(bytes: number): { key: Uint8Array; value: Uint8Array } {
  const key = utf8('a');
  const value = new Uint8Array(bytes);
  const over = encode(PutRequest, { key, value }).length - bytes;
  const put = { key, value: value.subarray(0, bytes - over) };
  if (encode(PutRequest, put).length !== bytes) throw new Error(`no put has ${bytes} bytes`);
  return put;
}

describe('the size of a request', () => {
  test('a message of exactly the limit is taken, one more byte is refused', async () => {
    const messageBytesMax = 10_000;
    const client = clientOf(await serving({ messageBytesMax }));
    for (const bytes of [messageBytesMax - 1, messageBytesMax]) {
      expect(await refusal(client.unary(KVService.Put, putOf(bytes)))).toBe('done');
    }
    expect(await refusal(client.unary(KVService.Put, putOf(messageBytesMax + 1)))).toEqual({
      code: 8,
      message: `received message larger than max (${messageBytesMax + 1} vs. ${messageBytesMax})`,
    });
    // The connection goes on.
    expect(await refusal(client.unary(KVService.Put, putOf(100)))).toBe('done');
  });

  test('so is what the engine takes: keys and values of 1.5 MiB together', async () => {
    const client = clientOf(await serving());
    const most = engine.capabilities.requestBytesMax;
    expect(most).toBe(1.5 * 2 ** 20);
    const put = (bytes: number): Promise<unknown> =>
      refusal(client.unary(KVService.Put, { key: utf8('a'), value: new Uint8Array(bytes - 1) }));
    expect([await put(most - 1), await put(most)]).toEqual(['done', 'done']);
    expect(await put(most + 1)).toEqual({ code: 3, message: 'etcdserver: request is too large' });
  });

  test('a body of the JSON gateway may have twice as many bytes, and not one more', async () => {
    const messageBytesMax = 10_000;
    const { port } = await serving({ messageBytesMax });
    const put = toJson(PutRequest, { key: utf8('a'), value: utf8('v') });
    const post = (bytes: number): Promise<Response> =>
      fetch(`http://127.0.0.1:${port}/v3/kv/put`, { method: 'POST', body: put.padEnd(bytes) });
    for (const bytes of [2 * messageBytesMax - 1, 2 * messageBytesMax]) {
      expect((await post(bytes)).status).toBe(200);
    }
    const refused = await post(2 * messageBytesMax + 1);
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({ message: 'etcdserver: request is too large' });
  });
});

describe('a body that never ends', () => {
  test('has its answer over HTTP/1.1, and is not read for ever', async () => {
    const { port } = await serving({ messageBytesMax: 10_000 });
    const sent = request({
      host: '127.0.0.1',
      port,
      path: '/v3/kv/put',
      method: 'POST',
      agent: false,
    });
    cleanups.push(() => sent.destroy());
    sent.on('error', () => {});
    sent.write('x'.repeat(30_000));
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    expect(response.statusCode).toBe(400);
    response.resume();
    // It is still open from its side; the server closes it.
    await once(sent, 'close');
  });
});

describe('the size of a transaction', () => {
  test('as many operations as the engine takes, in each list, and not one more', async () => {
    const client = clientOf(await serving());
    const most = engine.capabilities.operationsMax;
    expect(most).toBe(128);
    const puts = (count: number): object[] =>
      Array.from({ length: count }, (_, i) => ({ requestPut: { key: utf8(`k${i}`) } }));
    const compares = (count: number): object[] =>
      Array.from({ length: count }, (_, i) => ({
        key: utf8(`c${i}`),
        target: CompareTarget.CREATE,
      }));
    const lists = [
      (count: number) => ({ success: puts(count) }),
      (count: number) => ({ failure: puts(count) }),
      (count: number) => ({ compare: compares(count) }),
    ];
    for (const list of lists) {
      for (const count of [most - 1, most]) {
        expect(await refusal(client.unary(KVService.Txn, list(count)))).toBe('done');
      }
      expect(await refusal(client.unary(KVService.Txn, list(most + 1)))).toEqual({
        code: 3,
        message: 'etcdserver: too many operations in txn request',
      });
    }
  });
});

/** Resolves to whether the server has closed it, once it has answered or closed. */
async function opened(port: number): Promise<{ socket: Socket; refused: boolean }> {
  const socket = connect(port, '127.0.0.1');
  cleanups.push(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'connect');
  const gone = once(socket, 'close').then(() => true);
  socket.write('GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n');
  const answered = once(socket, 'data').then(() => false);
  answered.catch(() => {});
  return { socket, refused: await Promise.race([gone, answered]) };
}

describe('connections and streams', () => {
  test.each([
    { what: 'in total', limit: { maxConnections: 3 } },
    { what: 'from one address', limit: { maxConnectionsPerAddress: 3 } },
  ])('so many connections $what, and another when one is gone', async ({ limit }) => {
    const server = await serving(limit);
    const three = [];
    for (let i = 0; i < 3; i++) three.push(await opened(server.port));
    expect(three.map(({ refused }) => refused)).toEqual([false, false, false]);
    expect((await opened(server.port)).refused).toBe(true);
    three[0]!.socket.destroy();
    await eventually(async () => !(await opened(server.port)).refused, 'room for another');
  });

  test('so many streams on one connection; the next has its turn when one ends', async () => {
    const server = await serving();
    const client = clientOf(server);
    const most = 4_096;
    let answered = 0;
    const open = (): { cancel(): void } => {
      const call = client.stream(HealthService.Watch, {
        listener: { onMessage: () => void answered++, onEnd: () => {} },
      });
      call.send({ service: '' });
      call.halfClose();
      return call;
    };
    const calls = Array.from({ length: most + 1 }, open);
    await eventually(() => answered >= most, 'as many answers as there may be streams');
    // A request on another connection comes back later than what this one could still answer.
    await clientOf(server).unary(KVService.Range, { key: utf8('a') });
    expect(answered).toBe(most);
    calls[0]!.cancel();
    await eventually(() => answered === most + 1, 'the last stream');
  });

  test('a client is told how many streams it may open', async () => {
    const server = await serving();
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    cleanups.push(() => session.destroy());
    const [settings] = (await once(session, 'remoteSettings')) as [
      { maxConcurrentStreams?: number },
    ];
    expect(settings.maxConcurrentStreams).toBe(4_096);
  });
});

describe('time', () => {
  test.each([
    { what: 'nothing', said: '' },
    { what: 'half a preface', said: Buffer.from(PREFACE.subarray(0, 10)) },
    { what: 'a preface and no settings', said: Buffer.from(PREFACE) },
  ])('a stranger who says $what is closed after ten seconds', async ({ said }) => {
    const clock = new ManualClock();
    const server = await serving({ clock });
    const socket = connect(server.port, '127.0.0.1');
    cleanups.push(() => socket.destroy());
    socket.on('error', () => {});
    socket.resume();
    let closed = false;
    const end = once(socket, 'close').then(() => {
      closed = true;
    });
    await once(socket, 'connect');
    if (said.length > 0) socket.write(said);
    await eventually(() => server.metrics.render().includes('holdfast_connections 1'), 'the guest');
    clock.advance(9_000);
    await clientOf(server).unary(KVService.Range, { key: utf8('a') });
    expect(closed).toBe(false);
    await eventually(() => {
      clock.advance(1_000);
      return closed;
    }, 'the stranger to be closed');
    await end;
  });

  test('a connection without a call is told to go after half an hour, one with a call is not', async () => {
    const clock = new ManualClock();
    const server = await serving({ clock });
    const [idle, busy] = [connectHttp2(server.url), connectHttp2(server.url)];
    cleanups.push(
      () => idle.destroy(),
      () => busy.destroy(),
    );
    for (const session of [idle, busy]) {
      await once(session, 'remoteSettings');
    }
    const stream = busy.request(grpcHeaders(WatchService.Watch.path));
    stream.write(encodeFramed(WatchRequest, { createRequest: { key: utf8('a') } }));
    await once(stream, 'data');
    let gone = false;
    idle.once('goaway', () => {
      gone = true;
    });
    let busyGone = false;
    busy.once('goaway', () => {
      busyGone = true;
    });
    // In steps below the keepalive, each with its answer to the ping.
    const pass = async (seconds: number): Promise<void> => {
      for (let passed = 0; passed < seconds; passed += 10) {
        clock.advance(10_000);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    };
    await pass(29 * 60);
    expect(gone).toBe(false);
    await pass(2 * 60);
    await eventually(() => gone, 'the idle connection to be told');
    expect(busyGone).toBe(false);
  });
});

function grpcHeaders(path: string): Record<string, string> {
  return { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
}

describe('watches whose reader stands still', () => {
  const WATCHERS = 20;
  const EVENTS = 400;
  const VALUE_BYTES = 20_000;
  /** What all of them would hold if nothing bounded it. */
  const UNBOUNDED_BYTES = WATCHERS * EVENTS * VALUE_BYTES;

  test('cost little memory, and have every event when they go on', async () => {
    const server = await serving();
    const streams: ClientHttp2Stream[] = [];
    for (let i = 0; i < WATCHERS; i++) {
      const session = connectHttp2(server.url);
      cleanups.push(() => session.destroy());
      const stream = session.request(grpcHeaders(WatchService.Watch.path));
      stream.write(encodeFramed(WatchRequest, { createRequest: { key: utf8('a') } }));
      await once(stream, 'response');
      streams.push(stream);
    }
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < EVENTS; i++) {
      const value = new Uint8Array(VALUE_BYTES).fill(i % 251);
      await engine.txn({ success: [{ type: 'put', key: utf8('a'), value }] });
    }
    // Others are served while they stand still.
    await clientOf(server).unary(KVService.Range, { key: utf8('a'), countOnly: true });
    const grown = process.memoryUsage().arrayBuffers - before;
    // About 38 MB, the store's own included, against 178 MB without the bound.
    expect(grown).toBeLessThan(UNBOUNDED_BYTES / 2);
    const told = await Promise.all(streams.map((stream) => eventsOf(stream, EVENTS)));
    expect(told).toEqual(Array.from({ length: WATCHERS }, () => EVENTS));
  });

  test('of the JSON gateway have every event when they go on, too', async () => {
    const { url } = await serving();
    const body = JSON.stringify({ create_request: { key: Buffer.from('a').toString('base64') } });
    const response = await fetch(`${url}/v3/watch`, { method: 'POST', body });
    const lines = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    expect((await lines.read()).value).toContain('"created":true');
    for (let i = 0; i < EVENTS; i++) {
      const value = new Uint8Array(VALUE_BYTES).fill(i % 251);
      await engine.txn({ success: [{ type: 'put', key: utf8('a'), value }] });
    }
    let told = '';
    while (told.split('\n').length <= EVENTS) told += (await lines.read()).value ?? '';
    const versions = told
      .trim()
      .split('\n')
      .map(
        (line) =>
          (JSON.parse(line) as { result: { events: { kv: { version: string } }[] } }).result,
      );
    const seen = versions.flatMap(({ events }) => events.map(({ kv }) => Number(kv.version)));
    expect(seen).toEqual(Array.from({ length: EVENTS }, (_, i) => i + 1));
    await lines.cancel();
  });
});

/** Reads answers until so many events have come; each must be the next. */
async function eventsOf(stream: ClientHttp2Stream, count: number): Promise<number> {
  let held = Buffer.alloc(0);
  let told = 0;
  let revision = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    held = Buffer.concat([held, chunk]);
    while (held.length >= 5 && held.length >= 5 + held.readUInt32BE(1)) {
      const length = held.readUInt32BE(1);
      const { events } = decode(WatchResponse, held.subarray(5, 5 + length));
      held = held.subarray(5 + length);
      for (const { kv } of events) {
        if (revision !== 0 && kv!.modRevision !== revision + 1) throw new Error('a gap');
        revision = kv!.modRevision;
        told++;
      }
    }
    if (told >= count) break;
  }
  return told;
}
