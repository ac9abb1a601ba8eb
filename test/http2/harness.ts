/** Servers, clients and certificates for the checks against other implementations. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Bytes, concatBytes, equalBytes } from '../../src/base/bytes.ts';
import { deferred } from '../../src/base/deferred.ts';
import type { HoldfastError } from '../../src/model/errors.ts';
import type { StreamHandler } from '../../src/wire/http2/connection.ts';
import { type Header, type HeaderList, headerValue } from '../../src/wire/http2/headers.ts';
import type { Stream } from '../../src/wire/http2/stream.ts';
import {
  type ClientOptions,
  type ClientSession,
  connect,
  requestHeaders,
} from '../../src/wire/net/client.ts';
import { type Http2Server, listen, type ServerOptions } from '../../src/wire/net/server.ts';

/** Tools the checks call: command → Debian package. */
export const TOOLS: Readonly<Record<string, string>> = {
  h2load: 'nghttp2-client',
  nghttp: 'nghttp2-client',
  nghttpd: 'nghttp2-server',
  openssl: 'openssl',
  '/usr/lib/python3/dist-packages/h2/__init__.py': 'python3-h2',
  '/usr/lib/python3/dist-packages/hpack/__init__.py': 'python3-hpack',
};
export const PYTHON = '/usr/bin/python3';

export type Undo = (step: () => unknown) => void;

export interface Certificate {
  readonly key: string;
  readonly cert: string;
  readonly keyFile: string;
  readonly certFile: string;
}

/** A self-signed certificate for localhost. */
export function certificate(directory: string): Certificate {
  const keyFile = join(directory, 'key.pem');
  const certFile = join(directory, 'cert.pem');
  const made = spawnSync('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-keyout', keyFile, '-out', certFile, '-days', '2', '-subj', '/CN=localhost'],
    ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
  ]);
  if (made.status !== 0) throw new Error(`openssl failed: ${made.stderr}`);
  const read = (file: string): string => readFileSync(file, 'utf8');
  return { key: read(keyFile), cert: read(certFile), keyFile, certFile };
}

export const ANSWER: HeaderList = Object.freeze([
  [':status', '200'],
  ['content-type', 'application/grpc'],
] as Header[]);
export const OK: HeaderList = Object.freeze([['grpc-status', '0']] as Header[]);

/**
 * Echoes as the data comes, with credit given back only as it goes out, so that neither side can make
 * the server keep more than a window.
 */
export class Echo implements StreamHandler {
  handled = 0;

  onHeaders(stream: Stream, _headers: HeaderList, end: boolean): void {
    this.handled++;
    stream.sendHeaders(ANSWER);
    stream.holdCredit = true;
    stream.user = 0;
    if (end) stream.sendTrailers(OK);
  }

  onData(stream: Stream, bytes: Bytes, end: boolean): void {
    stream.sendData(bytes);
    if (stream.blocked) stream.user = (stream.user as number) + bytes.length;
    else stream.credit(bytes.length);
    if (end) stream.sendTrailers(OK);
  }

  onDrain(stream: Stream): void {
    stream.credit(stream.user as number);
    stream.user = 0;
  }

  onTrailers(stream: Stream): void {
    stream.sendTrailers(OK);
  }

  onReset(): void {}
}

export async function echoServer(
  undo: Undo,
  options: Partial<ServerOptions> = {},
): Promise<{ server: Http2Server; echo: Echo; faults: unknown[] }> {
  const echo = new Echo();
  const faults: unknown[] = [];
  const server = await listen({
    accept: () => echo,
    onHandlerError: (error) => faults.push(error),
    ...options,
  });
  undo(() => server.close());
  return { server, echo, faults };
}

export interface Answer {
  readonly headers: HeaderList;
  readonly body: Bytes;
  readonly trailers: HeaderList;
}

const HEADERS = requestHeaders('/echo', 'localhost', [
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
]);

