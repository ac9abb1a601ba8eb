/** One client connection: calls on streams, calls in line, and watching whether the peer lives. */
import type { Socket } from 'node:net';
import type { Bytes } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import { Connection, type StreamHandler } from '../http2/connection.ts';
import { CANCEL, ENHANCE_YOUR_CALM, errorName, REFUSED_STREAM } from '../http2/errors.ts';
import { type HeaderList, outgoingProblem } from '../http2/headers.ts';
import type { Limits } from '../http2/limits.ts';
import type { Stream } from '../http2/stream.ts';
import { Link } from './link.ts';

/** What becomes of a call. `end`: the peer has said everything. */
export interface CallHandler {
  onHeaders(headers: HeaderList, end: boolean): void;
  onData(bytes: Bytes, end: boolean): void;
  onTrailers(headers: HeaderList): void;
  /** `code`: the HTTP/2 error code of a reset, undefined when the connection was lost. */
  onFailed(error: HoldfastError, code: number | undefined): void;
  onInterim?(headers: HeaderList): void;
  /** What was queued has been written: more may follow. */
  onDrain?(): void;
}

export interface RequestOptions {
  /** The headers are all there is to send. */
  readonly end?: boolean;
  /** The peer may send only what was credited by `Call.credit`. */
  readonly holdCredit?: boolean;
}

export interface SessionOptions {
  readonly clock: Clock;
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly keepaliveIdle: boolean;
  readonly maxQueued: number;
  readonly limits: Partial<Limits>;
  readonly streamWindow: number | undefined;
  readonly connectionWindow: number | undefined;
  readonly onHandlerError: (error: unknown) => void;
}

/** A peer that does not close its side after we have closed ours is not waited for longer. */
const LINGER_MS = 2_000;

/** A request, from the line to its stream. */
export class Call {
  readonly handler: CallHandler;
  readonly #holdCredit: boolean;
  #stream: Stream | undefined;
  #cancelled = false;
  /** As long as the call waits in line: its headers, and what was sent already. */
  headers: HeaderList;
  #waiting: Bytes[] | undefined;
  #end: boolean;
  #trailers: HeaderList | undefined;

  constructor(headers: HeaderList, handler: CallHandler, options: RequestOptions) {
    this.headers = headers;
    this.handler = handler;
    this.#end = options.end ?? false;
    this.#holdCredit = options.holdCredit ?? false;
  }

  get cancelled(): boolean {
    return this.#cancelled;
  }

