/** One call with a stream of requests or of answers. */
import type { Bytes } from '../../base/bytes.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { BoundedQueue } from '../../base/queue.ts';
import { HoldfastError } from '../../model/errors.ts';
import { MessageReader } from '../grpc/message-reader.ts';
import { RESPONSE_HEADERS, type RequestHead } from '../grpc/request.ts';
import { grpcError, OK_TRAILERS } from '../grpc/status.ts';
import type { Stream } from '../http2/stream.ts';
import { decode, encodeFramed } from '../messages/codec.ts';
import { INTERNAL, OK } from '../messages/status.ts';
import {
  type CallOwner,
  type Route,
  ServerCall,
  type StreamingHandler,
} from './grpc-server-call.ts';
import type { ServerSession } from './server-session.ts';

/** Messages as they come, without a queue between. */
export interface StreamListener<Request> {
  onMessage(request: Request): void;
  /** The peer will send no more; it may still be listening. */
  onEnd(): void;
}

/** So many bytes may wait in the queue before the peer is held back. */
const QUEUE_BYTES = 65_536;

interface Queued {
  readonly request: object;
  readonly bytes: number;
}

/**
 * A call with a stream of requests or answers.
 *
 * Requests come by iterating `requests`, or, faster, through `listen`; one of them, not both. `send`
 * answers false when the peer does not keep up: wait for `drained` before sending much more.
 */
export class StreamCall extends ServerCall {
  readonly #handle: StreamingHandler;
  readonly #reader: MessageReader;
  readonly #queue = new BoundedQueue<Queued>(Number.POSITIVE_INFINITY);
  #queuedBytes = 0;
  /** Received, and not credited because the queue was long. */
  #owed = 0;
  #listener: StreamListener<object> | undefined = undefined;
  #drained: Deferred<void> | undefined = undefined;
  #unpark: (() => void) | undefined = undefined;

  constructor(
    stream: Stream,
    session: ServerSession,
    head: RequestHead,
    route: Route & { readonly type: 'stream' },
    owner: CallOwner,
  ) {
    super(stream, session, head, route.method, owner);
    stream.holdCredit = true;
    this.#handle = route.handle;
    this.#reader = new MessageReader({
      bytesMax: owner.messageBytesMax,
      decompress: head.encoding === 'gzip' ? owner.decompress : undefined,
    });
  }

  /** Calls the handler; once, by the server. */
  start(): void {
    try {
      this.#handle(this)?.then(
        () => this.end(),
        (error: unknown) => this.fail(error),
      );
    } catch (error) {
      this.fail(error);
    }
  }

  // ─── in ──────────────────────────────────────────────────────────────────────────────────────

  /** Requests, in order; ends when the peer has said all, throws when it cancels. */
  requests<Request extends object>(): AsyncIterable<Request> {
    return { [Symbol.asyncIterator]: () => this.#iterate<Request>() };
  }

  async *#iterate<Request extends object>(): AsyncGenerator<Request, void, void> {
    for await (const { request, bytes } of this.#queue) {
      this.#queuedBytes -= bytes;
      if (this.#owed > 0 && this.#queuedBytes < QUEUE_BYTES) {
        this.stream.credit(this.#owed);
        this.#owed = 0;
      }
      yield request as Request;
    }
  }

  /** The one request of a call that has one. */
  async request<Request extends object>(): Promise<Request> {
    for await (const request of this.requests<Request>()) return request;
    throw grpcError(INTERNAL, 'the call has no message');
  }

  /** Must be called before the handler returns or first waits. */
  listen<Request extends object>(listener: StreamListener<Request>): void {
    this.#listener = listener as unknown as StreamListener<object>;
  }

  onData(bytes: Bytes, end: boolean): void {
    if (this.over) return;
    try {
      const reader = this.#reader;
      reader.push(bytes);
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        this.#received(decode(this.method.request, message), message.length);
        if (this.over) return;
      }
    } catch (error) {
      this.abort(HoldfastError.from(error));
      this.fail(error);
      return;
    }
    if (this.#queuedBytes < QUEUE_BYTES) this.stream.credit(bytes.length);
    else this.#owed += bytes.length;
    if (end) this.onEnd();
  }

  #received(request: object, bytes: number): void {
    if (this.#listener) this.#listener.onMessage(request);
    else {
      this.#queuedBytes += bytes;
      this.#queue.push({ request, bytes });
    }
  }

  onEnd(): void {
    if (this.over) return;
    try {
      this.#reader.end();
      if (this.#listener) this.#listener.onEnd();
      else this.#queue.end();
    } catch (error) {
      this.fail(error);
    }
  }

  // ─── out ─────────────────────────────────────────────────────────────────────────────────────

  /** True when more may be sent at once. */
  send(response: object): boolean {
    if (this.over) return false;
    let framed: Bytes;
    try {
      framed = encodeFramed(this.method.response, response);
    } catch (error) {
      this.fail(error);
      return false;
    }
    return this.sendFramed(framed);
  }

  /** One or more framed messages; the bytes must not change any more. */
  sendFramed(framed: Bytes): boolean {
    if (this.over) return false;
    const { stream } = this;
    if (!stream.sentHeaders) stream.sendHeaders(RESPONSE_HEADERS);
    return stream.sendData(framed) && !stream.blocked;
  }

  get blocked(): boolean {
    return this.stream.blocked;
  }

  /** Bytes that were sent and wait for the peer. */
  get backlog(): number {
    return this.stream.queuedBytes;
  }

  /** Resolves when the peer has taken what was sent; rejects when the call is over first. */
  drained(): Promise<void> {
    if (this.over) return Promise.reject(new HoldfastError('cancelled', 'the call is over'));
    if (!this.stream.blocked) return Promise.resolve();
    this.#drained ??= deferred();
    return this.#drained.promise;
  }

  /** Resolves when the peer has read enough of all it asked for; at once while it keeps up. */
  room(): Promise<void> {
    if (this.over || !this.session.behind) return Promise.resolve();
    return new Promise((resolve) => {
      this.whenRoom(resolve);
    });
  }

  /** Calls `begin` then, or when the call is over. One at a time. */
  whenRoom(begin: () => void): void {
    if (this.over) return;
    const cancel = this.session.whenRoom(() => {
      this.#unpark = undefined;
      begin();
    });
    this.#unpark = () => {
      cancel();
      begin();
    };
  }

  override onDrain(): void {
    this.#drained?.resolve();
    this.#drained = undefined;
    super.onDrain();
  }

  /** Ends the call well. */
  end(): void {
    if (this.over) return;
    const { stream } = this;
    if (!stream.sentHeaders) stream.sendHeaders(RESPONSE_HEADERS);
    stream.sendTrailers(OK_TRAILERS);
    this.finish(OK);
  }

  protected override finish(code: number): void {
    super.finish(code);
    this.#unpark?.();
    this.#unpark = undefined;
    const error = new HoldfastError('cancelled', 'the call is over');
    // The peer may still send into a call that has ended; nobody reads it, so nothing waits.
    this.stream.holdCredit = false;
    this.#queue.fail(error);
    if (!this.#drained) return;
    this.#drained.promise.catch(() => {});
    this.#drained.reject(error);
    this.#drained = undefined;
  }
}
