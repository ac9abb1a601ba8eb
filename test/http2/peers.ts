/**
 * Checks against other implementations, in both roles, each a function that throws when the peer and
 * we do not agree. The tests run them small, `prove/http2.ts` large.
 */

import { writeFileSync } from 'node:fs';
import { createServer as createHttpServer, get as httpGet } from 'node:http';
import http2 from 'node:http2';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { concatBytes, equalBytes, fromBinaryString, toHex } from '../../src/base/bytes.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { Header } from '../../src/wire/http2/headers.ts';
import { HpackDecoder } from '../../src/wire/http2/hpack/decode.ts';
import { HpackEncoder } from '../../src/wire/http2/hpack/encode.ts';
import { requestHeaders } from '../../src/wire/net/client.ts';
import { freePort } from '../servers/daemon.ts';
import {
  type Certificate,
  call,
  client,
  dribble,
  echoes,
  echoServer,
  PYTHON,
  pattern,
  reachable,
  run,
  spawnUntil,
  start,
  type Undo,
} from './harness.ts';
import { encodeBlock } from './script.ts';

export interface Bench {
  readonly undo: Undo;
  readonly scratch: string;
  readonly certificate: Certificate;
  /** 1 in tests, more in the long form. */
  readonly scale: number;
}

export interface PeerCheck {
  readonly peer: string;
  /** What we are. */
  readonly role: 'server' | 'client' | 'both';
  readonly what: string;
  readonly run: (bench: Bench) => Promise<void>;
}

const script = (name: string): string => fileURLToPath(new URL(`python/${name}`, import.meta.url));

function expect(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

// ─── nghttp2 ─────────────────────────────────────────────────────────────────────────────────────

async function load(bench: Bench, tls: boolean, args: readonly string[], count: number) {
  const { server, faults } = await echoServer(bench.undo, tls ? { tls: bench.certificate } : {});
  const file = join(bench.scratch, `body-${server.port}`);
  writeFileSync(file, pattern(100));
  const url = `${tls ? 'https' : 'http'}://127.0.0.1:${server.port}/echo`;
  const said = await run('h2load', ['-n', `${count}`, ...args, '-d', file, url]);
  expect(said.includes(`${count} succeeded, 0 failed`), said);
  expect(faults.length === 0, `a handler threw: ${faults}`);
}

const NGHTTP2: readonly PeerCheck[] = [
  ...[false, true].flatMap((tls): PeerCheck[] => {
    const how = tls ? 'with TLS' : 'plain';
    return [
      {
        peer: 'h2load',
        role: 'server',
        what: `thousands of streams on many connections, ${how}`,
        run: (bench) => load(bench, tls, ['-c', '10', '-m', '100'], 5_000 * bench.scale),
      },
      {
        peer: 'h2load',
        role: 'server',
        what: `windows of one kilobyte, ${how}`,
        run: (bench) => load(bench, tls, ['-c', '2', '-m', '10', '-w', '10', '-W', '10'], 500),
      },
      {
        peer: 'h2load',
        role: 'server',
        what: `windows of a gigabyte and no header table, ${how}`,
        run: (bench) =>
          load(
            bench,
            tls,
            [
              '-m',
              '50',
              '-w',
              '30',
              '-W',
              '30',
              '--header-table-size=0',
              '--encoder-header-table-size=0',
            ],
            1_000,
          ),
      },
      {
        peer: 'nghttp',
        role: 'server',
        what: `padding, continuation and trailers, ${how}`,
        run: async (bench) => {
          const { server } = await echoServer(bench.undo, {
            ...(tls ? { tls: bench.certificate } : {}),
            limits: { headerListBytes: 65_536 },
          });
          const file = join(bench.scratch, `body-${server.port}`);
          writeFileSync(file, 'x'.repeat(100_000));
          const url = `${tls ? 'https' : 'http'}://127.0.0.1:${server.port}/echo`;
          const args = ['-y', '-b', '200', '--continuation', '--trailer', 'x-t: 1', '-w', '14'];
          const body = await run('nghttp', [...args, '-d', file, url]);
          expect(body.trim() === 'x'.repeat(100_000), `${body.length} bytes came back`);
        },
      },
      {
        peer: 'nghttpd',
        role: 'client',
        what: `echoes of 0 to 300,000 bytes, ${how}`,
        run: async (bench) => {
          const port = await freePort();
          const key = [bench.certificate.keyFile, bench.certificate.certFile];
          const args = ['-d', bench.scratch, '--echo-upload', '-b', '50', '-w', '13', `${port}`];
          spawnUntil(bench.undo, 'nghttpd', tls ? [...args, ...key] : ['--no-tls', ...args]);
          await reachable(port);
          const session = await client(bench.undo, {
            port,
            ...(tls ? { tls: { ca: bench.certificate.cert, servername: 'localhost' } } : {}),
          });
          for (const size of [1, 100, 16_384, 300_000]) {
            const answer = await call(session, pattern(size));
            expect(equalBytes(answer.body, pattern(size)), `the echo of ${size} bytes differs`);
          }
          await session.close();
        },
      },
    ];
  }),
];

// ─── node:http2 ──────────────────────────────────────────────────────────────────────────────────

/** One call on Node's client. */
function nodeCall(
  session: http2.ClientHttp2Session,
  body: Uint8Array,
): Promise<[Uint8Array, string]> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/echo',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const parts: Uint8Array[] = [];
    let status = '';
    stream.on('data', (part: Uint8Array) => parts.push(part));
    stream.on('trailers', (trailers) => {
      status = String(trailers['grpc-status']);
    });
    stream.on('error', reject);
    stream.on('end', () => resolve([concatBytes(...parts), status]));
    stream.end(body);
  });
}

