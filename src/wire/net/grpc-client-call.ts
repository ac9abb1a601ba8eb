/**
 * One call on a gRPC client, from its request to its status.
 *
 * A call ends once. Errors carry `outcome`: `rejected` when nothing can have happened (refused before
 * it was sent, an answer that says so, or a call that only reads), `unknown` otherwise.
 */
import type { Bytes } from '../../base/bytes.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { BoundedQueue } from '../../base/queue.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';
import type { DeadlineSlot, Expiring } from '../grpc/deadlines.ts';
import { MessageReader, wholeMessage } from '../grpc/message-reader.ts';
import type { Encoding } from '../grpc/request.ts';
import {
  NO_MESSAGE,
  NO_TRAILERS,
  readResponse,
  readTrailers,
  TWO_MESSAGES,
} from '../grpc/response.ts';
import type { HeaderList } from '../http2/headers.ts';
import { decode, encodeFramed } from '../messages/codec.ts';
import type { Method } from '../messages/descriptor.ts';
import { type CallEffect, errorOf, OK, type RpcStatus } from '../messages/status.ts';
import type { Call, CallHandler } from './client-session.ts';
import { gunzip } from './gzip.ts';

/** What calls need of their client. */
export interface ClientOwner {
  readonly messageBytesMax: number;
  ended(call: ClientCall): void;
}

const EMPTY_FRAME: Bytes = new Uint8Array(0);

export abstract class ClientCall implements CallHandler, Expiring {
  readonly method: Method;
  readonly effect: CallEffect;
  protected readonly owner: ClientOwner;
  deadlineNext: Expiring | undefined = undefined;
  deadlinePrevious: Expiring | undefined = undefined;
  deadlineSlot: DeadlineSlot | undefined = undefined;
  /** The stream; absent while there is no connection yet. */
  protected call: Call | undefined = undefined;
  protected over = false;
  protected encoding: Encoding = 'identity';
  #signal: AbortSignal | undefined = undefined;
  #onAbort: (() => void) | undefined = undefined;

  constructor(method: Method, effect: CallEffect, owner: ClientOwner) {
    this.method = method;
    this.effect = effect;
    this.owner = owner;
  }

  get isOver(): boolean {
    return this.over;
  }

  /** Once there is a stream (or a place in line for one). */
  attach(call: Call): void {
    this.call = call;
  }

  watch(signal: AbortSignal): void {
    this.#signal = signal;
    this.#onAbort = () => this.giveUp(abortError(signal, this.openOutcome()));
    signal.addEventListener('abort', this.#onAbort, { once: true });
    if (signal.aborted) this.#onAbort();
  }

  onDeadline(): void {
    const outcome = this.openOutcome();
    this.giveUp(new HoldfastError('deadline-exceeded', 'no answer came in time', { outcome }));
  }

  /** What is known when no answer came: a call that was never given to a connection did nothing. */
  protected openOutcome(): 'rejected' | 'unknown' {
    return this.call === undefined || this.effect === 'read' ? 'rejected' : 'unknown';
  }

  /** Ends the call from our side. */
  giveUp(error: HoldfastError): void {
    if (this.over) return;
    this.call?.cancel();
    this.fail(error);
  }

  onHeaders(headers: HeaderList, end: boolean): void {
    if (this.over) return;
    const head = readResponse(headers, end);
    if (head.type === 'open') this.encoding = head.encoding;
    else {
      if (!end) this.call?.cancel();
      this.finished(head.status);
    }
  }

  onTrailers(trailers: HeaderList): void {
    if (!this.over) this.finished(readTrailers(trailers));
  }

  onFailed(error: HoldfastError): void {
    if (this.over) return;
    const harmless = this.effect === 'read' && error.outcome === 'unknown';
    this.fail(harmless ? new HoldfastError(error.code, error.message, { cause: error }) : error);
  }

  abstract onData(bytes: Bytes, end: boolean): void;
  /** The status has come. */
  protected abstract finished(status: RpcStatus): void;
  abstract fail(error: HoldfastError): void;

  protected statusError(status: RpcStatus): HoldfastError {
    return errorOf(status, this.effect);
  }

  /** Once, before the caller is told. */
  protected close(): void {
    this.over = true;
    if (this.#onAbort) this.#signal?.removeEventListener('abort', this.#onAbort);
    this.owner.ended(this);
  }
}

/** A call with one answer. */
export class UnaryClientCall extends ClientCall {
  readonly #resolve: (response: never) => void;
  readonly #reject: (error: HoldfastError) => void;
  #response: object | undefined = undefined;
  #reader: MessageReader | undefined = undefined;

  constructor(
    method: Method,
    effect: CallEffect,
    owner: ClientOwner,
    resolve: (response: never) => void,
    reject: (error: HoldfastError) => void,
  ) {
    super(method, effect, owner);
    this.#resolve = resolve;
    this.#reject = reject;
  }

  onData(bytes: Bytes, end: boolean): void {
    if (this.over) return;
    try {
      const whole =
        this.#reader === undefined ? wholeMessage(bytes, this.owner.messageBytesMax) : undefined;
      if (whole) this.#received(whole);
      else this.#gather(bytes);
    } catch (error) {
      // What the server did is done, whatever is wrong with its answer.
      const fault = HoldfastError.from(error);
      this.giveUp(
        new HoldfastError(fault.code, fault.message, { outcome: this.openOutcome(), cause: fault }),
      );
      return;
    }
    if (end) this.finished(NO_TRAILERS);
  }

  #gather(bytes: Bytes): void {
    this.#reader ??= new MessageReader({
      bytesMax: this.owner.messageBytesMax,
      decompress: this.encoding === 'gzip' ? gunzip : undefined,
    });
    const reader = this.#reader;
    reader.push(bytes);
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      this.#received(message);
    }
  }

  #received(message: Bytes): void {
    if (this.#response) throw errorOf(TWO_MESSAGES, this.effect);
    this.#response = decode(this.method.response, message);
  }

  protected finished(status: RpcStatus): void {
    if (status.code !== OK) this.fail(this.statusError(status));
    else if (!this.#response) this.fail(this.statusError(NO_MESSAGE));
    else {
      this.close();
      this.#resolve(this.#response as never);
    }
  }

  fail(error: HoldfastError): void {
    if (this.over) return;
    this.close();
    this.#reject(error);
  }
}

