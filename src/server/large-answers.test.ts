/** Much to say to one connection at once: an honest client gets all of it, a slow one waits. */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
} from 'node:http2';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import type { Engine } from '../engine/contract.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { prefixRange } from '../model/range.ts';
import { encodeFramed } from '../wire/messages/codec.ts';
import { PutRequest, RangeRequest, WatchRequest } from '../wire/messages/gen/rpc.ts';
import { KVService, WatchService } from '../wire/messages/services.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';
import { type RunningServer, serve } from './serve.ts';

const MIB = 2 ** 20;

let engine: Engine;
let server: RunningServer;
const cleanups: (() => unknown)[] = [];

beforeEach(async () => {
  engine = await openMemoryEngine();
  server = await serve({ engine, listen: { port: 0 } });
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await server.close();
  await engine.close();
});

function clientOf(messageBytesMax: number): GrpcClient {
  const client = new GrpcClient({ port: server.port, deadlineMs: 60_000, messageBytesMax });
  cleanups.push(() => client.destroy());
  return client;
}

async function fill(client: GrpcClient, keys: number): Promise<void> {
  const put = (i: number): Promise<unknown> =>
    client.unary(KVService.Put, { key: utf8(`k/${i}`), value: new Uint8Array(MIB) });
  await Promise.all(Array.from({ length: keys }, (_, i) => put(i)));
}

const { key, end: rangeEnd } = prefixRange(utf8('k/'));

function call(session: ClientHttp2Session, method: string): ClientHttp2Stream {
  return session.request({
    ':method': 'POST',
    ':path': `/etcdserverpb.${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
}

/** The server has seen everything sent before. */
function barrier(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve) => session.ping(() => resolve()));
}

test('many large requests and answers at once on one connection come whole', async () => {
  const client = clientOf(16 * MIB);
  await fill(client, 12);
  const answers = Array.from({ length: 8 }, () => client.unary(KVService.Range, { key, rangeEnd }));
  for (const { kvs } of await Promise.all(answers)) {
    expect(kvs.map(({ value }) => value.length)).toEqual(Array(12).fill(MIB));
  }
});

test('a hundred large puts whose frames come by turns are all taken', async () => {
  const session = connectHttp2(`http://127.0.0.1:${server.port}`);
  cleanups.push(() => session.destroy());
  const framed = encodeFramed(PutRequest, { key: utf8('k/0'), value: new Uint8Array(1.4 * MIB) });
  const statuses = Array.from({ length: 100 }, async () => {
    const stream = call(session, 'KV/Put');
    stream.resume();
    const status = new Promise((resolve) => {
      stream.once('response', (headers) => resolve(headers['grpc-status'] ?? 'later'));
    });
    stream.end(framed);
    return await status;
  });
  // A refusal has its status in the headers.
  expect(new Set(await Promise.all(statuses))).toEqual(new Set(['later']));
});

describe('a watch over much history', () => {
  async function told(fragment: boolean): Promise<{ largest: number; revisions: number[] }> {
    const client = clientOf(64 * MIB);
    await fill(client, 40);
    const watch = client.stream(WatchService.Watch);
    watch.send({ createRequest: { key, rangeEnd, startRevision: 1, fragment } });
    // Another one on the stream is answered while the first has much to read.
    watch.send({ createRequest: { key: utf8('other') } });
    const revisions: number[] = [];
    let largest = 0;
    for await (const { events } of watch.responses()) {
      revisions.push(...events.map(({ kv }) => kv!.modRevision));
      const bytes = events.reduce((sum, { kv }) => sum + kv!.value.length, 0);
      largest = Math.max(largest, bytes);
      if (revisions.length === 40) break;
    }
    return { largest, revisions };
  }

  test('is told all of it, in messages of bounded size', async () => {
    const { largest, revisions } = await told(false);
    expect(revisions).toEqual([...revisions].sort((a, b) => a - b));
    expect(new Set(revisions).size).toBe(40);
    expect(largest).toBeLessThanOrEqual(17 * MIB);
  });

  test('leaves the others on its stream alone, though the client reads slowly', async () => {
    await fill(clientOf(16 * MIB), 12);
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    cleanups.push(() => session.destroy());
    const stream = call(session, 'Watch/Watch');
    const ask = async (createRequest: object): Promise<void> => {
      stream.write(encodeFramed(WatchRequest, { createRequest }));
      await barrier(session);
    };
    await ask({ key: utf8('live') });
    // More than the window, so that a part of it waits in front of the history.
    await clientOf(MIB).unary(KVService.Put, { key: utf8('live'), value: new Uint8Array(100_000) });
    await barrier(session);
    await ask({ key, rangeEnd, startRevision: 1 });
    await ask({ key: utf8('third') });
    let bytes = 0;
    for await (const chunk of stream) {
      bytes += (chunk as Buffer).length;
      if (bytes > 12 * MIB + 100_000) break;
    }
    expect(session.destroyed).toBe(false);
  });

  test('and others like it take turns when the client begins to read', async () => {
    await fill(clientOf(16 * MIB), 12);
    const session = connectHttp2(`http://127.0.0.1:${server.port}`, {
      settings: { initialWindowSize: 0 },
    });
    cleanups.push(() => session.destroy());
    await once(session, 'connect');
    const created = encodeFramed(WatchRequest, {
      createRequest: { key, rangeEnd, startRevision: 1 },
    });
    const told = Array.from({ length: 4 }, () => {
      const stream = call(session, 'Watch/Watch');
      stream.write(created);
      let bytes = 0;
      return new Promise<void>((resolve) => {
        stream.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > 12 * MIB) resolve();
        });
      });
    });
    await barrier(session);
    session.setLocalWindowSize(64 * MIB);
    session.settings({ initialWindowSize: 2 * MIB });
    await Promise.all(told);
  });

  test('is told all of it in fragments', async () => {
    const { largest, revisions } = await told(true);
    expect(new Set(revisions).size).toBe(40);
    expect(largest).toBeLessThanOrEqual(2 * MIB);
  });
});

