/**
 * A server: one port, gRPC and HTTP/1.1 told apart on it, any engine behind.
 *
 *   const server = await serve({ engine, listen: { port: 2379 } });
 *   server.port; await server.drain(5_000);
 */
import { X509Certificate } from 'node:crypto';
import type { Server as HttpServer } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import { type Clock, sleep } from '../base/clock.ts';
import { Metrics } from '../base/metrics.ts';
import { systemClock } from '../base/system.ts';
import type { Tracer } from '../base/tracer.ts';
import type { Engine } from '../engine/contract.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Hops } from '../model/hops.ts';
import { lockFigures } from '../recipes/figures.ts';
import { type Http2Server, listen } from '../wire/net/server.ts';
import { opaqueTokens, type Tokens } from './access/tokens.ts';
import { Backend } from './backend.ts';
import { type Callers, callers } from './callers.ts';
import { Endpoints } from './endpoints.ts';
import { CallFigures } from './figures/calls.ts';
import { processFigures } from './figures/process.ts';
import { StoreFigures } from './figures/store.ts';
import { trafficFigures } from './figures/traffic.ts';
import { Gateway } from './gateway.ts';
import { grpcServer } from './grpc.ts';
import { http1Server } from './http1.ts';
import { PlainStreams } from './http2.ts';
import { Readiness } from './services/health.ts';
import { services } from './services/index.ts';
import type { TenantLimits } from './tenants/meter.ts';
import { traced } from './tracing.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, message: string, details?: Record<string, unknown>) => void;

export interface ServeOptions {
  readonly engine: Engine;
  readonly listen?: {
    readonly host?: string;
    /** 0: any free one. @default 2379 */
    readonly port?: number;
    /** A Unix socket instead. */
    readonly path?: string;
  };
  readonly tls?: TlsOptions;
  /** Take the common name of verified client certificates as user names. */
  readonly certificateUsers?: boolean;
  readonly tokens?: Tokens;
  readonly name?: string;
  /** Where clients should be told to find this server, if not where it listens. */
  readonly advertise?: readonly string[];
  /** Serve an open address without TLS and access control all the same. */
  readonly insecure?: boolean;
  /** Everybody who can connect is trusted; for a socket that only the owner of the data can open. */
  readonly trusted?: boolean;
  /** Listen nowhere; connections come by `accept`. */
  readonly silent?: boolean;
  /** Given to the engine, too, where that is another server: notices when it leads back here. */
  readonly hops?: Hops | undefined;
  readonly tenantLimits?: TenantLimits;
  /** Shorter passwords are refused. @default 1 */
  readonly passwordLengthMin?: number | undefined;
  /** A key signs sealed tokens for so long, then the next one does. @default 30 days */
  readonly sealRotateMs?: number | undefined;
  /** Keep the audit log in the store. @default true, unless everybody is trusted */
  readonly audit?: boolean | undefined;
  readonly messageBytesMax?: number;
  readonly maxConnections?: number;
  readonly maxConnectionsPerAddress?: number;
  /** How long the loop stays awake between requests that follow each other closely. */
  readonly vigilMs?: number | undefined;
  readonly clock?: Clock;
  /** Makes a span of each call; see `holdfast/opentelemetry`. */
  readonly tracer?: Tracer | undefined;
  /** Must not block; the default is silence. */
  readonly log?: Log;
}

const DEFAULT_PORT = 2379;
/** As in etcd: what a message may need beside the keys and values that the engine allows. */
const MESSAGE_BYTES_AROUND = 2 ** 19;
const CLOSE_GRACE_MS = 5_000;
/** For the last entries of the audit log. */
const LAST_WORDS_MS = 2_000;

export interface RunningServer extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  readonly backend: Backend;
  readonly metrics: Metrics;
  /** Serves a connection that somebody else accepted. */
  accept(socket: Socket): void;
  /** New handshakes use these certificates. */
  reload(tls: TlsOptions): void;
  /** What each tenant may use from its next request on. */
  limit(limits: TenantLimits): void;
  /** Says it is not ready, ends what streams, finishes what is under way, and closes. */
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}

export async function serve(options: ServeOptions): Promise<RunningServer> {
  const log = options.log ?? (() => {});
  const clock = options.clock ?? systemClock;
  const tokens = options.tokens ?? opaqueTokens(clock);
  let urls: readonly string[] = options.advertise ?? [];
  const metrics = new Metrics();
  const backend = await Backend.open({
    locks: lockFigures(metrics),
    engine: options.engine,
    clock,
    tokens,
    name: options.name ?? 'default',
    clientUrls: () => urls,
    tenantLimits: options.tenantLimits,
    trusted: options.trusted === true,
    passwordLengthMin: options.passwordLengthMin,
    sealRotateMs: options.sealRotateMs,
    audit: options.audit ?? !options.trusted,
    onAuditFailure: (message, reason) => log('warn', message, { reason }),
    onSealKey: (keyId) => log('info', 'another key seals tokens', { keyId }),
  });
  refuseOpenDoor(options, backend);
  const running = new Running({ options, backend, metrics, clock, tokens, log });
  await running.start();
  if (!options.advertise) urls = [running.url];
  return running;
}

