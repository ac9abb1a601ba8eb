/**
 * A gRPC server on our HTTP/2: methods by path, and one `StreamHandler` per connection.
 *
 *   const grpc = new GrpcServer();
 *   grpc.unary(KVService.Range, (request, call) => ({ header, kvs, count }));   // or a promise
 *   grpc.deferred(KVService.Put, (request, call) => queue.push({ request, call }));
 *   grpc.stream(WatchService.Watch, async (call) => { for await (const r of call.requests()) … });
 *   const server = await listen({ port: 0, accept: (session) => grpc.accept(session) });
 *
 * - `unary`: the handler is called as soon as the request is there, in the turn that read it unless the
 *   peer leaves too much unread (`ServerSession.whenRoom`), and may answer at once. No promise,
 *   iterator or closure is made for a call that answers at once.
 * - `deferred`: the handler answers with `call.reply(response)` or `call.fail(error)`, from wherever
 *   it likes: the way for work that is done in batches.
 * - `stream`: server, client and bidi streams; see `StreamCall`.
 *
 * Errors become statuses by `messages/status.ts`; what is no HoldfastError is told to `onHandlerError`
 * and answered as an internal error without its text. Deadlines and cancellations abort `call.signal`.
 */

import type { Bytes } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import { systemClock } from '../../base/system.ts';
import {
  isGrpcContentType,
  type RequestHead,
  type RequestRefusal,
  readRequest,
  trailersOnly,
} from '../grpc/request.ts';
import type { StreamHandler } from '../http2/connection.ts';
import { NO_ERROR } from '../http2/errors.ts';
import { type HeaderList, headerValue } from '../http2/headers.ts';
import type { Stream } from '../http2/stream.ts';
import type { MessageType, Method } from '../messages/descriptor.ts';
import { UNIMPLEMENTED } from '../messages/status.ts';
import { DeadlineAlarm } from './deadline-alarm.ts';
import {
  type CallOwner,
  type DeferredHandler,
  type Route,
  ServerCall,
  type StreamingHandler,
  UnaryCall,
  type UnaryHandler,
} from './grpc-server-call.ts';
import { StreamCall } from './grpc-server-stream.ts';
import { gunzip } from './gzip.ts';
import type { ServerSession } from './server-session.ts';

export { ServerCall, StreamCall, UnaryCall };

export interface GrpcServerOptions {
  /** The longest request; etcd's default. */
  readonly messageBytesMax?: number;
  /** What unfinished requests of one connection may take together. */
  readonly unfinishedBytesMax?: number;
  readonly clock?: Clock;
  /** A handler threw something that is no HoldfastError. */
  readonly onHandlerError?: (error: unknown) => void;
  /** A call has ended with this gRPC code; `call.startedAtMs` tells when it began. */
  readonly onCallEnd?: (call: ServerCall, code: number) => void;
  /** Takes the streams that are not gRPC at all; without it they are answered 415. */
  readonly other?: (session: ServerSession) => StreamHandler;
}

/** The decoded request of a method, and what its answer may be. */
type RequestOf<M extends Method> = M['request'] extends MessageType<infer T, never> ? T : never;
type ResponseOf<M extends Method> =
  M['response'] extends MessageType<infer _T, infer I> ? I : never;

const MESSAGE_BYTES = 1_572_864 + 524_288;
/** What requests that have not come whole, or wait, may take: of one connection, and of all. */
const UNFINISHED_BYTES = 536_870_912;
const UNFINISHED_BYTES_OF_ALL = 1_073_741_824;

type Prepared =
  | { readonly type: 'other' }
  | RequestRefusal
  | { readonly type: 'ready'; readonly head: RequestHead; readonly route: Route };

const OTHER: Prepared = { type: 'other' };

export class GrpcServer {
  readonly #options: GrpcServerOptions;
  readonly #clock: Clock;
  readonly #routes = new Map<string, Route>();
  /** What a list of headers means; equal lists of a connection are one object. */
  readonly #prepared = new WeakMap<HeaderList, Prepared>();
  readonly #alarm: DeadlineAlarm;
  readonly #owner: CallOwner;
  #active = 0;

