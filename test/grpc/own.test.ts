/** Our gRPC client against our gRPC server: what calls promise, in every way they can end. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { text, utf8 } from '../../src/base/bytes.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { clientHeaders } from '../../src/wire/grpc/request.ts';
import {
  AuthService,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchService,
} from '../../src/wire/messages/services.ts';
import { connect } from '../../src/wire/net/client.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { type Echo, startEcho } from './echo.ts';

let echo: Echo;
let client: GrpcClient;

beforeAll(async () => {
  echo = await startEcho();
  client = new GrpcClient({ port: echo.server.port });
});

afterAll(async () => {
  await client.close();
  await echo.close();
});

async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!HoldfastError.is(error)) throw new Error(`expected a HoldfastError, got ${String(error)}`);
  return error;
}

describe('a unary call', () => {
  test('is answered at once, later, or out of a batch', async () => {
    const now = await client.unary(KVService.Range, { key: utf8('now') });
    const later = await client.unary(KVService.Range, { key: utf8('later') });
    const batch = await client.unary(KVService.Put, { key: utf8('batch') });
    expect([now.kvs[0]!.key, later.kvs[0]!.key, batch.prevKv!.key].map(text)).toEqual([
      'now',
      'later',
      'batch',
    ]);
    expect(now.header!.clusterId).toBe(14_841_639_068_965_178_418n);
  });

  test('two thousand at once on one connection all get their own answer', async () => {
    const answers = await Promise.all(
      Array.from({ length: 2_000 }, (_, i) =>
        client.unary(KVService.Range, { key: utf8(`k${i}`) }, { deadlineMs: 30_000 }),
      ),
    );
    expect(answers.map((a) => text(a.kvs[0]!.key))).toEqual(answers.map((_, i) => `k${i}`));
    expect(echo.server.connections).toBe(1);
  });

  test('carries a megabyte', async () => {
    const key = new Uint8Array(1_000_000).fill(97);
    const answer = await client.unary(KVService.Put, { key });
    expect(Buffer.compare(answer.prevKv!.key, key)).toBe(0);
  });

  test('carries metadata', async () => {
    const metadata = [['x-tell', 'told']] as const;
    const answer = await client.unary(KVService.Range, { key: utf8('k') }, { metadata });
    expect(text(answer.kvs[0]!.value)).toBe('told');
  });

  test('fails with the error the server threw', async () => {
    const error = await failure(client.unary(KVService.Range, { key: utf8('compacted') }));
    expect(error).toMatchObject({ code: 'compacted', outcome: 'rejected' });
    expect(error.message).toBe('etcdserver: mvcc: required revision has been compacted');
  });

  test('a fault in a handler is internal, keeps its text inside, and leaves the outcome open', async () => {
    const before = echo.log.faults.length;
    const error = await failure(client.unary(KVService.Range, { key: utf8('throw') }));
    expect(error).toMatchObject({
      code: 'internal',
      outcome: 'unknown',
      message: 'internal error',
    });
    expect(echo.log.faults).toHaveLength(before + 1);
    const read = client.unary(KVService.Range, { key: utf8('throw') }, { effect: 'read' });
    expect((await failure(read)).outcome).toBe('rejected');
  });

  test('of an unknown method is unsupported', async () => {
    const error = await failure(client.unary(AuthService.AuthEnable, {}));
    expect(error).toMatchObject({ code: 'unsupported', outcome: 'rejected' });
  });

  test('above the size limit is refused, and the connection lives', async () => {
    const key = new Uint8Array(3_000_000);
    const error = await failure(client.unary(KVService.Put, { key }));
    expect(error.code).toBe('resource-exhausted');
    await client.unary(KVService.Range, { key: utf8('k') });
    expect(echo.server.connections).toBe(1);
  });

  test('past its deadline fails with an open outcome, and the server is told', async () => {
    const before = echo.log.aborted.length;
    const error = await failure(
      client.unary(KVService.Range, { key: utf8('never') }, { deadlineMs: 30 }),
    );
    expect(error).toMatchObject({ code: 'deadline-exceeded', outcome: 'unknown' });
    await expect.poll(() => echo.log.aborted.length).toBe(before + 1);
    await expect.poll(() => echo.grpc.active).toBe(0);
  });

  test('that is aborted fails with cancelled, and the server is told', async () => {
    const before = echo.log.aborted.length;
    const abort = new AbortController();
    const work = failure(
      client.unary(KVService.Range, { key: utf8('never') }, { signal: abort.signal }),
    );
    await expect.poll(() => echo.grpc.active).toBe(1);
    abort.abort();
    expect(await work).toMatchObject({ code: 'cancelled', outcome: 'unknown' });
    await expect.poll(() => echo.log.aborted.length).toBe(before + 1);
  });

  test('aborted before it began is rejected', async () => {
    const work = client.unary(KVService.Range, { key: utf8('k') }, { signal: AbortSignal.abort() });
    expect(await failure(work)).toMatchObject({ code: 'cancelled', outcome: 'rejected' });
  });
});

describe('a stream', () => {
  test('in both directions answers message by message and ends when we end it', async () => {
    const call = client.stream(LeaseService.LeaseKeepAlive);
    const ids: bigint[] = [];
    for (let i = 1n; i <= 500n; i++) call.send({ ID: i });
    call.halfClose();
    for await (const answer of call.responses()) ids.push(answer.ID);
    expect(ids).toEqual(Array.from({ length: 500 }, (_, i) => BigInt(i + 1)));
  });

  test('of the server comes whole, through windows smaller than it', async () => {
    const call = client.stream(MaintenanceService.Snapshot);
    call.send({});
    call.halfClose();
    let bytes = 0;
    for await (const answer of call.responses()) bytes += answer.blob.length;
    expect(bytes).toBe(1_000_000);
  });

  test('that fails throws to the reader, after what came before', async () => {
    const call = client.stream(WatchService.Watch);
    call.send({ createRequest: { key: utf8('w') } });
    call.send({ progressRequest: {} });
    const seen: boolean[] = [];
    const read = async (): Promise<void> => {
      for await (const answer of call.responses()) seen.push(answer.created);
    };
    const error = await failure(read());
    expect(seen).toEqual([true, false]);
    expect(error).toMatchObject({ code: 'unavailable', message: 'etcdserver: no leader' });
  });

  test('that nobody reads on is cancelled at the server', async () => {
    const call = client.stream(WatchService.Watch);
    call.send({ createRequest: { key: utf8('w') } });
    for await (const answer of call.responses()) {
      expect(answer.created).toBe(true);
      break;
    }
    await expect.poll(() => echo.grpc.active).toBe(0);
  });

  test('tells a listener instead, and its end once', async () => {
    const seen: string[] = [];
    const ended = new Promise<HoldfastError | undefined>((resolve) => {
      const call = client.stream(LeaseService.LeaseKeepAlive, {
        listener: { onMessage: (answer) => seen.push(String(answer.ID)), onEnd: resolve },
      });
      call.send({ ID: 4n });
      call.halfClose();
    });
    expect(await ended).toBeUndefined();
    expect(seen).toEqual(['4']);
  });
});

describe('a connection', () => {
  test('that is refused rejects the call', async () => {
    const lonely = new GrpcClient({ port: 1 });
    const error = await failure(lonely.unary(KVService.Put, { key: utf8('k') }));
    expect(error).toMatchObject({ code: 'unavailable', outcome: 'rejected' });
    lonely.destroy();
  });

  test('that is lost leaves writes open and reads rejected; the next call connects again', async () => {
    const own = await startEcho();
    const other = new GrpcClient({ port: own.server.port });
    const write = failure(other.unary(KVService.Range, { key: utf8('never') }));
    const read = failure(other.unary(KVService.Range, { key: utf8('never') }, { effect: 'read' }));
    await expect.poll(() => own.grpc.active).toBe(2);
    for (const session of own.server.sessions) session.destroy();
    expect(await write).toMatchObject({ code: 'unavailable', outcome: 'unknown' });
    expect(await read).toMatchObject({ code: 'unavailable', outcome: 'rejected' });
    await other.unary(KVService.Range, { key: utf8('k') });
    expect(own.grpc.active).toBe(0);
    await other.close();
    await own.close();
  });

  test('destroyed by us fails what is under way', async () => {
    const other = new GrpcClient({ port: echo.server.port });
    const work = failure(other.unary(KVService.Range, { key: utf8('never') }));
    await expect.poll(() => echo.grpc.active).toBe(1);
    other.destroy();
    expect(await work).toMatchObject({ code: 'closed', outcome: 'unknown' });
    const later = await failure(other.unary(KVService.Range, { key: utf8('k') }));
    expect(later).toMatchObject({ code: 'closed', outcome: 'rejected' });
  });
});

describe('a peer that breaks the rules of gRPC', () => {
  /** One raw request; the answer's headers and trailers as an object. */
  async function raw(
    change: (headers: (readonly [string, string])[]) => (readonly [string, string])[],
    body: Uint8Array,
  ): Promise<Record<string, string>> {
    const session = await connect({ port: echo.server.port });
    const plain = clientHeaders({
      path: KVService.Range.path,
      scheme: 'http',
      authority: 'x',
      userAgent: 'x',
    });
    try {
      return await new Promise((resolve, reject) => {
        const got: Record<string, string> = {};
        const done = (end: boolean): void => (end ? resolve(got) : undefined);
        const call = session.request(
          change([...plain]),
          {
            onHeaders: (headers, end) => {
              Object.assign(got, Object.fromEntries(headers));
              done(end);
            },
            onData: (_bytes, end) => done(end),
            onTrailers: (headers) => {
              Object.assign(got, Object.fromEntries(headers));
              done(true);
            },
            onFailed: reject,
          },
          {},
        );
        call.sendData(body, true);
      });
    } finally {
      await session.close();
    }
  }

  const without = (name: string) => (headers: (readonly [string, string])[]) =>
    headers.filter(([key]) => key !== name);
  const withHeader = (name: string, value: string) => (headers: (readonly [string, string])[]) => [
    ...headers.filter(([key]) => key !== name),
    [name, value] as const,
  ];
  const MESSAGE = Uint8Array.of(0, 0, 0, 0, 3, 10, 1, 97);

  test('another content type is answered 415', async () => {
    expect(await raw(without('content-type'), MESSAGE)).toMatchObject({ ':status': '415' });
    const json = await raw(withHeader('content-type', 'application/grpc+json'), MESSAGE);
    expect(json[':status']).toBe('415');
  });

  test('the media type may say proto and have parameters', async () => {
    const answer = await raw(withHeader('content-type', 'application/grpc+proto; x=1'), MESSAGE);
    expect(answer['grpc-status']).toBe('0');
  });

  test('an unknown encoding is unimplemented and names those we know', async () => {
    const answer = await raw(withHeader('grpc-encoding', 'snappy'), MESSAGE);
    expect(answer).toMatchObject({ 'grpc-status': '12', 'grpc-accept-encoding': 'identity,gzip' });
  });

  test('a malformed timeout, message or frame is an error of the call alone', async () => {
    const status = async (headers: Parameters<typeof raw>[0], body: Uint8Array) =>
      (await raw(headers, body))['grpc-status'];
    const same = (headers: (readonly [string, string])[]) => headers;
    expect(await status(withHeader('grpc-timeout', '1x'), MESSAGE)).toBe('13');
    expect(await status(same, Uint8Array.of(0, 0, 0, 0, 1, 0xff))).toBe('3');
    expect(await status(same, Uint8Array.of(0, 0, 0, 0, 9, 1))).toBe('13');
    expect(await status(same, Uint8Array.of(7, 0, 0, 0, 0))).toBe('13');
    expect(await status(same, Uint8Array.of())).toBe('13');
    expect(await status(same, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0))).toBe('12');
  });

  test('the deadline of the peer is kept by the server', async () => {
    const never = Uint8Array.of(0, 0, 0, 0, 7, 10, 5, 110, 101, 118, 101, 114);
    const answer = await raw(withHeader('grpc-timeout', '20m'), never);
    expect(answer).toMatchObject({
      'grpc-status': '4',
      'grpc-message': 'context deadline exceeded',
    });
  });
});
