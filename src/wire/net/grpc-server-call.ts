/**
 * One call on a gRPC server, from its headers to its status.
 *
 * A call is also what its handler gets as context. Whatever happens (the handler throws, the peer
 * resets, the deadline passes), it ends once, with one status, and what comes later is ignored.
 */
import { setMaxListeners } from 'node:events';
import type { Bytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { DeadlineSlot, Expiring } from '../grpc/deadlines.ts';
import { type Decompress, MessageReader, wholeMessage } from '../grpc/message-reader.ts';
import { RESPONSE_HEADERS, type RequestHead, trailersOnly } from '../grpc/request.ts';
import { grpcError, OK_TRAILERS, statusFields } from '../grpc/status.ts';
import { NO_ERROR } from '../http2/errors.ts';
import { headerValue } from '../http2/headers.ts';
import type { Stream } from '../http2/stream.ts';
import { decode, encodeFramed } from '../messages/codec.ts';
import type { Method } from '../messages/descriptor.ts';
import {
  CANCELLED,
  DEADLINE_EXCEEDED,
  INTERNAL,
  OK,
  RESOURCE_EXHAUSTED,
  statusOf,
  UNIMPLEMENTED,
} from '../messages/status.ts';
import type { StreamCall } from './grpc-server-stream.ts';
import type { ServerSession } from './server-session.ts';

/** Answers at once or later. */
export type UnaryHandler = (request: never, call: UnaryCall) => object | Promise<object>;
/** Answers by `call.reply` or `call.fail`, whenever it likes. */
export type DeferredHandler = (request: never, call: UnaryCall) => void;
/** Its promise ends the call; without one, `call.end` or `call.fail` does. */
export type StreamingHandler = (call: StreamCall) => void | Promise<void>;

export type Route =
  | { readonly type: 'unary'; readonly method: Method; readonly handle: UnaryHandler }
  | { readonly type: 'deferred'; readonly method: Method; readonly handle: DeferredHandler }
  | { readonly type: 'stream'; readonly method: Method; readonly handle: StreamingHandler };

/** What calls need of their server. */
export interface CallOwner {
  readonly messageBytesMax: number;
  readonly decompress: Decompress;
  /** May these bytes of unfinished requests be kept? Negative numbers give back. */
  hold(session: ServerSession, bytes: number): boolean;
  ended(call: ServerCall, code: number): void;
  handlerFailed(error: unknown): void;
}

const TWO_REQUESTS = 'a unary call with more than one message';

export abstract class ServerCall implements Expiring {
  readonly stream: Stream;
  readonly session: ServerSession;
  readonly head: RequestHead;
  readonly method: Method;
  protected readonly owner: CallOwner;
  deadlineNext: Expiring | undefined = undefined;
  deadlinePrevious: Expiring | undefined = undefined;
  deadlineSlot: DeadlineSlot | undefined = undefined;
  /** On the server's clock; undefined without a deadline. */
  deadlineAtMs: number | undefined = undefined;
  /** When its headers came, on the clock of its connection. */
  startedAtMs = 0;
  #controller: AbortController | undefined = undefined;
  #over = false;
  #abortedBy: HoldfastError | undefined = undefined;

  constructor(
    stream: Stream,
    session: ServerSession,
    head: RequestHead,
    method: Method,
    owner: CallOwner,
  ) {
    this.stream = stream;
    this.session = session;
    this.head = head;
    this.method = method;
    this.owner = owner;
  }

  /** The first value of a metadata name, which must be lower case. */
  header(name: string): string | undefined {
    return headerValue(this.head.headers, name);
  }

  /** Ended: nothing can be sent any more. */
  get over(): boolean {
    return this.#over;
  }

  /** Aborts when the peer cancels, the connection is lost, or the deadline passes. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      // Each watch of a stream waits for the end of its call.
      setMaxListeners(0, this.#controller.signal);
      if (this.#abortedBy) this.#controller.abort(this.#abortedBy);
    }
    return this.#controller.signal;
  }

  /** Ends the call with the status that belongs to the error. */
  fail(error: unknown): void {
    if (this.#over) return;
    if (!HoldfastError.is(error)) this.owner.handlerFailed(error);
    const status = statusOf(error);
    const { stream } = this;
    if (stream.sentHeaders) stream.sendTrailers(statusFields(status));
    else stream.sendHeaders(trailersOnly(status), true);
    this.finish(status.code);
  }

  onDeadline(): void {
    const error = grpcError(DEADLINE_EXCEEDED, 'context deadline exceeded');
    this.abort(error);
    this.fail(error);
  }

  /** The peer has reset the stream, or the connection is gone. */
  onReset(): void {
    if (this.#over) return;
    this.abort(new HoldfastError('cancelled', 'the peer cancelled the call'));
    this.finish(CANCELLED);
  }

  abstract onData(bytes: Bytes, end: boolean): void;
  abstract onEnd(): void;

  /** Everything queued has been written. */
  onDrain(): void {
    if (this.#over) this.#letGo();
  }

  protected abort(error: HoldfastError): void {
    this.#abortedBy ??= error;
    this.#controller?.abort(error);
  }

  protected finish(code: number): void {
    if (this.#over) return;
    this.#over = true;
    this.#letGo();
    this.owner.ended(this, code);
  }

  /** What the peer may still send is of no interest: the stream ends as soon as ours is written. */
  #letGo(): void {
    const { stream } = this;
    if (stream.canReceive && !stream.blocked && !stream.trailersQueued) stream.reset(NO_ERROR);
  }
}

/** A call with one request and one answer. */
export class UnaryCall extends ServerCall {
  readonly #route: Route;
  #reader: MessageReader | undefined = undefined;
  #message: Bytes | undefined = undefined;
  #held = 0;
  #dispatched = false;
  #unpark: (() => void) | undefined = undefined;

  constructor(
    stream: Stream,
    session: ServerSession,
    head: RequestHead,
    route: Route,
    owner: CallOwner,
  ) {
    super(stream, session, head, route.method, owner);
    this.#route = route;
  }

  onData(bytes: Bytes, end: boolean): void {
    if (this.over || this.#dispatched) return;
    if (end && !this.#reader) {
      const whole = wholeMessage(bytes, this.owner.messageBytesMax);
      if (whole) {
        this.#dispatch(whole);
        return;
      }
    }
    try {
      this.#gather(bytes);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (end) this.onEnd();
  }

  onEnd(): void {
    if (this.over || this.#dispatched) return;
    try {
      this.#reader?.end();
      if (!this.#message) throw grpcError(INTERNAL, 'the call has no message');
    } catch (error) {
      this.fail(error);
      return;
    }
    this.#dispatch(this.#message);
  }

  /** The answer, as `encode` takes it. */
  reply(response: object): void {
    if (this.over) return;
    let framed: Bytes;
    try {
      framed = encodeFramed(this.method.response, response);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.replyFramed(framed);
  }

  /** The answer as bytes, framed. */
  replyFramed(framed: Bytes): void {
    if (this.over) return;
    const { stream } = this;
    if (this.session.full) {
      this.fail(grpcError(RESOURCE_EXHAUSTED, 'too many answers wait to be read'));
      return;
    }
    stream.sendHeaders(RESPONSE_HEADERS);
    stream.sendData(framed);
    stream.sendTrailers(OK_TRAILERS);
    this.finish(OK);
  }

  protected override finish(code: number): void {
    this.#release();
    this.#unpark?.();
    super.finish(code);
  }

  #gather(bytes: Bytes): void {
    const { messageBytesMax, decompress } = this.owner;
    this.#reader ??= new MessageReader({
      bytesMax: messageBytesMax,
      decompress: this.head.encoding === 'gzip' ? decompress : undefined,
    });
    if (!this.#hold(bytes.length)) throw tooMuchUnfinished();
    const reader = this.#reader;
    reader.push(bytes);
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      if (this.#message) throw grpcError(UNIMPLEMENTED, TWO_REQUESTS);
      this.#message = message.slice();
    }
  }

  #hold(bytes: number): boolean {
    this.#held += bytes;
    return this.owner.hold(this.session, bytes);
  }

  #release(): void {
    if (this.#held > 0) this.owner.hold(this.session, -this.#held);
    this.#held = 0;
    this.#reader = undefined;
    this.#message = undefined;
  }

  #dispatch(bytes: Bytes): void {
    this.#dispatched = true;
    if (this.session.crowded) this.#park(bytes);
    else this.#begin(bytes);
  }

  /** Waits until the peer has read more of what it asked for already. */
  #park(bytes: Bytes): void {
    const own = bytes === this.#message ? bytes : bytes.slice();
    this.#reader = undefined;
    if (own !== bytes && !this.#hold(own.length)) {
      this.fail(tooMuchUnfinished());
      return;
    }
    this.#unpark = this.session.whenRoom(() => this.#begin(own));
  }

  #begin(bytes: Bytes): void {
    const { method } = this.#route;
    try {
      const request = decode(method.request, bytes) as never;
      this.#release();
      if (this.#route.type === 'deferred') this.#route.handle(request, this);
      else if (this.#route.type === 'unary') this.#settle(this.#route.handle(request, this));
    } catch (error) {
      this.fail(error);
    }
  }

  #settle(result: object | Promise<object>): void {
    if (!isPromise(result)) this.reply(result);
    else {
      result.then(
        (response) => this.reply(response),
        (error: unknown) => this.fail(error),
      );
    }
  }
}

function tooMuchUnfinished(): HoldfastError {
  return grpcError(RESOURCE_EXHAUSTED, 'too many unfinished requests');
}

function isPromise(value: object | Promise<object>): value is Promise<object> {
  return typeof (value as Partial<Promise<object>>).then === 'function';
}