  constructor(options: GrpcServerOptions = {}) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#alarm = new DeadlineAlarm(this.#clock);
    const unfinishedMax = options.unfinishedBytesMax ?? UNFINISHED_BYTES;
    const held = new WeakMap<ServerSession, number>();
    let heldByAll = 0;
    this.#owner = {
      messageBytesMax: options.messageBytesMax ?? MESSAGE_BYTES,
      decompress: gunzip,
      hold: (session, bytes) => {
        const total = (held.get(session) ?? 0) + bytes;
        held.set(session, total);
        heldByAll += bytes;
        return total <= unfinishedMax && heldByAll <= UNFINISHED_BYTES_OF_ALL;
      },
      ended: (call, code) => this.#ended(call, code),
      handlerFailed: (error) => options.onHandlerError?.(error),
    };
  }

  /** Calls under way. */
  get active(): number {
    return this.#active;
  }

  unary<M extends Method>(
    method: M,
    handle: (request: RequestOf<M>, call: UnaryCall) => ResponseOf<M> | Promise<ResponseOf<M>>,
  ): void {
    this.#routes.set(method.path, { type: 'unary', method, handle: handle as UnaryHandler });
  }

  deferred<M extends Method>(
    method: M,
    handle: (request: RequestOf<M>, call: UnaryCall) => void,
  ): void {
    this.#routes.set(method.path, { type: 'deferred', method, handle: handle as DeferredHandler });
  }

  stream(method: Method, handle: StreamingHandler): void {
    this.#routes.set(method.path, { type: 'stream', method, handle });
  }

  /** A call with one request whose answers an iterable makes, no faster than the peer reads. */
  serverStream<M extends Method>(
    method: M,
    handle: (request: RequestOf<M>, call: StreamCall) => AsyncIterable<ResponseOf<M>>,
  ): void {
    this.stream(method, async (call) => {
      const request = await call.request<RequestOf<M> & object>();
      await pump(call, handle(request, call) as AsyncIterable<object>);
    });
  }

  /** The same with a stream of requests. */
  bidiStream<M extends Method>(
    method: M,
    handle: (
      requests: AsyncIterable<RequestOf<M>>,
      call: StreamCall,
    ) => AsyncIterable<ResponseOf<M>>,
  ): void {
    this.stream(method, (call) =>
      pump(call, handle(call.requests<RequestOf<M> & object>(), call) as AsyncIterable<object>),
    );
  }

  /** For `listen({ accept })`. */
  accept(session: ServerSession): StreamHandler {
    return new SessionHandler(this, session, this.#options.other?.(session));
  }

  /** Fires no deadline any more; for when all connections are closed. */
  stop(): void {
    this.#alarm.stop();
  }

  /** For the session's handler: the call a stream opens, or undefined when it is answered already. */
  open(stream: Stream, session: ServerSession, headers: HeaderList, end: boolean): boolean {
    const prepared = this.#prepare(headers);
    if (prepared.type === 'other') return false;
    if (prepared.type === 'refused') {
      stream.sendHeaders(prepared.answer, true);
      if (!end) stream.reset(NO_ERROR);
      return true;
    }
    const { head, route } = prepared;
    const call =
      route.type === 'stream'
        ? new StreamCall(stream, session, head, route, this.#owner)
        : new UnaryCall(stream, session, head, route, this.#owner);
    stream.user = call;
    this.#active++;
    this.#time(call);
    if (call instanceof StreamCall) call.start();
    if (end) call.onEnd();
    return true;
  }

  #time(call: ServerCall): void {
    const { timeoutMs } = call.head;
    call.startedAtMs = call.session.receivedAtMs;
    if (timeoutMs === undefined) return;
    const now = this.#clock.now();
    call.deadlineAtMs = now + timeoutMs;
    this.#alarm.add(call, call.deadlineAtMs, now);
  }

  #ended(call: ServerCall, code: number): void {
    this.#active--;
    if (call.deadlineSlot) this.#alarm.remove(call);
    this.#options.onCallEnd?.(call, code);
  }

  #prepare(headers: HeaderList): Prepared {
    let prepared = this.#prepared.get(headers);
    if (prepared === undefined) {
      prepared = this.#read(headers);
      this.#prepared.set(headers, prepared);
    }
    return prepared;
  }

  #read(headers: HeaderList): Prepared {
    if (this.#options.other && !isGrpcContentType(headerValue(headers, 'content-type'))) {
      return OTHER;
    }
    const head = readRequest(headers);
    if (head.type === 'refused') return head;
    const route = this.#routes.get(head.path);
    if (route) return { type: 'ready', head, route };
    return {
      type: 'refused',
      answer: trailersOnly({ code: UNIMPLEMENTED, message: unknownMethod(head.path) }),
    };
  }
}

/** What Go's server says, which is what people search for. */
function unknownMethod(path: string): string {
  const [, service = '', method = ''] = path.split('/');
  return `unknown method ${method} for service ${service}`.slice(0, 300);
}

async function pump(call: StreamCall, answers: AsyncIterable<object>): Promise<void> {
  await call.room();
  for await (const answer of answers) {
    if (!call.send(answer)) await call.drained();
    await call.room();
  }
}

/** The events of one connection's streams, for the call of each. */
class SessionHandler implements StreamHandler {
  readonly #server: GrpcServer;
  readonly #session: ServerSession;
  readonly #other: StreamHandler | undefined;

  constructor(server: GrpcServer, session: ServerSession, other: StreamHandler | undefined) {
    this.#server = server;
    this.#session = session;
    this.#other = other;
  }

  onHeaders(stream: Stream, headers: HeaderList, end: boolean): void {
    if (!this.#server.open(stream, this.#session, headers, end)) {
      this.#other?.onHeaders(stream, headers, end);
    }
  }

  onData(stream: Stream, bytes: Bytes, end: boolean): void {
    const call = stream.user;
    if (call instanceof ServerCall) call.onData(bytes, end);
    else this.#other?.onData(stream, bytes, end);
  }

  onTrailers(stream: Stream, headers: HeaderList): void {
    const call = stream.user;
    if (call instanceof ServerCall) call.onEnd();
    else this.#other?.onTrailers(stream, headers);
  }

  onReset(stream: Stream, code: number): void {
    const call = stream.user;
    if (call instanceof ServerCall) call.onReset();
    else this.#other?.onReset(stream, code);
  }

  onDrain(stream: Stream): void {
    const call = stream.user;
    if (call instanceof ServerCall) call.onDrain();
    else this.#other?.onDrain?.(stream);
  }
}