function nodeServer(bench: Bench, settings: http2.Settings, tls: boolean): Promise<number> {
  const { key, cert } = bench.certificate;
  const server = tls
    ? http2.createSecureServer({ key, cert, settings })
    : http2.createServer({ settings });
  server.on('stream', (stream) => {
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.on('error', () => {});
    stream.pipe(stream);
  });
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on('session', (session) => sessions.add(session));
  bench.undo(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return new Promise((resolve) =>
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)),
  );
}

async function nodeClientEchoes(
  bench: Bench,
  settings: http2.Settings,
  tls: boolean,
  count: number,
  bytes: number,
  port?: number,
): Promise<void> {
  const { server } = await echoServer(bench.undo, tls ? { tls: bench.certificate } : {});
  const session = http2.connect(`${tls ? 'https' : 'http'}://localhost:${port ?? server.port}`, {
    settings,
    ca: bench.certificate.cert,
    host: '127.0.0.1',
  } as http2.SecureClientSessionOptions);
  bench.undo(() => session.destroy());
  const body = pattern(bytes);
  const answers = await Promise.all(Array.from({ length: count }, () => nodeCall(session, body)));
  for (const [echo, status] of answers) {
    expect(equalBytes(echo, body) && status === '0', 'the echo differs');
  }
  await new Promise<void>((resolve) => session.close(resolve));
}

