/** Plain HTTP/2: the streams of a connection that are not gRPC. */
import type { TLSSocket } from 'node:tls';
import { type Bytes, utf8 } from '../base/bytes.ts';
import { type Deferred, deferred } from '../base/deferred.ts';
import { BoundedQueue } from '../base/queue.ts';
import { HoldfastError } from '../model/errors.ts';
import type { StreamHandler } from '../wire/http2/connection.ts';
import { INTERNAL_ERROR, NO_ERROR } from '../wire/http2/errors.ts';
import { type HeaderList, headerValue } from '../wire/http2/headers.ts';
import type { Stream } from '../wire/http2/stream.ts';
import type { ServerSession } from '../wire/net/server-session.ts';
import type { Connection } from './backend.ts';
import type { Endpoints } from './endpoints.ts';
import { connectionOn, type Exchange, type Fields } from './exchange.ts';

export interface Http2Options {
  readonly endpoints: Endpoints;
  /** Paths of gRPC methods: who calls them without gRPC's media type is told that. */
  readonly grpcPaths: ReadonlyMap<string, unknown>;
  readonly onFault: (error: unknown) => void;
}

/** What the unfinished requests of one connection may take together. */
const HELD_BYTES_MAX = 67_108_864;
const EMPTY: Bytes = new Uint8Array(0);

/** One per connection. */
export class PlainStreams implements StreamHandler {
  readonly session: ServerSession;
  readonly #options: Http2Options;
  heldBytes = 0;

  constructor(session: ServerSession, options: Http2Options) {
    this.session = session;
    this.#options = options;
  }

  onHeaders(stream: Stream, headers: HeaderList, end: boolean): void {
    const { endpoints, grpcPaths, onFault } = this.#options;
    const exchange = new Http2Exchange(this, stream, headers);
    stream.user = exchange;
    if (end) exchange.bodyEnded();
    if (grpcPaths.has(exchange.target)) {
      exchange.head(415, {});
      exchange.end();
      return;
    }
    endpoints.handle(exchange).catch((error: unknown) => {
      onFault(error);
      exchange.destroy();
    });
  }

  onData(stream: Stream, bytes: Bytes, end: boolean): void {
    const exchange = exchangeOn(stream);
    exchange?.received(bytes);
    if (end) exchange?.bodyEnded();
  }

  onTrailers(stream: Stream): void {
    exchangeOn(stream)?.bodyEnded();
  }

  onReset(stream: Stream): void {
    exchangeOn(stream)?.gone();
  }

  onDrain(stream: Stream): void {
    exchangeOn(stream)?.drained();
  }
}

/** A stream that was answered before it got so far has none. */
function exchangeOn({ user }: Stream): Http2Exchange | undefined {
  return user instanceof Http2Exchange ? user : undefined;
}

class Http2Exchange implements Exchange {
  readonly method: string;
  readonly target: string;
  readonly #streams: PlainStreams;
  readonly #stream: Stream;
  readonly #headers: HeaderList;
  readonly #body = new BoundedQueue<Bytes>(Number.POSITIVE_INFINITY);
  readonly #gone = new AbortController();
  #room: Deferred<void> | undefined;
  #unpark: (() => void) | undefined;
  #heldBytes = 0;
  /** The answer is whole, though not all of it may have been taken. */
  #ended = false;
  #over = false;

  constructor(streams: PlainStreams, stream: Stream, headers: HeaderList) {
    this.#streams = streams;
    this.#stream = stream;
    this.#headers = headers;
    this.method = headerValue(headers, ':method') ?? '';
    this.target = headerValue(headers, ':path') ?? '';
    // The peer may send no more ahead than the window, and goes on as the body is read.
    stream.holdCredit = true;
  }

  get host(): string | undefined {
    return this.header(':authority') ?? this.header('host');
  }

  header(name: string): string | undefined {
    return headerValue(this.#headers, name);
  }

  get tls(): TLSSocket | undefined {
    return this.#streams.session.tls;
  }

  get address(): string {
    return this.#streams.session.remoteAddress;
  }

  get connection(): Connection {
    return connectionOn(this.#streams.session.socket);
  }

  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  // ─── in ──────────────────────────────────────────────────────────────────────────────────────

  get body(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this.#parts() };
  }

  async *#parts(): AsyncGenerator<Uint8Array> {
    for await (const bytes of this.#body) {
      this.#stream.credit(bytes.length);
      yield bytes;
    }
  }

  received(bytes: Bytes): void {
    // Nobody reads what comes behind an answer.
    if (this.#ended) this.#stream.credit(bytes.length);
    else this.#body.push(bytes.slice());
  }

  bodyEnded(): void {
    this.#body.end();
  }

  hold(bytes: number): boolean {
    this.#heldBytes += bytes;
    this.#streams.heldBytes += bytes;
    return this.#streams.heldBytes <= HELD_BYTES_MAX;
  }

  room(): Promise<void> {
    const { session } = this.#streams;
    if (this.over || !session.crowded) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = session.whenRoom(resolve);
      this.#unpark = () => {
        cancel();
        resolve();
      };
    });
  }

  // ─── out ─────────────────────────────────────────────────────────────────────────────────────

  get headSent(): boolean {
    return this.#stream.sentHeaders;
  }

  get over(): boolean {
    return this.#over || this.#ended;
  }

  head(status: number, fields: Fields): void {
    this.#stream.sendHeaders([[':status', String(status)], ...Object.entries(fields)]);
  }

  async write(text: string): Promise<void> {
    if (this.over || this.method === 'HEAD') return;
    this.#stream.sendData(utf8(text));
    if (!this.#stream.blocked) return;
    this.#room ??= deferred();
    await this.#room.promise;
  }

  end(text = ''): void {
    if (this.over) return;
    this.#ended = true;
    if (text !== '' && this.method !== 'HEAD') this.#stream.sendData(utf8(text));
    // It may have been taken, and finished, while it was sent.
    if (!this.#over && !this.#stream.blocked) this.#finish();
  }

  destroy(): void {
    if (this.#over) return;
    this.#stream.reset(INTERNAL_ERROR);
    this.gone();
  }

  drained(): void {
    this.#room?.resolve();
    this.#room = undefined;
    if (this.#ended && !this.#over) this.#finish();
  }

  gone(): void {
    this.#close();
    this.#room?.resolve();
  }

  #finish(): void {
    const stream = this.#stream;
    stream.sendData(EMPTY, true);
    // What the peer may still send is of no interest.
    if (stream.canReceive) stream.reset(NO_ERROR);
    this.#close();
  }

  #close(): void {
    if (this.#over) return;
    this.#over = true;
    this.#unpark?.();
    this.#streams.heldBytes -= this.#heldBytes;
    const error = new HoldfastError('cancelled', 'the caller went away');
    this.#body.fail(error);
    this.#gone.abort(error);
  }
}