interface Arrived {
  readonly response: object;
  readonly bytes: number;
}

/** So many bytes may wait for the reader before the server is held back. */
const QUEUE_BYTES = 262_144;

/** Answers as they come, without a queue between. `onEnd` is called once, last. */
export interface ClientListener<Response> {
  onMessage(response: Response): void;
  /** Undefined: the server ended the call well. */
  onEnd(error: HoldfastError | undefined): void;
}

/**
 * A call with streams. Answers come by iterating `responses` (which throws when the call fails), or
 * through a listener given at the start. `send` answers false when the server does not keep up.
 */
export class StreamClientCall<
  Request extends object = object,
  Response extends object = object,
> extends ClientCall {
  readonly #queue = new BoundedQueue<Arrived>(Number.POSITIVE_INFINITY);
  #queuedBytes = 0;
  #owed = 0;
  readonly #listener: ClientListener<Response> | undefined;
  #reader: MessageReader | undefined = undefined;
  /** Sent before there was a connection. */
  #unsent: Bytes[] = [];
  #halfClosed = false;
  #drained: Deferred<void> | undefined = undefined;

  constructor(
    method: Method,
    effect: CallEffect,
    owner: ClientOwner,
    listener: ClientListener<Response> | undefined,
  ) {
    super(method, effect, owner);
    this.#listener = listener;
  }

  override attach(call: Call): void {
    super.attach(call);
    const unsent = this.#unsent;
    this.#unsent = [];
    for (const framed of unsent) call.sendData(framed);
    if (this.#halfClosed) call.sendData(EMPTY_FRAME, true);
  }

  /** True when more may be sent at once. False too when the call is over. */
  send(request: Request): boolean {
    if (this.over || this.#halfClosed) return false;
    const framed = encodeFramed(this.method.request, request);
    if (!this.call) {
      this.#unsent.push(framed);
      return false;
    }
    return this.call.sendData(framed) && !this.call.blocked;
  }

  /** Resolves when the server has taken what was sent; rejects when the call is over first. */
  drained(): Promise<void> {
    if (this.over) return Promise.reject(new HoldfastError('cancelled', 'the call is over'));
    if (this.call && !this.call.blocked) return Promise.resolve();
    this.#drained ??= deferred();
    return this.#drained.promise;
  }

  onDrain(): void {
    this.#drained?.resolve();
    this.#drained = undefined;
  }

  /** There will be no further request; answers may still come. */
  halfClose(): void {
    if (this.over || this.#halfClosed) return;
    this.#halfClosed = true;
    this.call?.sendData(EMPTY_FRAME, true);
  }

  /** Ends the call; iterating throws `cancelled` after what has arrived. */
  cancel(): void {
    this.giveUp(
      new HoldfastError('cancelled', 'the call was cancelled', { outcome: this.openOutcome() }),
    );
  }

  responses(): AsyncIterable<Response> {
    return { [Symbol.asyncIterator]: () => this.#iterate() };
  }

  async *#iterate(): AsyncGenerator<Response, void, void> {
    try {
      for await (const { response, bytes } of this.#queue) {
        this.#queuedBytes -= bytes;
        if (this.#owed > 0 && this.#queuedBytes < QUEUE_BYTES) {
          this.call?.credit(this.#owed);
          this.#owed = 0;
        }
        yield response as Response;
      }
    } finally {
      // Whoever stops reading wants no more; a call left open would hold its stream forever.
      this.cancel();
    }
  }

  onData(bytes: Bytes, end: boolean): void {
    if (this.over) return;
    try {
      this.#reader ??= new MessageReader({
        bytesMax: this.owner.messageBytesMax,
        decompress: this.encoding === 'gzip' ? gunzip : undefined,
      });
      const reader = this.#reader;
      reader.push(bytes);
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        this.#received(decode(this.method.response, message) as Response, message.length);
        if (this.over) return;
      }
    } catch (error) {
      this.giveUp(HoldfastError.from(error));
      return;
    }
    if (this.#queuedBytes < QUEUE_BYTES) this.call?.credit(bytes.length);
    else this.#owed += bytes.length;
    if (end) this.finished(NO_TRAILERS);
  }

  #received(response: Response, bytes: number): void {
    if (this.#listener) this.#listener.onMessage(response);
    else {
      this.#queuedBytes += bytes;
      this.#queue.push({ response, bytes });
    }
  }

  protected finished(status: RpcStatus): void {
    if (status.code !== OK) {
      this.fail(this.statusError(status));
      return;
    }
    this.close();
    this.#queue.end();
    this.#settle(new HoldfastError('closed', 'the server ended the call'));
    this.#listener?.onEnd(undefined);
  }

  fail(error: HoldfastError): void {
    if (this.over) return;
    this.close();
    this.#queue.fail(error);
    this.#settle(error);
    this.#listener?.onEnd(error);
  }

  protected override close(): void {
    super.close();
    // Our side may still be open, and the stream with it.
    if (!this.#halfClosed) this.call?.cancel();
  }

  #settle(error: HoldfastError): void {
    if (!this.#drained) return;
    this.#drained.promise.catch(() => {});
    this.#drained.reject(error);
    this.#drained = undefined;
  }
}