const NODE: readonly PeerCheck[] = [
  ...[false, true].flatMap((tls): PeerCheck[] => {
    const how = tls ? 'with TLS' : 'plain';
    const ours = (bench: Bench) =>
      tls ? { tls: { ca: bench.certificate.cert, servername: 'localhost' } } : {};
    return [
      {
        peer: 'node:http2',
        role: 'server',
        what: `2,000 streams at once on one connection, ${how}`,
        run: (bench) => nodeClientEchoes(bench, {}, tls, 2_000 * bench.scale, 100),
      },
      {
        peer: 'node:http2',
        role: 'server',
        what: `200,000 bytes each way through windows of 100, ${how}`,
        run: (bench) => nodeClientEchoes(bench, { initialWindowSize: 100 }, tls, 1, 200_000),
      },
      {
        peer: 'node:http2',
        role: 'server',
        what: `megabytes through large windows and frames, ${how}`,
        run: (bench) =>
          nodeClientEchoes(
            bench,
            { initialWindowSize: 10_000_000, maxFrameSize: 1_000_000 },
            tls,
            4,
            2_000_000,
          ),
      },
      {
        peer: 'node:http2',
        role: 'client',
        what: `2,000 calls, 100 allowed at once, ${how}`,
        run: async (bench) => {
          const port = await nodeServer(bench, { maxConcurrentStreams: 100 }, tls);
          const session = await client(bench.undo, { port, ...ours(bench) });
          await echoes(session, 2_000 * bench.scale, 100);
          await session.close();
        },
      },
      {
        peer: 'node:http2',
        role: 'client',
        what: `600,000 bytes each way through windows of 1,000, ${how}`,
        run: async (bench) => {
          const port = await nodeServer(bench, { initialWindowSize: 1_000 }, tls);
          const session = await client(bench.undo, { port, ...ours(bench), streamWindow: 1_000 });
          await echoes(session, 3, 200_000);
          await session.close();
        },
      },
    ];
  }),
  ...[1, 7, 100_000].map(
    (piece): PeerCheck => ({
      peer: 'node:http2',
      role: 'server',
      what: `bytes passed on in pieces of ${piece}`,
      run: async (bench) => {
        const { server } = await echoServer(bench.undo);
        const port = await dribble(bench.undo, server.port, piece);
        await nodeClientEchoes(bench, {}, false, 20, piece === 1 ? 50 : 5_000, port);
      },
    }),
  ),
  {
    peer: 'node:http2',
    role: 'client',
    what: 'bytes passed on one by one',
    run: async (bench) => {
      const port = await dribble(bench.undo, await nodeServer(bench, {}, false), 1);
      const session = await client(bench.undo, { port });
      await echoes(session, 20, 50);
      await session.close();
    },
  },
  {
    peer: 'node:http2',
    role: 'server',
    what: 'we drain while it has a stream open: the stream finishes, then the connection ends',
    run: async (bench) => {
      const { server } = await echoServer(bench.undo);
      const session = http2.connect(`http://127.0.0.1:${server.port}`);
      bench.undo(() => session.destroy());
      const stream = session.request({ ':method': 'POST', ':path': '/echo' });
      const answered = new Promise((resolve) => stream.on('response', resolve));
      stream.write('a');
      await answered;
      const away = new Promise<number>((resolve) => session.on('goaway', resolve));
      const drained = server.drain(10_000);
      expect((await away) === 0, 'GOAWAY without NO_ERROR');
      let text = '';
      stream.on('data', (part) => {
        text += part;
      });
      stream.end('b');
      await new Promise((resolve) => stream.on('end', resolve));
      expect(text === 'ab', `the stream under way was cut: ${text}`);
      await drained;
    },
  },
  {
    peer: 'node:http2',
    role: 'client',
    what: 'it goes away first: calls beyond its last stream are rejected, the others answered',
    run: async (bench) => {
      const server = http2.createServer();
      const open = new Promise<http2.ServerHttp2Stream>((resolve) =>
        server.once('stream', resolve),
      );
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      bench.undo(() => server.close());
      const { port } = server.address() as { port: number };
      const session = await client(bench.undo, { port });
      const first = call(session, pattern(10));
      const stream = await open;
      stream.session?.goaway(0, stream.id ?? 0);
      stream.respond({ ':status': 200 });
      const outcomes: unknown[] = [];
      while (!session.exhausted) {
        const late = call(session, pattern(10));
        outcomes.push(await Promise.race([late.catch((error: unknown) => error), tick()]));
      }
      stream.end('done');
      expect((await first).body.length === 4, 'the call under way was cut');
      session.destroy();
      for (const outcome of outcomes) {
        const rejected = HoldfastError.is(outcome) && outcome.outcome === 'rejected';
        expect(outcome === 'tick' || rejected, `a late call: ${String(outcome)}`);
      }
    },
  },
  {
    peer: 'node:http',
    role: 'server',
    what: 'HTTP/1.1 on the same port',
    run: async (bench) => {
      const http1 = createHttpServer((request, response) => response.end(`hello ${request.url}`));
      const { server } = await echoServer(bench.undo, { http1 });
      const body = await new Promise<string>((resolve, reject) => {
        httpGet(
          { host: '127.0.0.1', port: server.port, path: '/health', agent: false },
          (response) => {
            let text = '';
            response.on('data', (part) => {
              text += part;
            });
            response.on('end', () => resolve(text));
          },
        ).on('error', reject);
      });
      expect(body === 'hello /health', body);
      const session = await client(bench.undo, { port: server.port });
      await echoes(session, 10, 10);
      await session.close();
    },
  },
];

const tick = (): Promise<'tick'> => new Promise((resolve) => setTimeout(resolve, 20, 'tick'));

// ─── grpc-js ─────────────────────────────────────────────────────────────────────────────────────

