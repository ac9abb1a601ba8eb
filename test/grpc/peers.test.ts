/** Our gRPC server under clients that others wrote: @grpc/grpc-js, and Go's through etcdctl. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { frameMessage } from '../../src/wire/grpc/message-reader.ts';
import { clientHeaders } from '../../src/wire/grpc/request.ts';
import { KVService } from '../../src/wire/messages/services.ts';
import { connect } from '../../src/wire/net/client.ts';
import { protobufJs } from '../messages/references.ts';
import { installed } from '../servers/daemon.ts';
import { type Echo, startEcho } from './echo.ts';

const run = promisify(execFile);
const root = protobufJs();
let echo: Echo;

beforeAll(async () => {
  echo = await startEcho();
});

afterAll(async () => {
  await echo.close();
});

/** The codec of a peer that knows nothing of ours. */
function codec(name: string): {
  encode: (value: object) => Buffer;
  decode: (bytes: Buffer) => Record<string, unknown>;
} {
  const type = root.lookupType(`etcdserverpb.${name}`);
  return {
    encode: (value) => Buffer.from(type.encode(type.fromObject(value)).finish()),
    decode: (bytes) => type.toObject(type.decode(bytes), { longs: String, enums: String }),
  };
}

describe('@grpc/grpc-js', () => {
  let client: Client;
  const requests = codec('RangeRequest');
  const answers = codec('RangeResponse');

  beforeAll(() => {
    client = new Client(`127.0.0.1:${echo.server.port}`, credentials.createInsecure());
  });

  afterAll(() => client.close());

  const range = (key: string, deadlineMs?: number) =>
    new Promise<Record<string, unknown>>((resolve, reject) => {
      client.makeUnaryRequest(
        '/etcdserverpb.KV/Range',
        requests.encode,
        answers.decode,
        { key: Buffer.from(key) },
        new Metadata(),
        deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs },
        (error, value) => (error ? reject(error) : resolve(value!)),
      );
    });

  test('is answered, many calls at once', async () => {
    const all = await Promise.all(Array.from({ length: 200 }, (_, i) => range(`k${i}`)));
    const keys = all.map((a) => String((a.kvs as { key: Buffer }[])[0]!.key));
    expect(keys).toEqual(Array.from({ length: 200 }, (_, i) => `k${i}`));
    expect(all[0]!.header).toMatchObject({ cluster_id: '14841639068965178418', revision: '5' });
  });

  test('gets code and text of an error, and of an unknown method', async () => {
    const error = (await range('compacted').catch((e: unknown) => e)) as ServiceError;
    expect([error.code, error.details]).toEqual([
      11,
      'etcdserver: mvcc: required revision has been compacted',
    ]);
    const fault = (await range('throw').catch((e: unknown) => e)) as ServiceError;
    expect([fault.code, fault.details]).toEqual([13, 'internal error']);
    const unknown = await new Promise<ServiceError | null>((resolve) => {
      client.makeUnaryRequest('/no.Such/Method', requests.encode, answers.decode, {}, resolve);
    });
    expect(unknown!.code).toBe(12);
  });

  test('past its deadline, the call is over on both sides', async () => {
    const error = (await range('never', 50).catch((e: unknown) => e)) as ServiceError;
    expect(error.code).toBe(4);
    await expect.poll(() => echo.grpc.active).toBe(0);
  });

  test('streams in both directions, and is told when the server ends with an error', async () => {
    const call = client.makeBidiStreamRequest(
      '/etcdserverpb.Watch/Watch',
      codec('WatchRequest').encode,
      codec('WatchResponse').decode,
    );
    const seen: unknown[] = [];
    const error = await new Promise<ServiceError>((resolve) => {
      call.on('data', (value) => {
        seen.push(value);
        if (seen.length === 2) call.write({ progress_request: {} });
      });
      call.on('error', (e) => resolve(e as ServiceError));
      call.write({ create_request: { key: Buffer.from('w') } });
    });
    expect(seen).toMatchObject([{ created: true }, { events: [{ kv: { mod_revision: '5' } }] }]);
    expect([error.code, error.details]).toEqual([14, 'etcdserver: no leader']);
  });

  test('renews leases on a stream, and reads a stream of the server to its end', async () => {
    const keep = client.makeBidiStreamRequest(
      '/etcdserverpb.Lease/LeaseKeepAlive',
      codec('LeaseKeepAliveRequest').encode,
      codec('LeaseKeepAliveResponse').decode,
    );
    const ids: unknown[] = [];
    const ended = new Promise((resolve) => keep.on('end', resolve));
    keep.on('data', (value: Record<string, unknown>) => ids.push(value.ID));
    for (let i = 1; i <= 50; i++) keep.write({ ID: i });
    keep.end();
    await ended;
    expect(ids).toHaveLength(50);

    const snapshot = client.makeServerStreamRequest(
      '/etcdserverpb.Maintenance/Snapshot',
      codec('SnapshotRequest').encode,
      codec('SnapshotResponse').decode,
      {},
    );
    let bytes = 0;
    for await (const { blob } of snapshot as AsyncIterable<{ blob: Buffer }>) bytes += blob.length;
    expect(bytes).toBe(1_000_000);
  });
});

describe('a peer that compresses', () => {
  async function send(message: Uint8Array): Promise<string | undefined> {
    const session = await connect({ port: echo.server.port });
    const plain = {
      path: KVService.Range.path,
      scheme: 'http',
      authority: 'x',
      userAgent: 'x',
    } as const;
    const headers = [...clientHeaders(plain), ['grpc-encoding', 'gzip'] as const];
    try {
      return await new Promise((resolve, reject) => {
        const status = (list: readonly (readonly [string, string])[]) =>
          resolve(new Map(list).get('grpc-status'));
        const call = session.request(headers, {
          onHeaders: (list, end) => end && status(list),
          onData: () => {},
          onTrailers: status,
          onFailed: reject,
        });
        call.sendData(frameMessage(message, true), true);
      });
    } finally {
      await session.close();
    }
  }

  test('is understood', async () => {
    expect(await send(gzipSync(Uint8Array.of(10, 1, 97)))).toBe('0');
  });

  test('into a bomb is refused by what would come out', async () => {
    expect(await send(gzipSync(new Uint8Array(50_000_000)))).toBe('8');
  });

  test('into nonsense is refused', async () => {
    expect(await send(Uint8Array.of(1, 2, 3))).toBe('13');
  });
});

describe.skipIf(!installed('etcdctl'))('etcdctl (Go)', () => {
  const etcdctl = async (...args: string[]): Promise<{ stdout: string; stderr: string }> =>
    await run(
      'etcdctl',
      ['--endpoints', `127.0.0.1:${echo.server.port}`, '--dial-timeout', '5s', ...args],
      { env: { ...process.env, ETCDCTL_API: '3' }, timeout: 20_000 },
    );

  test('gets', async () => {
    expect((await etcdctl('get', 'hello')).stdout).toBe('hello\nv\n');
  });

  test('puts', async () => {
    expect((await etcdctl('put', 'hello', 'world')).stdout).toContain('OK');
  });

  test('is told an error by its text', async () => {
    const error = (await etcdctl('get', 'compacted').catch((e: unknown) => e)) as Error;
    expect(error.message).toContain('etcdserver: mvcc: required revision has been compacted');
  });

  test('renews a lease', async () => {
    const { stdout } = await etcdctl('lease', 'keep-alive', '--once', '4d2');
    expect(stdout).toContain('keepalived with TTL(9)');
  });
});
