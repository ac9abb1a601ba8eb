/**
 * Puts HTTP/2 server connections on sockets: plain (prior knowledge) or TLS (ALPN), and hands
 * HTTP/1.1 that arrives on the same port to a `node:http` server.
 *
 *   const server = await listen({ port: 0, accept: (session) => handler });
 *   server.port; await server.drain(5_000); await server.close();
 *
 * `accept` gives each connection its `StreamHandler` (see `../http2/connection.ts`); it may be one
 * object for all. What a peer may cost is bounded before it has said a word: connections in total and
 * per address, time for the handshake, for each frame, without a stream, without reading.
 */
import type { Server as HttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { systemClock, systemRandom } from '../../base/system.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { StreamHandler } from '../http2/connection.ts';
import type { Limits } from '../http2/limits.ts';
import { BufferPool } from '../http2/output.ts';
import { Gate } from './gate.ts';
import { sniff } from './peek.ts';
import { DEFAULT_TIMES, ServerSession, type SessionTimes } from './server-session.ts';
import { Vigil } from './vigil.ts';

export interface ServerOptions extends Partial<SessionTimes> {
  readonly host?: string;
  readonly port?: number;
  /** A unix socket instead of host and port. */
  readonly path?: string;
  /** Listens nowhere; connections come by `handle`. */
  readonly detached?: boolean;
  readonly tls?: TlsOptions;
  /** Takes connections that speak HTTP/1.1; without it they are closed. Never listens itself. */
  readonly http1?: HttpServer;
  readonly accept: (session: ServerSession) => StreamHandler;
  readonly limits?: Partial<Limits>;
  readonly streamWindow?: number;
  readonly connectionWindow?: number;
  readonly maxConnections?: number;
  readonly maxConnectionsPerAddress?: number;
  /** How long the loop stays awake after a request that followed another closely; see `Vigil`. */
  readonly vigilMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
  /** A handler threw: a fault in the software; its connection is lost. */
  readonly onHandlerError?: (error: unknown) => void;
}

const DEFAULT_CONNECTIONS = 10_000;
/** One machine may run many clients, and proxies hide many machines. */
const DEFAULT_CONNECTIONS_PER_ADDRESS = 5_000;

/** Resolves when the server accepts connections. */
export async function listen(options: ServerOptions): Promise<Http2Server> {
  const server = new Http2Server(options);
  await server.start();
  return server;
}

export class Http2Server {
  readonly #options: ServerOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #times: SessionTimes;
  readonly #listener: Server;
  readonly #tls: ReturnType<typeof createTlsServer> | undefined;
  readonly #buffers = new BufferPool();
  readonly #gate: Gate;
  readonly #vigil: Vigil;
  readonly #sessions = new Set<ServerSession>();
  /** Sockets that have not shown their protocol, and since when. */
  readonly #strangers = new Map<Socket, number>();
  readonly #http1 = new Set<Socket>();
  #cancelSweep: () => void = () => {};
  readonly #emptied: (() => void)[] = [];

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#times = { ...DEFAULT_TIMES, ...defined(options) };
    this.#vigil = new Vigil(this.#clock, options.vigilMs ?? 0);
    this.#gate = new Gate(
      options.maxConnections ?? DEFAULT_CONNECTIONS,
      options.maxConnectionsPerAddress ?? DEFAULT_CONNECTIONS_PER_ADDRESS,
    );
    this.#listener = createServer({ noDelay: true }, (socket) => this.#connected(socket));
    this.#tls = options.tls && this.#tlsServer(options.tls);
  }

  async start(): Promise<void> {
    const { host = '127.0.0.1', port = 0, path, detached } = this.#options;
    if (detached) {
      this.#scheduleSweep();
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#listener.once('error', reject);
      this.#listener.listen(path === undefined ? { host, port } : { path }, () => {
        this.#listener.off('error', reject);
        // A failing accept (too many files) is no reason to end the process.
        this.#listener.on('error', () => {});
        resolve();
      });
    });
    // Only now: a timer of a server that could not start would keep the process alive.
    this.#scheduleSweep();
  }

  get port(): number {
    const address = this.#listener.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  /** Connections of every kind. */
  get connections(): number {
    return this.#gate.open;
  }

  get sessions(): Iterable<ServerSession> {
    return this.#sessions;
  }

  /** Serves a connection that somebody else accepted. */
  handle(socket: Socket): void {
    this.#connected(socket);
  }

  /** New handshakes use these certificates, keys and lists from now on. */
  setSecureContext(options: TlsOptions): void {
    if (!this.#tls) throw new HoldfastError('unsupported', 'this listener has no TLS');
    this.#tls.setSecureContext(options);
  }

  /**
   * Accepts nothing new, lets every stream finish for at most `graceMs`, and closes. Resolves when
   * all connections are gone.
   */
  async drain(graceMs: number): Promise<void> {
    this.#listener.close();
    for (const session of this.#sessions) session.drain(graceMs);
    for (const socket of this.#strangers.keys()) socket.destroy();
    const cancel = this.#clock.wakeAt(this.#clock.now() + graceMs + 1_000, () =>
      this.#destroyAll(),
    );
    if (this.#gate.open > 0) {
      await new Promise<void>((resolve) => {
        this.#emptied.push(resolve);
      });
    }
    cancel();
    this.#cancelSweep();
  }

  /** Closes everything now. */
  async close(): Promise<void> {
    this.#listener.close();
    this.#destroyAll();
    await this.drain(0);
  }

  #destroyAll(): void {
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#strangers.keys()) socket.destroy();
    for (const socket of this.#http1) socket.destroy();
  }

  #tlsServer(options: TlsOptions): ReturnType<typeof createTlsServer> {
    const server = createTlsServer({
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout: this.#times.handshakeTimeoutMs,
      ...options,
    });
    server.on('secureConnection', (socket) => this.#meet(socket));
    server.on('tlsClientError', (_error, socket) => socket.destroy());
    return server;
  }

  #connected(socket: Socket): void {
    const leave = this.#gate.enter(socket.remoteAddress ?? '');
    if (!leave) {
      socket.destroy();
      return;
    }
    socket.once('close', () => {
      leave();
      this.#strangers.delete(socket);
      if (this.#gate.open === 0) for (const resolve of this.#emptied.splice(0)) resolve();
    });
    socket.on('error', () => {});
    this.#strangers.set(socket, this.#clock.now());
    if (this.#tls) this.#tls.emit('connection', socket);
    else this.#meet(socket);
  }

  /** A connection whose bytes can be read: which protocol is it? */
  #meet(socket: Socket): void {
    socket.on('error', () => {});
    sniff(socket, (protocol) => {
      const raw = rawSocket(socket);
      const acceptedAtMs = this.#strangers.get(raw) ?? this.#clock.now();
      this.#strangers.delete(raw);
      if (protocol === 'h2') this.#serve(socket, acceptedAtMs);
      else this.#handOver(socket);
    });
  }

  #serve(socket: Socket, acceptedAtMs: number): void {
    const session: ServerSession = new ServerSession(
      socket,
      {
        accept: this.#options.accept,
        acceptedAtMs,
        limits: this.#options.limits ?? {},
        streamWindow: this.#options.streamWindow,
        connectionWindow: this.#options.connectionWindow,
        buffers: this.#buffers,
        clock: this.#clock,
        random: this.#random,
        times: this.#times,
        onTurn: () => this.#vigil.stirred(),
        onHandlerError: this.#options.onHandlerError ?? (() => {}),
      },
      () => this.#sessions.delete(session),
    );
    this.#sessions.add(session);
  }

  #handOver(socket: Socket): void {
    const { http1 } = this.#options;
    if (!http1) {
      socket.destroy();
      return;
    }
    this.#http1.add(socket);
    socket.once('close', () => this.#http1.delete(socket));
    http1.emit('connection', socket);
  }

  #scheduleSweep(): void {
    const at = this.#clock.now() + this.#times.sweepMs;
    this.#cancelSweep = this.#clock.wakeAt(at, () => {
      this.#sweep(this.#clock.now());
      this.#scheduleSweep();
    });
  }

  #sweep(now: number): void {
    for (const session of this.#sessions) session.check(now);
    for (const [socket, since] of this.#strangers) {
      if (now - since > this.#times.handshakeTimeoutMs) socket.destroy();
    }
  }
}

/** The socket the listener gave us: strangers are known by it, before and after TLS. */
function rawSocket(socket: Socket): Socket {
  const parent = (socket as TLSSocket & { _parent?: Socket })._parent;
  return parent ?? socket;
}

/** Options without the undefined ones, so that they do not hide defaults. */
function defined(options: ServerOptions): Partial<SessionTimes> {
  const given: Record<string, number> = {};
  for (const name of Object.keys(DEFAULT_TIMES) as (keyof SessionTimes)[]) {
    const value = options[name];
    if (value !== undefined) given[name] = value;
  }
  return given;
}