const raw = {
  requestSerialize: (value: Buffer) => value,
  requestDeserialize: (value: Buffer) => value,
  responseSerialize: (value: Buffer) => value,
  responseDeserialize: (value: Buffer) => value,
};
const SERVICE = {
  unary: { path: '/echo.Echo/Unary', requestStream: false, responseStream: false, ...raw },
  stream: { path: '/echo.Echo/Stream', requestStream: true, responseStream: true, ...raw },
} as const;

type EchoClient = grpc.Client & {
  unary(body: Buffer, done: (error: Error | null, body: Buffer) => void): void;
  stream(): grpc.ClientDuplexStream<Buffer, Buffer>;
};

function grpcClient(bench: Bench, port: number, tls: boolean): EchoClient {
  const Client = grpc.makeGenericClientConstructor(SERVICE, 'Echo');
  const credentials = tls
    ? grpc.credentials.createSsl(Buffer.from(bench.certificate.cert))
    : grpc.credentials.createInsecure();
  const made = new Client(`localhost:${port}`, credentials, {
    'grpc.ssl_target_name_override': 'localhost',
  }) as unknown as EchoClient;
  bench.undo(() => made.close());
  return made;
}

const GRPC: readonly PeerCheck[] = [
  ...[false, true].flatMap((tls): PeerCheck[] => [
    {
      peer: 'grpc-js',
      role: 'server',
      what: `unary calls and a stream both ways, ${tls ? 'with TLS' : 'plain'}`,
      run: async (bench) => {
        const { server } = await echoServer(bench.undo, tls ? { tls: bench.certificate } : {});
        const peer = grpcClient(bench, server.port, tls);
        const body = Buffer.from(pattern(70_000));
        const one = (): Promise<Buffer> =>
          new Promise((resolve, reject) =>
            peer.unary(body, (error, answer) => (error ? reject(error) : resolve(answer))),
          );
        const answers = await Promise.all(Array.from({ length: 50 * bench.scale }, one));
        expect(
          answers.every((answer) => answer.equals(body)),
          'an echo differs',
        );
        const stream = peer.stream();
        let received = 0;
        stream.on('data', () => received++);
        for (let i = 0; i < 100; i++) stream.write(Buffer.from(`message ${i}`));
        stream.end();
        const status = await new Promise<grpc.StatusObject>((resolve) =>
          stream.on('status', resolve),
        );
        expect(
          status.code === 0 && received === 100,
          `${received} messages, status ${status.code}`,
        );
      },
    },
    {
      peer: 'grpc-js',
      role: 'client',
      what: `500 unary calls, ${tls ? 'with TLS' : 'plain'}`,
      run: async (bench) => {
        const server = new grpc.Server();
        server.addService(SERVICE, {
          unary: (
            request: grpc.ServerUnaryCall<Buffer, Buffer>,
            done: grpc.sendUnaryData<Buffer>,
          ) => done(null, request.request),
          stream: (duplex: grpc.ServerDuplexStream<Buffer, Buffer>) => {
            duplex.on('data', (message: Buffer) => duplex.write(message));
            duplex.on('end', () => duplex.end());
          },
        });
        const { key, cert } = bench.certificate;
        const credentials = tls
          ? grpc.ServerCredentials.createSsl(null, [
              { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) },
            ])
          : grpc.ServerCredentials.createInsecure();
        const port = await new Promise<number>((resolve, reject) =>
          server.bindAsync('127.0.0.1:0', credentials, (error, bound) =>
            error ? reject(error) : resolve(bound),
          ),
        );
        bench.undo(() => server.forceShutdown());
        const session = await client(bench.undo, {
          port,
          ...(tls ? { tls: { ca: cert, servername: 'localhost' } } : {}),
        });
        const headers = requestHeaders(
          SERVICE.unary.path,
          'localhost',
          [
            ['te', 'trailers'],
            ['content-type', 'application/grpc'],
          ],
          tls ? 'https' : 'http',
        );
        const message = Uint8Array.of(0, 0, 0, 0, 3, 1, 2, 3);
        const answers = await Promise.all(
          Array.from({ length: 500 * bench.scale }, () => call(session, message, headers)),
        );
        for (const answer of answers) {
          expect(equalBytes(answer.body, message), 'an echo differs');
          expect(
            answer.trailers.some(([n, v]) => n === 'grpc-status' && v === '0'),
            'no status',
          );
        }
        await session.close();
      },
    },
  ]),
  {
    peer: 'grpc-js',
    role: 'server',
    what: 'a call that it cancels is reset, and the connection goes on',
    run: async (bench) => {
      const { server } = await echoServer(bench.undo);
      const peer = grpcClient(bench, server.port, false);
      for (let i = 0; i < 50; i++) {
        const stream = peer.stream();
        stream.on('error', () => {});
        stream.write(Buffer.from('x'));
        await new Promise((resolve) => stream.once('data', resolve));
        stream.cancel();
      }
      await new Promise<void>((resolve, reject) =>
        peer.unary(Buffer.from('y'), (error) => (error ? reject(error) : resolve())),
      );
      expect(server.connections === 1, 'the connection was not kept');
    },
  },
];

