/** A peer that asks for much and reads nothing: what is begun for it, and what is kept. */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  type IncomingHttpHeaders,
} from 'node:http2';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { eventually } from '../../testing/waiting.ts';
import { encodeFramed } from '../messages/codec.ts';
import { PutRequest, RangeRequest } from '../messages/gen/rpc.ts';
import { KVService } from '../messages/services.ts';
import { GrpcServer } from './grpc-server.ts';
import { type Http2Server, listen } from './server.ts';
import type { ServerSession } from './server-session.ts';

const MIB = 2 ** 20;
const LARGE = { kvs: [{ key: utf8('k'), value: new Uint8Array(MIB) }] };

let server: Http2Server;
let client: ClientHttp2Session;
let session: ServerSession;
/** Keys of puts, in the order in which they were begun. */
let begun: string[];

beforeEach(async () => {
  begun = [];
  const grpc = new GrpcServer({ unfinishedBytesMax: 5 * MIB });
  grpc.unary(KVService.Range, () => LARGE);
  grpc.unary(KVService.Put, async ({ key }) => {
    begun.push(text(key));
    return {};
  });
  server = await listen({
    port: 0,
    accept: (accepted) => {
      session = accepted;
      return grpc.accept(accepted);
    },
  });
  client = connectHttp2(`http://127.0.0.1:${server.port}`, { settings: { initialWindowSize: 0 } });
  client.on('error', () => {});
  // A little more than 8 MiB may wait.
  const range = encodeFramed(RangeRequest, { key: utf8('k') });
  for (let i = 0; i < 8; i++) await answered(ask('Range', range));
});

afterEach(async () => {
  client.destroy();
  await server.close();
});

function ask(name: string, framed: Uint8Array, headers: object = {}): ClientHttp2Stream {
  const stream = client.request({
    ':method': 'POST',
    ':path': `/etcdserverpb.KV/${name}`,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  stream.on('error', () => {});
  stream.resume();
  stream.end(framed);
  return stream;
}

function put(key: string, bytes = 0, headers = {}): ClientHttp2Stream {
  const request = { key: utf8(key), value: new Uint8Array(bytes) };
  return ask('Put', encodeFramed(PutRequest, request), headers);
}

/** The headers of its answer; they wait for no window. */
function answered(stream: ClientHttp2Stream): Promise<IncomingHttpHeaders> {
  return new Promise((resolve) => stream.once('response', resolve));
}

/** The server has seen everything sent before. */
function barrier(): Promise<void> {
  return new Promise((resolve) => client.ping(() => resolve()));
}

function read(): void {
  client.setLocalWindowSize(64 * MIB);
  client.settings({ initialWindowSize: 2 * MIB });
}

it('begins what waited in its order', async () => {
  const calls = ['a', 'b', 'c'].map((key) => put(key));
  await barrier();
  expect([session.crowded, session.waiting, begun]).toEqual([true, 3, []]);
  read();
  calls.push(put('d'));
  await Promise.all(calls.map(answered));
  expect(begun).toEqual(['a', 'b', 'c', 'd']);
  expect([session.crowded, session.waiting]).toEqual([false, 0]);
});

it('keeps nothing of calls that end while they wait', async () => {
  const late = Array.from({ length: 20 }, (_, i) =>
    put(`late ${i}`, 100, { 'grpc-timeout': '1m' }),
  );
  const ends = await Promise.all(late.map(answered));
  expect(new Set(ends.map((end) => end['grpc-status']))).toEqual(new Set(['4']));
  expect(session.waiting).toBe(0);
  const given = Array.from({ length: 20 }, (_, i) => put(`given up ${i}`));
  await barrier();
  expect(session.waiting).toBe(20);
  for (const stream of given) stream.close(8);
  await barrier();
  expect(session.waiting).toBe(0);
  read();
  await answered(put('last'));
  expect(begun).toEqual(['last']);
});

it('answers that nobody reads are refused before they cost the connection', async () => {
  const grpc = new GrpcServer();
  // All are begun before the first has its answer.
  grpc.unary(KVService.Range, async () => LARGE);
  const other = await listen({
    port: 0,
    limits: { queuedBytes: 4 * MIB },
    accept: (accepted) => grpc.accept(accepted),
  });
  client.destroy();
  client = connectHttp2(`http://127.0.0.1:${other.port}`, { settings: { initialWindowSize: 0 } });
  await once(client, 'connect');
  const range = encodeFramed(RangeRequest, { key: utf8('k') });
  const answers = Array.from({ length: 20 }, () => answered(ask('Range', range)));
  const statuses = (await Promise.all(answers)).map((answer) => answer['grpc-status']);
  expect(statuses.filter((status) => status === '8').length).toBeGreaterThan(10);
  expect(statuses.filter((status) => status === undefined).length).toBeGreaterThan(3);
  await barrier();
  client.destroy();
  await other.close();
});

it('counts what waits once, and refuses what is too much', async () => {
  const answers: Promise<IncomingHttpHeaders>[] = [];
  for (let i = 0; i < 4; i++) {
    answers.push(answered(put(String(i), MIB)));
    await eventually(() => session.waiting === i + 1, 'it waits');
  }
  const refused = await answered(put('too much', MIB));
  expect([refused['grpc-status'], session.waiting]).toEqual(['8', 4]);
  read();
  for (const answer of await Promise.all(answers)) expect(answer['grpc-status']).toBeUndefined();
  expect(begun).toEqual(['0', '1', '2', '3']);
});