describe('for a client that reads nothing', () => {
  interface Asked {
    readonly stream: ClientHttp2Stream;
    /** Its answer has begun: headers wait for no window. */
    readonly headed: Promise<void>;
    /** The bytes of its answer. */
    readonly whole: Promise<number>;
  }

  let begun = 0;

  function ask(session: ClientHttp2Session): Asked {
    const stream = call(session, 'KV/Range');
    stream.end(encodeFramed(RangeRequest, { key: utf8('k/0') }));
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    stream.on('error', () => {});
    const headed = new Promise<void>((resolve) => stream.once('response', () => resolve()));
    void headed.then(() => begun++);
    const whole = new Promise<number>((resolve) => stream.once('close', () => resolve(bytes)));
    return { stream, headed, whole };
  }

  test('no more is begun until it reads, and what it gave up meanwhile never', async () => {
    await fill(clientOf(16 * MIB), 1);
    const session = connectHttp2(`http://127.0.0.1:${server.port}`, {
      settings: { initialWindowSize: 0 },
    });
    cleanups.push(() => session.destroy());
    const first: Asked[] = [];
    // A little more than 8 MiB may wait.
    for (let i = 0; i < 8; i++) {
      first.push(ask(session));
      await first[i]!.headed;
    }
    const later = Array.from({ length: 10 }, () => ask(session));
    await barrier(session);
    expect(begun).toBe(8);
    later.pop()!.stream.close(8);
    await barrier(session);
    session.setLocalWindowSize(64 * MIB);
    session.settings({ initialWindowSize: 2 * MIB });
    const sizes = await Promise.all([...first, ...later].map(({ whole }) => whole));
    expect(sizes.every((bytes) => bytes > MIB)).toBe(true);
    expect(begun).toBe(17);
  });
});