  /** False when the call has ended or may not send any more. */
  sendData(bytes: Bytes, end = false): boolean {
    if (this.#stream) return this.#stream.sendData(bytes, end);
    if (this.#end || this.#cancelled) return false;
    this.#waiting ??= [];
    this.#waiting.push(bytes);
    this.#end = end;
    return true;
  }

  sendTrailers(headers: HeaderList): boolean {
    if (this.#stream) return this.#stream.sendTrailers(headers);
    if (this.#end || this.#cancelled) return false;
    this.#trailers = headers;
    this.#end = true;
    return true;
  }

  /** Something is queued: a sender of much should wait for `onDrain`. */
  get blocked(): boolean {
    return this.#stream ? this.#stream.blocked : (this.#waiting?.length ?? 0) > 0;
  }

  /** With `holdCredit`: so many bytes have been consumed. */
  credit(bytes: number): void {
    this.#stream?.credit(bytes);
  }

  /** Ends the call; there is no further event on it. */
  cancel(code: number = CANCEL): void {
    this.#cancelled = true;
    this.#stream?.reset(code);
    this.#waiting = undefined;
  }

  /** Its turn has come. */
  start(connection: Connection): void {
    const bare = this.#end && !this.#waiting && !this.#trailers;
    const stream = connection.request(this.headers, bare);
    stream.user = this;
    stream.holdCredit = this.#holdCredit;
    this.#stream = stream;
    const waiting = this.#waiting;
    if (!waiting && !this.#trailers) return;
    const last = this.#trailers ? -1 : (waiting?.length ?? 0) - 1;
    waiting?.forEach((bytes, i) => {
      stream.sendData(bytes, this.#end && i === last);
    });
    if (this.#trailers) stream.sendTrailers(this.#trailers);
    this.#waiting = undefined;
  }
}

/** The machine's stream events, for the call of each stream. */
class Calls implements StreamHandler {
  readonly #session: ClientSession;

  constructor(session: ClientSession) {
    this.#session = session;
  }

  onHeaders(stream: Stream, headers: HeaderList, end: boolean): void {
    (stream.user as Call).handler.onHeaders(headers, end);
  }

  onData(stream: Stream, bytes: Bytes, end: boolean): void {
    (stream.user as Call).handler.onData(bytes, end);
  }

  onTrailers(stream: Stream, headers: HeaderList): void {
    (stream.user as Call).handler.onTrailers(headers);
  }

  onInterim(stream: Stream, headers: HeaderList): void {
    (stream.user as Call).handler.onInterim?.(headers);
  }

  onDrain(stream: Stream): void {
    (stream.user as Call).handler.onDrain?.();
  }

  onReset(stream: Stream, code: number): void {
    const { connection, lostBecause } = this.#session;
    const call = stream.user as Call;
    if (connection.closed) {
      call.handler.onFailed(lostError(lostBecause, code), undefined);
    } else call.handler.onFailed(resetError(code), code);
  }
}

/** The peer, or a violation of the rules, ended one stream. */
function resetError(code: number): HoldfastError {
  const rejected = code === REFUSED_STREAM;
  const kind =
    code === ENHANCE_YOUR_CALM
      ? 'resource-exhausted'
      : code === CANCEL
        ? 'cancelled'
        : 'unavailable';
  return new HoldfastError(kind, `the stream was reset: ${errorName(code)}`, {
    outcome: rejected ? 'rejected' : 'unknown',
  });
}

function lostError(because: HoldfastError | undefined, code: number): HoldfastError {
  const outcome = code === REFUSED_STREAM ? 'rejected' : 'unknown';
  const message = because?.message ?? 'the connection was lost';
  return new HoldfastError(because?.code ?? 'unavailable', message, { outcome, cause: because });
}

export class ClientSession {
  readonly connection: Connection;
  readonly #link: Link;
  readonly #options: SessionOptions;
  readonly #clock: Clock;
  #line: Call[] = [];
  #lineHead = 0;
  #pingedAtMs = -1;
  #cancelCheck: () => void = () => {};
  #closing = false;
  #lingering = false;
  /** Why the connection ended, as far as we know. */
  lostBecause: HoldfastError | undefined;
  readonly #ready: Deferred<void> = deferred();
  readonly #closed: Deferred<HoldfastError | undefined> = deferred();

  constructor(socket: Socket, options: SessionOptions) {
    this.#options = options;
    this.#clock = options.clock;
    const { streamWindow, connectionWindow } = options;
    this.connection = new Connection('client', {
      handler: new Calls(this),
      control: {
        onOutput: () => this.#link.scheduleFlush(),
        onHandlerError: options.onHandlerError,
        onSettings: () => this.#ready.resolve(),
        onGoaway: (_last, code, debug) => this.#goneAway(code, debug),
        onClosed: (fault) => {
          if (!fault) return;
          const text = `${errorName(fault.code)}: ${fault.reason}`;
          this.lostBecause ??= new HoldfastError('unavailable', text);
          // Calls have failed already; nobody should wait for the socket of a peer gone mad.
          this.#finish();
        },
      },
      limits: options.limits,
      ...(streamWindow === undefined ? {} : { streamWindow }),
      ...(connectionWindow === undefined ? {} : { connectionWindow }),
    });
    this.#link = new Link(socket, this.connection, this.#clock, {
      onTurn: () => this.#turned(),
      onGone: () => {
        this.#cancelCheck();
        this.#finish();
      },
      onHandlerError: options.onHandlerError,
    });
    socket.on('error', (error) => {
      this.lostBecause ??= new HoldfastError('unavailable', error.message, { cause: error });
    });
    this.#ready.promise.catch(() => {});
    this.#link.flush();
    this.#scheduleCheck();
  }

  /** Settles when the peer's SETTINGS have come, or the connection is lost before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Resolves when the connection is gone; with an error unless we closed it. */
  get closed(): Promise<HoldfastError | undefined> {
    return this.#closed.promise;
  }

  /** No call will be accepted here any more: closing, told to go away, or gone. */
  get exhausted(): boolean {
    return this.#closing || this.connection.exhausted;
  }

  get active(): number {
    return this.connection.openStreams;
  }

  get queued(): number {
    return this.#line.length - this.#lineHead;
  }

  /**
   * Starts a call, or puts it in line. Throws (`outcome: 'rejected'`) when headers are malformed, the
   * line is full, or the session takes no more calls.
   */
  request(headers: HeaderList, handler: CallHandler, options: RequestOptions = {}): Call {
    if (this.exhausted) {
      throw new HoldfastError(
        'unavailable',
        this.lostBecause?.message ?? 'the connection is closed',
      );
    }
    const call = new Call(headers, handler, options);
    if (this.queued === 0 && this.connection.canRequest) {
      call.start(this.connection);
      return call;
    }
    if (this.queued >= this.#options.maxQueued) {
      throw new HoldfastError('resource-exhausted', 'too many calls wait for a stream');
    }
    const problem = outgoingProblem(headers);
    if (problem) throw new HoldfastError('invalid-argument', problem);
    this.#line.push(call);
    return call;
  }

  /** Takes no more calls; resolves when those under way have ended and the socket is closed. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#turned();
    await this.#closed.promise;
  }

  /** Ends everything now; calls under way fail with this error. */
  destroy(error: HoldfastError = new HoldfastError('closed', 'the client was closed')): void {
    this.lostBecause ??= error;
    this.#closing = true;
    this.connection.close();
    this.#link.flush();
    this.#link.destroy();
  }

  #turned(): void {
    const { connection } = this;
    while (this.queued > 0 && connection.canRequest) {
      const call = this.#line[this.#lineHead++]!;
      if (!call.cancelled) this.#start(call);
    }
    if (this.#lineHead > 0 && this.queued === 0) {
      this.#line = [];
      this.#lineHead = 0;
    }
    if (connection.exhausted && this.queued > 0) this.#failLine();
    const finished = connection.openStreams === 0 && this.queued === 0;
    if (finished && (this.#closing || connection.exhausted)) this.#link.end();
    else if (connection.hasOutput && !this.#link.blocked) this.#link.scheduleFlush();
    if (this.#link.ended) this.#linger();
  }

  /** The peer's limit on headers may have shrunk while the call stood in line. */
  #start(call: Call): void {
    try {
      call.start(this.connection);
    } catch (error) {
      call.handler.onFailed(HoldfastError.from(error, 'rejected'), undefined);
    }
  }

  #goneAway(code: number, debug: string): void {
    const reason = debug === '' ? errorName(code) : `${errorName(code)}: ${debug}`;
    this.lostBecause ??= new HoldfastError('unavailable', `the peer goes away: ${reason}`);
  }

  #failLine(): void {
    const calls = this.#line.slice(this.#lineHead);
    this.#line = [];
    this.#lineHead = 0;
    for (const call of calls) {
      if (!call.cancelled)
        call.handler.onFailed(lostError(this.lostBecause, REFUSED_STREAM), undefined);
    }
  }

  /** Idempotent: promises settle once, and the line is empty afterwards. */
  #finish(): void {
    this.#failLine();
    const error = this.#closing && !this.lostBecause ? undefined : lostError(this.lostBecause, 0);
    this.#ready.reject(
      new HoldfastError(error?.code ?? 'closed', error?.message ?? 'the client was closed', {
        cause: error,
      }),
    );
    this.#closed.resolve(error);
  }

  #linger(): void {
    if (this.#lingering) return;
    this.#lingering = true;
    this.#cancelCheck();
    const atMs = this.#clock.now() + LINGER_MS;
    this.#cancelCheck = this.#clock.wakeAt(atMs, () => this.#link.destroy());
  }

  #scheduleCheck(): void {
    const everyMs = Math.min(this.#options.keepaliveMs, this.#options.keepaliveTimeoutMs) / 2;
    this.#cancelCheck = this.#clock.wakeAt(this.#clock.now() + everyMs, () => {
      if (this.#link.ended) {
        this.#linger();
        return;
      }
      this.#scheduleCheck();
      this.#check(this.#clock.now());
    });
  }

  /** A peer that has stalled answers no ping; a call of it must not wait forever. */
  #check(now: number): void {
    const { keepaliveMs, keepaliveTimeoutMs, keepaliveIdle } = this.#options;
    const heardMs = this.#link.receivedAtMs;
    if (this.#pingedAtMs >= 0 && heardMs < this.#pingedAtMs) {
      if (now - this.#pingedAtMs < keepaliveTimeoutMs) return;
      this.destroy(new HoldfastError('unavailable', 'the peer does not answer any more'));
      return;
    }
    this.#pingedAtMs = -1;
    if (now - heardMs < keepaliveMs) return;
    if (!keepaliveIdle && this.connection.openStreams === 0) return;
    this.#pingedAtMs = now;
    this.connection.ping();
  }
}
