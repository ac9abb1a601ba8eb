/**
 * A gRPC client on our HTTP/2: one endpoint, one connection at a time, any number of calls on it.
 *
 *   const grpc = new GrpcClient({ host, port, deadlineMs: 5_000 });
 *   const answer = await grpc.unary(KVService.Range, { key }, { effect: 'read', signal });
 *   const watch = grpc.stream(WatchService.Watch);
 *   watch.send({ createRequest: { key } });
 *   for await (const response of watch.responses()) …
 *   await grpc.close();
 *
 * It connects when the first call comes, and again when a call comes after the connection was lost;
 * calls are never repeated by themselves. Every failure is a HoldfastError; `effect: 'read'` says that
 * a call changes nothing, so that its failures never have the outcome `unknown`.
 */
import type { Bytes } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import { systemClock } from '../../base/system.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';
import type { Metadata } from '../grpc/metadata.ts';
import { clientHeaders } from '../grpc/request.ts';
import { formatTimeout } from '../grpc/timeout.ts';
import type { HeaderList } from '../http2/headers.ts';
import { encodeFramed } from '../messages/codec.ts';
import type { MessageType, Method } from '../messages/descriptor.ts';
import type { CallEffect } from '../messages/status.ts';
import { type ClientOptions, type ClientSession, connect } from './client.ts';
import { DeadlineAlarm } from './deadline-alarm.ts';
import {
  type ClientCall,
  type ClientListener,
  type ClientOwner,
  StreamClientCall,
  UnaryClientCall,
} from './grpc-client-call.ts';

export { type ClientListener, StreamClientCall };

export interface GrpcClientOptions extends Omit<ClientOptions, 'signal'> {
  /** For calls that say nothing else; absent or infinite: none. Streams have none by default. */
  readonly deadlineMs?: number;
  /** The longest answer; etcd's client takes any, so the default is large. */
  readonly messageBytesMax?: number;
  /** What servers see as `:authority`; host and port by default. */
  readonly authority?: string;
  readonly userAgent?: string;
  /** Goes with every call, such as an auth token. Replace it by `setMetadata`. */
  readonly metadata?: Metadata;
  /** Told when a connection stands, and when it is gone (undefined: closed by us). */
  readonly onConnect?: () => void;
  readonly onDisconnect?: (error: HoldfastError | undefined) => void;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** From now; infinity: none. */
  readonly deadlineMs?: number | undefined;
  /** In addition to the client's. Keep the object: equal objects cost nothing to send again. */
  readonly metadata?: Metadata | undefined;
  /** Default `write`. */
  readonly effect?: CallEffect | undefined;
}

type RequestOf<M extends Method> = M['request'] extends MessageType<infer _T, infer I> ? I : never;
type ResponseOf<M extends Method> = M['response'] extends MessageType<infer T, never> ? T : never;

const MESSAGE_BYTES = 2 ** 31 - 1;
const NO_METADATA: Metadata = [];
/** Header lists remembered per metadata; deadlines are few, so this is never reached in practice. */
const REMEMBERED = 1_000;

export class GrpcClient {
  readonly #options: GrpcClientOptions;
  readonly #clock: Clock;
  readonly #alarm: DeadlineAlarm;
  readonly #owner: ClientOwner;
  readonly #authority: string;
  #metadata: Metadata;
  /** path and timeout → header list, for each metadata object. */
  #headers = new WeakMap<Metadata, Map<string, HeaderList>>();
  #session: ClientSession | undefined;
  #connecting: Promise<ClientSession> | undefined;
  readonly #abort = new AbortController();
  readonly #calls = new Set<ClientCall>();
  #closed = false;

