/**
 * Puts an HTTP/2 client connection on a socket.
 *
 *   const session = await connect({ host, port });           // the peer has sent its SETTINGS
 *   const call = session.request(headers, handler, { end: false });
 *   call.sendData(bytes, true); call.cancel();
 *   await session.close();
 *
 * One session is one connection; whoever wants another after it is gone connects again. More calls
 * than the peer allows at once wait in line. Every call ends: by the `end` of `onHeaders` or `onData`,
 * by `onTrailers`, or by `onFailed` with an error whose `outcome` is `rejected` when the peer surely
 * did not process the call (refused, beyond its last stream, never sent) and `unknown` otherwise.
 * After `cancel` there is no further event.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions as TlsConnectOptions } from 'node:tls';
import type { Clock } from '../../base/clock.ts';
import { systemClock } from '../../base/system.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { HeaderList } from '../http2/headers.ts';
import type { Limits } from '../http2/limits.ts';
import {
  type Call,
  type CallHandler,
  ClientSession,
  type RequestOptions,
} from './client-session.ts';

export type { Call, CallHandler, RequestOptions };
export { ClientSession };

export interface ClientOptions {
  readonly host?: string;
  readonly port?: number;
  /** A unix socket instead of host and port. */
  readonly path?: string;
  /** TLS with these options; the peer must agree to h2. */
  readonly tls?: TlsConnectOptions;
  /** TCP, TLS and the peer's SETTINGS together. */
  readonly connectTimeoutMs?: number;
  /** Nothing heard for so long while calls are open: a ping. */
  readonly keepaliveMs?: number;
  /** Still nothing heard after the ping: the peer is taken for dead. */
  readonly keepaliveTimeoutMs?: number;
  /** Pings also without open calls. */
  readonly keepaliveIdle?: boolean;
  /** Calls that may wait for the peer to allow more streams. */
  readonly maxQueued?: number;
  readonly limits?: Partial<Limits>;
  readonly streamWindow?: number;
  readonly connectionWindow?: number;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
  /** A call's handler threw: a fault in the software; the connection is lost. */
  readonly onHandlerError?: (error: unknown) => void;
}

const DEFAULTS = {
  connectTimeoutMs: 10_000,
  keepaliveMs: 10_000,
  keepaliveTimeoutMs: 5_000,
  maxQueued: 100_000,
} as const;

/** Resolves when requests can be sent; rejects with `unavailable` or the signal's reason. */
export async function connect(options: ClientOptions): Promise<ClientSession> {
  const clock = options.clock ?? systemClock;
  const socket = open(options);
  const session = new ClientSession(socket, {
    clock,
    keepaliveMs: options.keepaliveMs ?? DEFAULTS.keepaliveMs,
    keepaliveTimeoutMs: options.keepaliveTimeoutMs ?? DEFAULTS.keepaliveTimeoutMs,
    keepaliveIdle: options.keepaliveIdle ?? false,
    maxQueued: options.maxQueued ?? DEFAULTS.maxQueued,
    limits: options.limits ?? {},
    streamWindow: options.streamWindow,
    connectionWindow: options.connectionWindow,
    onHandlerError: options.onHandlerError ?? (() => {}),
  });
  const giveUp = (error: unknown): void => session.destroy(asError(error));
  const atMs = clock.now() + (options.connectTimeoutMs ?? DEFAULTS.connectTimeoutMs);
  const cancelTimeout = clock.wakeAt(atMs, () => giveUp('no connection in time'));
  const onAbort = (): void => giveUp(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  if (options.tls) socket.once('secureConnect', () => checkProtocol(socket, giveUp));
  try {
    await session.ready;
  } finally {
    cancelTimeout();
    options.signal?.removeEventListener('abort', onAbort);
  }
  return session;
}

function open(options: ClientOptions): Socket {
  const { host = '127.0.0.1', port = 2379, path, tls } = options;
  const place = path === undefined ? { host, port } : { path };
  if (!tls) return connectTcp({ ...place, noDelay: true });
  const servername = /[a-z]/i.test(host) && !host.includes(':') ? { servername: host } : {};
  const socket = connectTls({ ...place, ...servername, ...tls, ALPNProtocols: ['h2'] });
  socket.setNoDelay(true);
  return socket;
}

/** A peer that does not choose h2 by ALPN would read our preface as something else. */
function checkProtocol(socket: Socket, giveUp: (error: unknown) => void): void {
  const { alpnProtocol } = socket as Socket & { alpnProtocol?: string | false };
  if (alpnProtocol !== 'h2') giveUp('the peer does not offer HTTP/2');
}

function asError(reason: unknown): HoldfastError {
  if (HoldfastError.is(reason)) return reason;
  if (typeof reason === 'string') return new HoldfastError('unavailable', reason);
  return new HoldfastError('cancelled', 'the caller aborted', { cause: reason });
}

/** The four pseudo-headers of a gRPC request, in one frozen list that is encoded once. */
export function requestHeaders(
  path: string,
  authority: string,
  more: HeaderList,
  scheme: 'http' | 'https' = 'http',
): HeaderList {
  return Object.freeze([
    [':method', 'POST'] as const,
    [':scheme', scheme] as const,
    [':path', path] as const,
    [':authority', authority] as const,
    ...more,
  ]);
}