/** One call on our client; resolves with the whole answer. */
export function call(
  session: ClientSession,
  body: Bytes | undefined,
  headers: HeaderList = HEADERS,
): Promise<Answer> {
  const done = deferred<Answer>();
  let answerHeaders: HeaderList = [];
  const parts: Bytes[] = [];
  const finish = (trailers: HeaderList): void =>
    done.resolve({ headers: answerHeaders, body: concatBytes(...parts), trailers });
  const request = session.request(
    headers,
    {
      onHeaders: (list, end) => {
        answerHeaders = list;
        if (end) finish([]);
      },
      onData: (bytes, end) => {
        parts.push(bytes);
        if (end) finish([]);
      },
      onTrailers: finish,
      onFailed: (error: HoldfastError) => done.reject(error),
    },
    { end: body === undefined },
  );
  if (body) request.sendData(body, true);
  return done.promise;
}

export async function client(undo: Undo, options: ClientOptions): Promise<ClientSession> {
  const session = await connect(options);
  undo(() => session.destroy());
  return session;
}

export function pattern(length: number): Bytes {
  return Uint8Array.from({ length }, (_, i) => i % 251);
}

/** Calls with the body echoed, so many at once as given, so many in all. */
export async function echoes(
  session: ClientSession,
  count: number,
  bytes: number,
  atOnce: number = count,
): Promise<void> {
  const body = pattern(bytes);
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) {
      const answer = await call(session, body);
      if (!equalBytes(answer.body, body)) throw new Error('the body came back changed');
      const status = headerValue(answer.trailers, 'grpc-status');
      if (status !== '0') throw new Error(`the trailers say ${status}`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
}

/** Runs a program to its end; throws what it said unless it exits with 0. */
export function run(program: string, args: readonly string[], timeoutMs = 60_000): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      program,
      args,
      { timeout: timeoutMs, maxBuffer: 64 * 2 ** 20 },
      (error, stdout, stderr) => {
        if (error) reject(new Error(`${program}: ${error.message}\n${stdout}${stderr}`));
        else resolve(stdout);
      },
    );
  });
}

/** Starts a program that lives until `undo`. */
export function spawnUntil(undo: Undo, program: string, args: readonly string[]): ChildProcess {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  undo(() => child.kill('SIGKILL'));
  return child;
}

/** The same, and resolves with the first line it prints. */
export async function start(
  undo: Undo,
  program: string,
  args: readonly string[],
): Promise<{ child: ChildProcess; first: string }> {
  const child = spawnUntil(undo, program, args);
  const lines = createInterface({ input: child.stdout! });
  const first = await new Promise<string>((resolve, reject) => {
    lines.once('line', resolve);
    child.once('exit', (code) => reject(new Error(`${program} ended with ${code}`)));
  });
  return { child, first };
}

/** Resolves when something listens there. */
export async function reachable(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connectTcp({ host: '127.0.0.1', port });
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`nothing listens on port ${port}`);
}

/** A proxy that passes bytes on in pieces of the given size, each in a turn of its own. */
export async function dribble(undo: Undo, target: number, pieceBytes: number): Promise<number> {
  const pass = (from: Socket, to: Socket): void => {
    let queue: Buffer = Buffer.alloc(0);
    let busy = false;
    const step = (): void => {
      if (queue.length === 0 || to.destroyed) {
        busy = false;
        return;
      }
      to.write(queue.subarray(0, pieceBytes));
      queue = queue.subarray(pieceBytes);
      setImmediate(step);
    };
    from.on('data', (chunk) => {
      queue = Buffer.concat([queue, chunk]);
      if (busy) return;
      busy = true;
      setImmediate(step);
    });
    from.on('error', () => to.destroy());
    from.on('close', () => to.end());
  };
  const server = createServer({ noDelay: true }, (near) => {
    const far = connectTcp({ host: '127.0.0.1', port: target, noDelay: true });
    undo(() => near.destroy());
    undo(() => far.destroy());
    pass(near, far);
    pass(far, near);
  });
  undo(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as { port: number }).port;
}