  constructor(options: GrpcClientOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#alarm = new DeadlineAlarm(this.#clock);
    this.#metadata = options.metadata ?? NO_METADATA;
    this.#authority =
      options.authority ??
      (options.path === undefined
        ? `${options.host ?? '127.0.0.1'}:${options.port ?? 2379}`
        : 'localhost');
    this.#owner = {
      messageBytesMax: options.messageBytesMax ?? MESSAGE_BYTES,
      ended: (call) => {
        this.#calls.delete(call);
        if (call.deadlineSlot) this.#alarm.remove(call);
      },
    };
  }

  get connected(): boolean {
    return this.#session !== undefined && !this.#session.exhausted;
  }

  /** Calls under way. */
  get active(): number {
    return this.#calls.size;
  }

  /** From the next call on. */
  setMetadata(metadata: Metadata): void {
    this.#metadata = metadata;
    this.#headers = new WeakMap();
  }

  /** Resolves when there is a connection; a call would wait for the same. */
  async connect(): Promise<void> {
    await this.#connect();
  }

  /** A call with one request and one answer. */
  unary<M extends Method>(
    method: M,
    request: RequestOf<M>,
    options: CallOptions = {},
  ): Promise<ResponseOf<M>> {
    return new Promise<ResponseOf<M>>((resolve, reject) => {
      const call = new UnaryClientCall(
        method,
        options.effect ?? 'write',
        this.#owner,
        resolve as (response: never) => void,
        reject,
      );
      const deadlineMs = options.deadlineMs ?? this.#options.deadlineMs;
      this.#begin(call, deadlineMs, options, encodeFramed(method.request, request as object));
    });
  }

  /** A call with streams; answers come by `responses()`, or through the listener if one is given. */
  stream<M extends Method>(
    method: M,
    options: CallOptions & { readonly listener?: ClientListener<ResponseOf<M>> } = {},
  ): StreamClientCall<RequestOf<M> & object, ResponseOf<M> & object> {
    const call = new StreamClientCall<RequestOf<M> & object, ResponseOf<M> & object>(
      method,
      options.effect ?? 'write',
      this.#owner,
      options.listener as ClientListener<ResponseOf<M> & object> | undefined,
    );
    this.#begin(call, options.deadlineMs, options, undefined);
    return call;
  }

  /** Takes no more calls, lets those under way end, and closes. */
  async close(): Promise<void> {
    this.#closed = true;
    const session = this.#session ?? (await this.#connecting?.catch(() => undefined));
    await session?.close();
    this.#alarm.stop();
  }

  /** Ends everything now; calls under way fail with the error, those that wait to connect too. */
  destroy(error: HoldfastError = new HoldfastError('closed', 'the client was closed')): void {
    this.#closed = true;
    this.#abort.abort(error);
    this.#session?.destroy(error);
    this.#alarm.stop();
  }

  #begin(
    call: ClientCall,
    deadlineMs: number | undefined,
    options: CallOptions,
    framed: Bytes | undefined,
  ): void {
    this.#calls.add(call);
    if (options.signal?.aborted) {
      call.fail(abortError(options.signal, 'rejected'));
      return;
    }
    try {
      const timed = deadlineMs !== undefined && deadlineMs < Number.POSITIVE_INFINITY;
      const headers = this.#headersFor(
        call.method,
        timed ? deadlineMs : undefined,
        options.metadata,
      );
      if (timed) {
        const now = this.#clock.now();
        this.#alarm.add(call, now + deadlineMs, now);
      }
      if (options.signal) call.watch(options.signal);
      if (this.#session && !this.#session.exhausted) {
        this.#start(this.#session, call, headers, framed);
      } else this.#startLater(call, headers, framed);
    } catch (error) {
      call.fail(HoldfastError.from(error, 'rejected'));
    }
  }

  #startLater(call: ClientCall, headers: HeaderList, framed: Bytes | undefined): void {
    this.#connect().then(
      (session) => {
        if (call.isOver) return;
        try {
          this.#start(session, call, headers, framed);
        } catch (error) {
          call.fail(HoldfastError.from(error, 'rejected'));
        }
      },
      (error: unknown) => call.fail(HoldfastError.from(error, 'rejected')),
    );
  }

  #start(
    session: ClientSession,
    call: ClientCall,
    headers: HeaderList,
    framed: Bytes | undefined,
  ): void {
    const started = session.request(headers, call, STREAMING[framed === undefined ? 1 : 0]);
    call.attach(started);
    if (framed) started.sendData(framed, true);
  }

  #connect(): Promise<ClientSession> {
    if (this.#closed) {
      return Promise.reject(new HoldfastError('closed', 'the client is closed'));
    }
    if (this.#session && !this.#session.exhausted) return Promise.resolve(this.#session);
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #open(): Promise<ClientSession> {
    const session = await connect({ ...this.#options, signal: this.#abort.signal });
    this.#session = session;
    this.#options.onConnect?.();
    void session.closed.then((error) => {
      if (this.#session === session) this.#session = undefined;
      this.#options.onDisconnect?.(error);
    });
    return session;
  }

  #headersFor(
    method: Method,
    deadlineMs: number | undefined,
    metadata: Metadata | undefined,
  ): HeaderList {
    const timeout = deadlineMs === undefined ? undefined : formatTimeout(deadlineMs);
    const owner = metadata ?? this.#metadata;
    let lists = this.#headers.get(owner);
    if (lists === undefined || lists.size > REMEMBERED) {
      lists = new Map();
      this.#headers.set(owner, lists);
    }
    const key = timeout === undefined ? method.path : `${method.path} ${timeout}`;
    let list = lists.get(key);
    if (list === undefined) {
      list = clientHeaders({
        path: method.path,
        scheme: this.#options.tls ? 'https' : 'http',
        authority: this.#authority,
        userAgent: this.#options.userAgent ?? 'holdfast',
        timeout,
        metadata: metadata ? [...this.#metadata, ...metadata] : this.#metadata,
      });
      lists.set(key, list);
    }
    return list;
  }
}

/** Unary calls take what comes; streams hold the server back. */
const STREAMING = [{ holdCredit: false }, { holdCredit: true }] as const;
