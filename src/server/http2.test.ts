/** Plain HTTP/2, by the client of `node:http2`: what HTTP/1.1 is answered, and nothing less. */
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { PASSWORDS, Stage } from '../../test/security/stage.ts';
import { text, utf8 } from '../base/bytes.ts';
import { ManualClock } from '../base/clock.ts';
import { eventually, within } from '../testing/waiting.ts';

let stage: Stage;
let session: ClientHttp2Session;
const sessions: ClientHttp2Session[] = [];

beforeEach(async () => {
  stage = await Stage.open({ messageBytesMax: 100_000 });
  session = opened();
});

afterEach(async () => {
  for (const one of sessions.splice(0)) one.destroy();
  await stage[Symbol.asyncDispose]();
});

function opened(url = stage.server.url): ClientHttp2Session {
  const one = connect(url);
  one.on('error', () => {});
  sessions.push(one);
  return one;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  stream.setEncoding('utf8');
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  let body = '';
  for await (const part of stream as AsyncIterable<string>) body += part;
  return { status: Number(headers[':status']), headers, body };
}

function ask(
  path: string,
  {
    method = 'GET',
    body,
    ...fields
  }: { method?: string; body?: string; [name: string]: unknown } = {},
): Promise<Answer> {
  const stream = session.request({
    ':path': path,
    ':method': method,
    ...(fields as Record<string, string>),
  });
  stream.end(body);
  return answerOf(stream);
}

const post = (path: string, body: unknown, fields: object = {}): Promise<Answer> =>
  ask(path, { method: 'POST', body: JSON.stringify(body), ...fields });

const base64 = (value: string): string => Buffer.from(value).toString('base64');