/** An address others can reach, without TLS and access control, is a mistake unless said by name. */
function refuseOpenDoor(options: ServeOptions, backend: Backend): void {
  const host = options.listen?.host ?? '127.0.0.1';
  if (options.listen?.path !== undefined || isLoopback(host) || options.insecure) return;
  if (options.tls && !backend.gate.open) return;
  throw new HoldfastError(
    'invalid-argument',
    `${host} can be reached by others: give TLS certificates and enable authentication first, or say --insecure`,
  );
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

interface Parts {
  readonly options: ServeOptions;
  readonly backend: Backend;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly log: Log;
}

class Running implements RunningServer {
  readonly backend: Backend;
  readonly metrics: Metrics;
  readonly #options: ServeOptions;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #readiness = new Readiness();
  readonly #callers: Callers;
  readonly #following = new AbortController();
  readonly #storeFigures: StoreFigures;
  #http2: Http2Server | undefined;
  #http1: HttpServer | undefined;
  #stop: () => void = () => {};

  constructor({ options, backend, metrics, clock, tokens, log }: Parts) {
    this.#options = options;
    this.backend = backend;
    this.metrics = metrics;
    const { engine } = options;
    const revision = (): number => backend.lastHeader.revision;
    const commits = options.silent !== true;
    this.#storeFigures = new StoreFigures({ metrics, engine, clock, commits, revision });
    this.#clock = clock;
    this.#log = log;
    this.#callers = callers({
      tokens,
      open: () => backend.gate.open,
      certificates: options.certificateUsers === true,
    });
  }

  get port(): number {
    return this.#http2?.port ?? 0;
  }

  get url(): string {
    const { host = '127.0.0.1', path } = this.#options.listen ?? {};
    if (path !== undefined) return `unix:${path}`;
    const name = isIP(host) === 6 ? `[${host}]` : host;
    return `${this.#options.tls ? 'https' : 'http'}://${name}:${this.port}`;
  }

  async start(): Promise<void> {
    const { options, metrics } = { options: this.#options, metrics: this.metrics };
    const handlers = traced(services(this.backend, this.#readiness), options.tracer);
    const calls = new CallFigures(metrics);
    const connected = trafficFigures(metrics);
    const { requestBytesMax } = options.engine.capabilities;
    const messageBytesMax = options.messageBytesMax ?? requestBytesMax + MESSAGE_BYTES_AROUND;
    const onFault = (error: unknown): void => this.#fault(error);
    const endpoints = this.#endpoints(handlers, messageBytesMax);
    this.#http1 = http1Server({ endpoints, departure: this.backend.departure, onFault });
    const grpc = grpcServer({
      handlers,
      callers: this.#callers,
      clock: this.#clock,
      messageBytesMax,
      hops: options.hops,
      other: (session) => new PlainStreams(session, { endpoints, grpcPaths: handlers, onFault }),
      onFault,
      onStreamStart: (path) => calls.streamStarted(path),
      onCallEnd: (path, code, took) => calls.ended(path, code, took),
    });
    const { path, host, port = DEFAULT_PORT } = options.listen ?? {};
    this.#http2 = await listen({
      ...(path === undefined ? { port, ...(host ? { host } : {}) } : { path }),
      ...(options.tls ? { tls: options.tls } : {}),
      ...(options.maxConnections ? { maxConnections: options.maxConnections } : {}),
      ...(options.maxConnectionsPerAddress
        ? { maxConnectionsPerAddress: options.maxConnectionsPerAddress }
        : {}),
      ...(options.silent ? { detached: true } : {}),
      ...(options.vigilMs ? { vigilMs: options.vigilMs } : {}),
      clock: this.#clock,
      accept: (session) => {
        connected(session.socket);
        this.#log('debug', 'a connection', { address: session.remoteAddress });
        return grpc.accept(session);
      },
      http1: this.#http1,
      onHandlerError: onFault,
    }).catch((error: unknown) => {
      throw startError(error, this.#options);
    });
    // A server inside another program leaves the program's process to the program.
    const stopMeasuring = options.silent ? () => {} : processFigures(metrics, this.#clock);
    this.#stop = () => {
      grpc.stop();
      stopMeasuring();
    };
    metrics.gauge('holdfast_connections', 'Open connections.', () => this.#http2!.connections);
    metrics.gauge('holdfast_calls_active', 'Calls under way.', () => grpc.active);
    metrics.gauge('etcd_server_proposals_pending', 'Calls under way.', () => grpc.active);
    void this.#followAccess();
    await this.#started();
    this.#log('info', 'serving', { url: this.url, engine: options.engine.capabilities.name });
  }

  accept(socket: Socket): void {
    this.#http2?.handle(socket);
  }

  reload(tls: TlsOptions): void {
    this.#http2?.setSecureContext(tls);
    void this.backend.audit.server({ act: 'server.certificates', subject: fingerprintOf(tls) });
    this.#log('info', 'certificates reloaded');
  }

  limit(limits: TenantLimits): void {
    this.backend.tenants.limit(limits);
    const subject = JSON.stringify(limits);
    void this.backend.audit.server({ act: 'server.limits', subject });
    this.#log('info', 'limits reloaded', { ...limits });
  }

  async drain(graceMs: number): Promise<void> {
    this.#readiness.set(false);
    void this.backend.audit.ending({ act: 'server.drain', subject: this.url });
    this.#log('info', 'draining', { connections: this.#http2?.connections ?? 0 });
    // Who watches our health hears of it before that watch ends, too.
    await new Promise((resolve) => setImmediate(resolve));
    // First of all connections are told: who comes back at once must not come to us.
    const gone = this.#http2?.drain(graceMs);
    this.backend.departure.begin();
    this.#http1?.close();
    await gone;
    await this.#end();
  }

  async close(): Promise<void> {
    this.#readiness.set(false);
    this.backend.departure.begin();
    this.#http1?.close();
    await this.#http2?.close();
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#following.abort();
    this.#stop();
    await this.#lastWords();
    await this.backend.tenants.close();
  }

  /** A store that does not answer keeps nobody from stopping. */
  async #lastWords(): Promise<void> {
    const told = this.backend.audit.stopped({ act: 'server.stop', subject: this.url });
    const over = new AbortController();
    const patience = sleep(this.#clock, LAST_WORDS_MS, over.signal).catch(() => {});
    await Promise.race([told, patience]);
    over.abort();
  }

  /** A server that cannot write this serves all the same: it is owed. */
  async #started(): Promise<void> {
    const { insecure, engine } = this.#options;
    if (this.#options.audit === false) return this.backend.leaveAudit();
    const reason = insecure ? 'with --insecure' : '';
    const subject = `${this.url} ${engine.capabilities.name}`;
    await this.backend.audit.started({ act: 'server.start', subject, reason });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain(CLOSE_GRACE_MS);
  }

  /** What is answered to plain HTTP of either version. */
  #endpoints(handlers: ReturnType<typeof services>, messageBytesMax: number): Endpoints {
    const gateway = new Gateway({
      clock: this.#clock,
      handlers,
      callers: this.#callers,
      messageBytesMax,
      refuseCertificateUsers: () =>
        this.#options.certificateUsers === true && !this.backend.gate.open,
      onFault: (error) => this.#fault(error),
    });
    const { host = '127.0.0.1', path } = this.#options.listen ?? {};
    return new Endpoints({
      backend: this.backend,
      gateway,
      metrics: this.metrics,
      storeFigures: this.#storeFigures,
      readiness: this.#readiness,
      hosts: () => new Set(['127.0.0.1', 'localhost', '[::1]', host]),
      checkHost: path === undefined && isLoopback(host),
    });
  }

  /** Users and roles that other servers before the same engine change. */
  async #followAccess(): Promise<void> {
    const { signal } = this.#following;
    while (!signal.aborted) {
      try {
        await this.backend.access.follow(signal);
      } catch (error) {
        if (signal.aborted || HoldfastError.is(error, 'closed')) return;
        this.#log('warn', 'lost sight of users and roles; looking again', {
          reason: HoldfastError.from(error).message,
        });
        await new Promise<void>((resolve) => {
          this.#clock.wakeAt(this.#clock.now() + 1_000, resolve);
        });
      }
    }
  }

  #fault(error: unknown): void {
    this.#log('error', 'a request met a fault in the software', { err: error });
  }
}

/** Names a certificate without telling anything that is secret. */
function fingerprintOf({ cert }: TlsOptions): string {
  try {
    const first = Array.isArray(cert) ? cert[0] : cert;
    return first === undefined ? '' : `sha-256 ${new X509Certificate(first).fingerprint256}`;
  } catch {
    return '';
  }
}

/** A port that is taken is the commonest reason; it says what to do. */
function startError(error: unknown, options: ServeOptions): HoldfastError {
  const { host = '127.0.0.1', port = DEFAULT_PORT, path } = options.listen ?? {};
  const where = path ?? `${host}:${port}`;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') {
    return new HoldfastError(
      'unavailable',
      `${where} is taken by another program (perhaps etcd, or another Holdfast): stop it, or choose another port with --listen`,
      { cause: error },
    );
  }
  return new HoldfastError('unavailable', `cannot listen on ${where}: ${message}`, {
    cause: error,
  });
}