// ─── python3-h2 and python3-hpack ────────────────────────────────────────────────────────────────

const PYTHONS: readonly PeerCheck[] = [
  ...[
    [300, 100, 65_535],
    [3, 200_000, 1_000],
    [10, 100_000, 10_000_000],
  ].map(
    ([count, bytes, window]): PeerCheck => ({
      peer: 'python3-h2',
      role: 'server',
      what: `${count} echoes of ${bytes} bytes, window ${window}`,
      run: async (bench) => {
        const { server } = await echoServer(bench.undo);
        const args = [server.port, count! * (bytes === 100 ? bench.scale : 1), bytes, window];
        const said = await run(PYTHON, [script('client.py'), ...args.map(String)]);
        expect(said.trim() === 'ok', said);
      },
    }),
  ),
  ...[100, 65_535, 1_000_000].map(
    (window): PeerCheck => ({
      peer: 'python3-h2',
      role: 'client',
      what: `200 echoes, 10 at once, window ${window}`,
      run: async (bench) => {
        const { first } = await start(bench.undo, PYTHON, [script('server.py'), `${window}`]);
        const session = await client(bench.undo, { port: Number(first) });
        await echoes(session, 200, 1_000);
        await echoes(session, 2, 50_000);
        await session.close();
      },
    }),
  ),
  {
    peer: 'python3-hpack',
    role: 'both',
    what: 'random header lists, tables growing and shrinking, both ways',
    run: async (bench) => {
      const child = spawnUntil(bench.undo, PYTHON, [script('hpack_peer.py')]);
      const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
      const ask = async (order: unknown): Promise<unknown> => {
        child.stdin!.write(`${JSON.stringify(order)}\n`);
        return JSON.parse(String((await lines.next()).value));
      };
      const random = seededRandom(7);
      const encoder = new HpackEncoder();
      const decoder = new HpackDecoder({ headerListBytes: 1e9, headers: 1e6 });
      for (let i = 0; i < 500 * bench.scale; i++) {
        const list = randomList(random);
        const block = toHex(encodeBlock(encoder, list));
        const theirs = await ask({ decode: block });
        expect(JSON.stringify(theirs) === JSON.stringify(list), `they decode ${block} otherwise`);
        if (random.chance(0.05)) encoder.limitTable(random.pick([0, 100, 1_000, 4_096]));
        if (random.chance(0.05)) await ask({ table: random.pick([0, 100, 1_000, 4_096]) });
        const answer = await ask({ encode: list, huffman: random.chance(0.5) });
        const bytes = fromHex(String(answer));
        const ours = decoder.decode(bytes, 0, bytes.length)?.list;
        expect(JSON.stringify(ours) === JSON.stringify(list), `we decode ${answer} otherwise`);
      }
    },
  },
];

function randomList(random: Random): Header[] {
  const names = [':path', 'x-a', 'x-b', 'grpc-timeout', 'authorization', 'content-type', 'accept'];
  return Array.from({ length: random.integer(1, 12) }, (): Header => {
    const name = random.chance(0.8) ? random.pick(names) : `x-${random.integer(0, 1_000)}`;
    const length = random.chance(0.1) ? random.integer(0, 500) : random.integer(0, 20);
    const value = random.chance(0.3) ? random.pick(['', '0', 'trailers']) : latin(random, length);
    return [name, value];
  });
}

function latin(random: Random, length: number): string {
  return String.fromCharCode(...random.bytes(length));
}

function fromHex(hex: string): Uint8Array {
  return fromBinaryString(
    hex.replace(/../g, (pair) => String.fromCharCode(Number.parseInt(pair, 16))),
  );
}

export const PEER_CHECKS: readonly PeerCheck[] = [...NGHTTP2, ...NODE, ...GRPC, ...PYTHONS];