describe('plain HTTP/2', () => {
  test('puts and reads by JSON, and sees what HTTP/1.1 sees', async () => {
    const put = await post('/v3/kv/put', { key: base64('k'), value: base64('v') });
    expect([put.status, put.headers['content-type']]).toEqual([200, 'application/json']);
    const range = await post('/v3/kv/range', { key: base64('k') });
    expect(JSON.parse(range.body)).toMatchObject({ kvs: [{ value: base64('v') }], count: '1' });
    const other = await stage.json('/v3/kv/range', JSON.stringify({ key: base64('k') }));
    expect(await other.json()).toEqual(JSON.parse(range.body));
  });

  test.each([
    '/health',
    '/healthz',
    '/livez',
    '/readyz',
    '/version',
    '/metrics',
    '/nothing',
    '/v3/kv/put',
  ])('GET %s is answered as over HTTP/1.1', async (path) => {
    const answer = await ask(path);
    const other = await fetch(`${stage.server.url}${path}`);
    const [type, allow] = [other.headers.get('content-type'), other.headers.get('allow')];
    expect([answer.status, answer.headers['content-type'], answer.headers.allow ?? null]).toEqual([
      other.status,
      type,
      allow,
    ]);
    if (path !== '/metrics') expect(answer.body).toBe(await other.text());
    else expect(answer.body).toContain('holdfast_connections');
  });

  test('HEAD has no body, and what is no request of ours is refused', async () => {
    const head = await ask('/version', { method: 'HEAD' });
    expect([head.status, head.body]).toEqual([200, '']);
    expect((await ask('/health', { method: 'DELETE' })).status).toBe(405);
    expect((await ask('/health', { ':authority': 'evil.example' })).status).toBe(403);
    expect((await ask('/health', { origin: 'http://evil.example' })).status).toBe(403);
    expect((await post('/v3/kv/put', { key: 7 })).status).toBe(400);
    const grpc = await post('/etcdserverpb.KV/Put', {}, { 'content-type': 'text/plain' });
    expect(grpc.status).toBe(415);
  });

  test('a watch tells its events in one stream, until the caller ends it', async () => {
    const stream = session.request({ ':path': '/v3/watch', ':method': 'POST' });
    stream.write(JSON.stringify({ create_request: { key: base64('w') } }));
    let told = '';
    stream.setEncoding('utf8').on('data', (part: string) => {
      told += part;
    });
    await eventually(() => told.includes('"created":true'), 'the watch');
    for (const value of ['1', '2'])
      await post('/v3/kv/put', { key: base64('w'), value: base64(value) });
    await eventually(() => told.trim().split('\n').length >= 3, 'two events');
    stream.close(constants.NGHTTP2_CANCEL);
    await once(stream, 'close');
    expect((await ask('/livez')).status).toBe(200);
  });

  test('asks for a token like any other door, and takes it', async () => {
    await stage.guarded();
    const range = { key: base64('a') };
    expect(JSON.parse((await post('/v3/kv/range', range)).body)).toMatchObject({
      message: 'etcdserver: user name is empty',
    });
    const login = await post('/v3/auth/authenticate', { name: 'ann', password: PASSWORDS.ann });
    const { token } = JSON.parse(login.body) as { token: string };
    expect((await post('/v3/kv/range', range, { authorization: token })).status).toBe(200);
    const beyond = await post('/v3/kv/range', { key: base64('z') }, { authorization: token });
    expect(beyond.status).toBe(403);
  });

  test('a body of exactly the limit is taken, one byte more is refused, and the connection lives', async () => {
    const put = JSON.stringify({ key: base64('k'), value: base64('v') });
    const sized = (bytes: number): Promise<Answer> =>
      ask('/v3/kv/put', { method: 'POST', body: put.padEnd(bytes) });
    expect((await sized(200_000)).status).toBe(200);
    expect((await sized(200_001)).status).toBe(400);
    expect((await ask('/livez')).status).toBe(200);
  });

  test('a caller that sends a body for ever has its answer, and is not read on', async () => {
    const stream = session.request({ ':path': '/v3/kv/put', ':method': 'POST' });
    stream.on('error', () => {});
    const [part] = ['x'.repeat(50_000)];
    const more = (): void => {
      if (!stream.destroyed) stream.write(part, () => setImmediate(more));
    };
    more();
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
    expect(headers[':status']).toBe(400);
    stream.resume();
    await once(stream, 'close');
    expect((await ask('/livez')).status).toBe(200);
  });

  test('a body that stands still is given up', async () => {
    const clock = new ManualClock();
    await using slow = await Stage.open({ clock });
    const stream = opened(slow.server.url).request({ ':path': '/v3/kv/put', ':method': 'POST' });
    stream.on('error', () => {});
    stream.write('{"key":');
    await eventually(() => clock.pending > 1, 'the request to have come');
    let closed = false;
    stream.once('close', () => {
      closed = true;
    });
    await eventually(() => {
      clock.advance(5_000);
      return closed;
    }, 'the stream to be reset');
  });

  test('a large answer waits for a slow reader and comes whole', async () => {
    const value = 'x'.repeat(90_000);
    for (let i = 0; i < 20; i++) {
      await stage.engine.txn({
        success: [{ type: 'put', key: utf8(`big/${i}`), value: utf8(value) }],
      });
    }
    const stream = session.request({ ':path': '/v3/kv/range', ':method': 'POST' });
    stream.end(JSON.stringify({ key: base64('big/'), range_end: base64('big0') }));
    await once(stream, 'response');
    // Nothing is read until others have been answered.
    expect((await ask('/livez')).status).toBe(200);
    let body = '';
    for await (const part of stream.setEncoding('utf8') as AsyncIterable<string>) body += part;
    const { kvs } = JSON.parse(body) as { kvs: { value: string }[] };
    expect(kvs.map((kv) => text(Buffer.from(kv.value, 'base64')))).toEqual(Array(20).fill(value));
  });

  test('what waits ends when the server leaves, with a status to resume on', async () => {
    const stream = session.request({ ':path': '/v3/watch', ':method': 'POST' });
    stream.write(JSON.stringify({ create_request: { key: base64('w') } }));
    let told = '';
    stream.setEncoding('utf8').on('data', (part: string) => {
      told += part;
    });
    await eventually(() => told.includes('"created":true'), 'the watch');
    await within(stage.server.drain(60_000), 'the server to be gone');
    expect(told.trim().split('\n').at(-1)).toContain('"grpc_code":14');
  });
});
