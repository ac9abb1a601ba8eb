/**
 * The guard in front of a service that cannot be changed: a reverse proxy that streams both ways.
 *
 * A request may be cut off as long as the service has not got all of it; from then on it cannot be
 * recalled, so a newer token waits for its answer. A client that goes away changes nothing in that:
 * the answer is awaited and thrown away.
 */
import {
  Agent,
  type ClientRequest,
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
} from 'node:http';
import { request as httpsRequest, Agent as TlsAgent } from 'node:https';
import type { Duplex } from 'node:stream';
import { HOLDER_HEADER, type HttpGuard, problemOf, TOKEN_HEADER } from './guard.ts';
import { answer, nodeRequest } from './middleware.ts';
import type { Admission } from './turnstile.ts';

/** Meant for one connection, not for the whole way (RFC 9110, 7.6.1). */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

export interface GuardProxyOptions {
  /** `http://127.0.0.1:4873` */
  readonly upstream: string;
  /** Pass the token on; some services log it. By default it ends here. */
  readonly forwardToken?: boolean;
}

/** Not yet listening. Closing the server closes its connections to the service too. */
export function createGuardProxy(guard: HttpGuard, options: GuardProxyOptions): Server {
  const upstream = new URL(options.upstream);
  const secure = upstream.protocol === 'https:';
  const agent = secure ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true });
  const forward: Forward = { upstream, agent, secure, token: options.forwardToken === true };
  const server = createServer((request, response) => {
    void serve(guard, forward, request, response);
  });
  const refuse = (_request: IncomingMessage, socket: Duplex): void => {
    socket.on('error', () => {});
    socket.end('HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
  };
  server.on('upgrade', refuse).on('connect', refuse);
  server.on('close', () => agent.destroy());
  return server;
}

interface Forward {
  readonly upstream: URL;
  readonly agent: Agent | TlsAgent;
  readonly secure: boolean;
  readonly token: boolean;
}

async function serve(
  guard: HttpGuard,
  forward: Forward,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  request.on('error', () => {});
  response.on('error', () => {});
  let admission: Admission | undefined;
  try {
    admission = await guard.enter(nodeRequest(request));
  } catch (error) {
    answer(request, response, problemOf(error));
    return;
  }
  // The client may have gone while it waited for its turn: then nothing has begun.
  if (request.destroyed && !request.complete) admission?.leave();
  else exchange(forward, request, response, admission);
}

function exchange(
  forward: Forward,
  request: IncomingMessage,
  response: ServerResponse,
  admission: Admission | undefined,
): void {
  const out = open(forward, request);
  /** The service has everything, or its request has ended: it cannot be cut off any more. */
  let sent = false;
  out.once('finish', () => {
    sent = true;
  });
  const cut = (): void => {
    if (!sent) out.destroy();
  };
  admission?.signal.addEventListener('abort', cut, { once: true });
  if (admission?.signal.aborted) cut();
  request.once('close', () => {
    if (!request.complete) cut();
  });
  response.once('close', cut);

  out.once('response', (incoming) => relay(incoming, response));
  out.once('error', (error) => fail(request, response, admission, error));
  // After the last byte of the answer, or when the connection is gone.
  out.once('close', () => admission?.leave());
  request.pipe(out);
}

function open(
  { upstream, agent, secure, token }: Forward,
  request: IncomingMessage,
): ClientRequest {
  const headers: Record<string, string | string[]> = {};
  const dropped = new Set(connectionNames(request));
  for (const [name, value] of Object.entries(request.headers)) {
    if (value === undefined || HOP_BY_HOP.has(name) || dropped.has(name)) continue;
    if (!token && (name === TOKEN_HEADER || name === HOLDER_HEADER)) continue;
    headers[name] = value;
  }
  // Framing is per connection: a body of unknown length goes on as it came, in chunks.
  if (request.headers['transfer-encoding']) headers['transfer-encoding'] = 'chunked';
  const open = secure ? httpsRequest : httpRequest;
  return open({
    protocol: upstream.protocol,
    hostname: upstream.hostname,
    port: upstream.port,
    agent,
    method: request.method,
    path: request.url,
    headers,
  });
}

function connectionNames({ headers }: IncomingMessage): string[] {
  return (headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase());
}

function relay(incoming: IncomingMessage, response: ServerResponse): void {
  const dropped = new Set(connectionNames(incoming));
  const headers = Object.entries(incoming.headers).filter(
    ([name, value]) => value !== undefined && !HOP_BY_HOP.has(name) && !dropped.has(name),
  );
  incoming.on('error', () => response.destroy());
  if (response.destroyed) {
    // Nobody listens any more; the end is awaited all the same.
    incoming.resume();
    return;
  }
  response.writeHead(
    incoming.statusCode ?? 502,
    Object.fromEntries(headers) as OutgoingHttpHeaders,
  );
  response.once('close', () => {
    incoming.unpipe(response);
    incoming.resume();
  });
  incoming.pipe(response);
}

function fail(
  request: IncomingMessage,
  response: ServerResponse,
  admission: Admission | undefined,
  error: Error,
): void {
  if (response.destroyed) return;
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { signal } = admission ?? {};
  const problem = signal?.aborted ? problemOf(signal.reason) : undefined;
  const detail = `the service did not answer: ${error.message}`;
  const body = JSON.stringify({ type: 'about:blank', title: 'Bad Gateway', status: 502, detail });
  const headers = { 'content-type': 'application/problem+json' };
  answer(request, response, problem ?? { status: 502, headers, body });
}
