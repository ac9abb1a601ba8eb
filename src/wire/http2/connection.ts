/**
 * One HTTP/2 connection (RFC 9113, RFC 7541) as a machine without I/O, for both roles: bytes in →
 * events and bytes out. Any cutting of the input into chunks gives the same events and output.
 *
 *   const connection = new Connection('server', { handler, control });
 *   connection.receive(chunk, now);             // calls the handlers, synchronously
 *   const bytes = connection.takeOutput();      // write them, then connection.giveBack(bytes)
 *
 * - `handler` gets the streams' events, `control` those of the connection. Handlers may send from
 *   inside an event and must not throw. Nothing is allocated per call beyond the stream itself.
 * - Per stream: `onHeaders` once (after any `onInterim`), `onData` any number of times, and then an
 *   end, which is the `end` of `onHeaders` or `onData`, or `onTrailers`. Or `onReset`, once, at any
 *   point, for whatever reason but our own `stream.reset()`; there is no event after it. Every stream
 *   that has begun ends in one of these ways, also when the connection is lost.
 * - `onReset` with REFUSED_STREAM means: surely not processed (refused, beyond the peer's last stream,
 *   or never left this process). Any other code leaves that open.
 * - Sending: `stream.sendHeaders(list, end)`, `sendData(bytes, end)`, `sendTrailers(list)`; a client
 *   opens a stream with `request(headers, end)` while `canRequest` holds. Freeze a header list that is
 *   sent again and again: it is encoded once. Received lists are shared by calls with the same
 *   headers: use their identity as a cache key, never change them.
 * - Received data are views of the chunk that was fed: valid as long as that memory is not reused.
 * - When anything is there to write outside of `receive`, `control.onOutput` says so once per turn.
 * - Time is the argument `now` of `receive`, in milliseconds; only rates depend on it.
 */
import { type Bytes, EMPTY, utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import {
  CANCEL,
  ENHANCE_YOUR_CALM,
  type Fault,
  INTERNAL_ERROR,
  NO_ERROR,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
} from './errors.ts';
import { PREFACE } from './frame.ts';
import { type HeaderList, headerValue, listSize, outgoingProblem } from './headers.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import { BufferPool } from './output.ts';
import { Receiver } from './receiver.ts';
import { Sender } from './sender.ts';
import { encodeSettings, INITIAL_SETTINGS, type Settings, WINDOW_MAX } from './settings.ts';
import { Stream, type StreamOwner } from './stream.ts';
import { StreamTable } from './stream-table.ts';

export type Role = 'client' | 'server';

/** What happens on streams. `end`: the peer will send no more on this stream. */
export interface StreamHandler {
  onHeaders(stream: Stream, headers: HeaderList, end: boolean): void;
  onData(stream: Stream, bytes: Bytes, end: boolean): void;
  /** Always the end of what the peer sends. */
  onTrailers(stream: Stream, headers: HeaderList): void;
  onReset(stream: Stream, code: number): void;
  /** A 1xx response; the real one follows. */
  onInterim?(stream: Stream, headers: HeaderList): void;
  /** Everything queued on the stream has been written. */
  onDrain?(stream: Stream): void;
}

/** What happens to the connection; for whoever does the I/O. */
export interface ControlHandler {
  /** The peer's settings have come, the first time or again. */
  onSettings?(settings: Settings): void;
  onPingAck?(payload: Bytes): void;
  onGoaway?(lastStream: number, code: number, debug: string): void;
  /** A handler threw at the end of the connection; anywhere else `receive` or `takeOutput` throws. */
  onHandlerError?(error: unknown): void;
  /** There is something to take, and no `receive` under way. */
  onOutput?(): void;
  /** The end; streams have had their resets. Without a fault: `close` or the transport's end. */
  onClosed?(fault: Fault | undefined): void;
}

export interface ConnectionOptions {
  readonly handler: StreamHandler;
  readonly control?: ControlHandler;
  readonly limits?: Partial<Limits>;
  /** How much a peer may send ahead on one stream, and on all together. */
  readonly streamWindow?: number;
  readonly connectionWindow?: number;
  /** Size of the table the peer may use to compress its headers. */
  readonly headerTableBytes?: number;
  /** Shared by the connections of one driver. */
  readonly buffers?: BufferPool;
}

export const DEFAULT_STREAM_WINDOW = 262_144;
export const DEFAULT_CONNECTION_WINDOW = 1_048_576;
const NO_PING: Bytes = new Uint8Array(8);

export class Connection implements StreamOwner {
  readonly role: Role;
  readonly limits: Limits;
  readonly #handler: StreamHandler;
  readonly #control: ControlHandler;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #streams = new StreamTable();
  /** Ours, as announced; and the peer's, as received. */
  readonly settings: Settings;
  #peer: Settings = INITIAL_SETTINGS;

  #nextId = 1;
  /** The first own stream of which nothing has been taken for writing. */
  #firstUnsent = 1;
  #ownStreams = 0;
  #receiving = false;
  #announced = false;
  #closed = false;
  #fault: Fault | undefined;
  /** The peer takes no request beyond this stream. */
  #peerLast = Number.POSITIVE_INFINITY;

  constructor(role: Role, options: ConnectionOptions) {
    this.role = role;
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#handler = options.handler;
    this.#control = options.control ?? {};
    this.settings = {
      headerTableSize: options.headerTableBytes ?? INITIAL_SETTINGS.headerTableSize,
      enablePush: role === 'server',
      maxConcurrentStreams:
        role === 'server' ? this.limits.concurrentStreams : INITIAL_SETTINGS.maxConcurrentStreams,
      initialWindowSize: options.streamWindow ?? DEFAULT_STREAM_WINDOW,
      maxFrameSize: this.limits.frameBytes,
      maxHeaderListSize: this.limits.headerListBytes,
    };
    this.#sender = new Sender(
      {
        onSentEnd: (stream) => this.#sentEnd(stream),
        onSentAll: (stream) => this.#handler.onDrain?.(stream),
      },
      options.buffers ?? new BufferPool(),
    );
    const window = options.connectionWindow ?? DEFAULT_CONNECTION_WINDOW;
    this.#receiver = new Receiver(this, this.#handler, this.#sender, window);
    if (role === 'client') this.#sender.raw(PREFACE);
    this.#sender.settings(encodeSettings(this.settings));
    this.#receiver.openWindow();
  }

  // ─── state ───────────────────────────────────────────────────────────────────────────────────

  get closed(): boolean {
    return this.#closed;
  }

  /** Why we gave up on the peer, if we did. */
  get fault(): Fault | undefined {
    return this.#fault;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  get peerSettings(): Settings {
    return this.#peer;
  }

  /** The peer's first SETTINGS have come: it does speak HTTP/2. */
  get ready(): boolean {
    return this.#receiver.settled;
  }

  /** The peer has begun something (a frame, a header block, the preface) and not finished it. */
  get midFrame(): boolean {
    return this.#receiver.midFrame;
  }

  /** Frames that have come whole, ever; a `midFrame` that stands while this does is a stalled peer. */
  get framesReceived(): number {
    return this.#receiver.framesReceived;
  }

  /** Bytes that wait for the transport or for windows. */
  get buffered(): number {
    return this.#sender.buffered + this.#sender.queuedBytes;
  }

  /** Bytes of data that wait on all streams together. */
  get queuedBytes(): number {
    return this.#sender.queuedBytes;
  }

  get hasOutput(): boolean {
    return this.#sender.buffered > 0;
  }

  /** The highest stream the peer has opened. */
  get peerHighest(): number {
    return this.#receiver.peerHighest;
  }

  /** Whether a request would be sent now; it may be possible later unless `exhausted`. */
  get canRequest(): boolean {
    return (
      !this.exhausted && this.#ownStreams < Math.min(this.#peer.maxConcurrentStreams, WINDOW_MAX)
    );
  }

  /** No request can ever be sent again on this connection. */
  get exhausted(): boolean {
    return this.#closed || this.#nextId > this.#peerLast || this.#nextId > WINDOW_MAX;
  }

  // ─── bytes ───────────────────────────────────────────────────────────────────────────────────

  receive(chunk: Bytes, now: number): void {
    if (this.#closed) return;
    // A Buffer's `slice` is a view, and its `subarray` slower; below, bytes are plain.
    const bytes =
      chunk.constructor === Uint8Array
        ? chunk
        : new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#receiving = true;
    try {
      this.#receiver.receive(bytes, now);
    } finally {
      this.#receiving = false;
    }
    if (this.#sender.buffered > this.limits.bufferedBytes) this.#overflow();
  }

  /** Everything there is to write, or an empty array. The caller owns it until `giveBack`. */
  takeOutput(): Bytes {
    this.#announced = false;
    this.#firstUnsent = this.#nextId;
    return this.#sender.take();
  }

  /** The bytes taken have been written: their memory is free again. */
  giveBack(taken: Bytes): void {
    this.#sender.giveBack(taken);
  }

  // ─── streams ─────────────────────────────────────────────────────────────────────────────────

  /**
   * Opens a stream. Throws `resource-exhausted` or `closed` unless `canRequest`, and
   * `invalid-argument` or `request-too-large` for headers that the peer would refuse.
   */
  request(headers: HeaderList, end = false): Stream {
    if (this.role !== 'client') throw new Error('a server makes no requests');
    if (this.exhausted) throw new HoldfastError('closed', 'the connection takes no more requests');
    if (!this.canRequest) {
      throw new HoldfastError('resource-exhausted', 'the peer allows no further stream now');
    }
    this.#checkOutgoing(headers);
    if (listSize(headers) > this.#peer.maxHeaderListSize) {
      throw new HoldfastError('request-too-large', 'more headers than the peer accepts');
    }
    const id = this.#nextId;
    this.#nextId += 2;
    this.#ownStreams++;
    const stream = new Stream(this, id, this.#peer.initialWindowSize, this.#receiver.initialWindow);
    stream.headRequest = headerValue(headers, ':method') === 'HEAD';
    stream.sentHeaders = true;
    this.#streams.add(stream);
    this.#sender.headers(stream, headers, end);
    this.#touch();
    return stream;
  }

  sendHeaders(stream: Stream, headers: HeaderList, end: boolean): boolean {
    if (!stream.canSend || this.#closed || stream.sentHeaders) return false;
    this.#checkOutgoing(headers);
    stream.sentHeaders = true;
    this.#sender.headers(stream, headers, end);
    this.#touch();
    return true;
  }

  sendInterim(stream: Stream, headers: HeaderList): boolean {
    if (!stream.canSend || this.#closed || stream.sentHeaders) return false;
    this.#checkOutgoing(headers);
    this.#sender.headers(stream, headers, false);
    this.#touch();
    return true;
  }

  sendData(stream: Stream, bytes: Bytes, end: boolean): boolean {
    if (!stream.canSend || this.#closed || !stream.sentHeaders) return false;
    if (bytes.length === 0 && !end) return true;
    const { bufferedBytes, queuedBytes } = this.limits;
    if (stream.bytesBeside > bufferedBytes || this.queuedBytes > queuedBytes) {
      this.#overflow();
      return false;
    }
    this.#sender.data(stream, bytes, end);
    this.#touch();
    return true;
  }

  sendTrailers(stream: Stream, headers: HeaderList): boolean {
    if (!stream.canSend || this.#closed || !stream.sentHeaders) return false;
    this.#checkOutgoing(headers);
    this.#sender.trailers(stream, headers);
    this.#touch();
    return true;
  }

  resetStream(stream: Stream, code: number): void {
    if (stream.state === 'closed' || this.#closed) return;
    this.#sender.resetStream(stream.id, code);
    this.#receiver.rememberReset(stream.id);
    this.retire(stream);
    this.#touch();
  }

  creditStream(stream: Stream, bytes: number): void {
    const credited = Math.min(bytes, stream.held);
    if (credited <= 0 || this.#closed) return;
    stream.held -= credited;
    this.#receiver.credit(stream, credited);
    this.#touch();
  }

  // ─── the connection as a whole ───────────────────────────────────────────────────────────────

  /** The peer answers with `onPingAck` and the same eight bytes. */
  ping(payload: Bytes = NO_PING): void {
    if (this.#closed) return;
    this.#sender.ping(payload, false);
    this.#touch();
  }

  /** First step of a graceful end (section 6.8): asks the peer to begin nothing new. */
  announceShutdown(): void {
    if (this.#closed || this.role === 'client') return;
    this.#sender.goaway(WINDOW_MAX, NO_ERROR, EMPTY);
    this.#touch();
  }

  /** Second step: what the peer opens from now on is refused. Open streams go on. */
  refuseNew(code: number = NO_ERROR, debug = ''): void {
    if (this.#closed) return;
    this.#receiver.refuseBeyond();
    this.#sender.goaway(this.#receiver.peerHighest, code, utf8(debug));
    this.#touch();
  }

  /** Ends the connection: GOAWAY, and every open stream gets a reset. */
  close(code: number = NO_ERROR, debug = ''): void {
    if (this.#closed) return;
    this.#sender.goaway(this.#receiver.peerHighest, code, utf8(debug));
    this.#end(undefined, CANCEL);
  }

  /** The transport is gone: there is nobody to write to. */
  transportClosed(): void {
    if (this.#closed) return;
    this.#sender.discard();
    this.#end(undefined, INTERNAL_ERROR);
  }

  /** Gives up on the peer. */
  fail(code: number, reason: string): void {
    if (this.#closed) return;
    this.#sender.goaway(this.#receiver.peerHighest, code, utf8(reason));
    this.#end({ code, reason }, code);
  }

  // ─── for the receiver ────────────────────────────────────────────────────────────────────────

  stream(id: number): Stream | undefined {
    return this.#streams.get(id);
  }

  get streams(): Iterable<Stream> {
    return this.#streams.all();
  }

  /** Whether an own stream with this id has ever been opened. */
  opened(id: number): boolean {
    return id < this.#nextId;
  }

  admit(id: number, now: number): Stream {
    const stream = new Stream(this, id, this.#peer.initialWindowSize, this.#receiver.initialWindow);
    stream.openedByPeer = true;
    stream.openedAtMs = now;
    this.#streams.add(stream);
    return stream;
  }

  /** The peer's side has ended. */
  receivedEnd(stream: Stream): void {
    if (stream.state === 'open') stream.state = 'half-closed-remote';
    else if (stream.state === 'half-closed-local') this.retire(stream);
  }

  #sentEnd(stream: Stream): void {
    if (stream.state === 'open') stream.state = 'half-closed-local';
    else if (stream.state === 'half-closed-remote') {
      this.#receiver.finished();
      this.retire(stream);
    }
  }

  /** Closed by both sides or by a reset: the connection keeps nothing of it. */
  retire(stream: Stream): void {
    if (stream.state === 'closed') return;
    stream.state = 'closed';
    this.#streams.delete(stream.id);
    if (this.role === 'client') this.#ownStreams--;
    if (stream.queuedBytes > 0 || stream.queue.length > 0) this.#sender.forget(stream);
    if (stream.held > 0) {
      const { held } = stream;
      stream.held = 0;
      this.#receiver.credit(stream, held);
    }
  }

  /** Answers false when the peer's new initial window makes a stream's window too large. */
  applyPeerSettings(settings: Settings): boolean {
    const change = settings.initialWindowSize - this.#peer.initialWindowSize;
    this.#peer = settings;
    this.#sender.frameBytes = settings.maxFrameSize;
    this.#sender.encoder.limitTable(settings.headerTableSize);
    if (change === 0) return true;
    for (const stream of this.#streams.all()) {
      stream.sendWindow += change;
      if (stream.sendWindow > WINDOW_MAX) return false;
      if (change > 0) this.#sender.enlist(stream);
    }
    return true;
  }

  settingsReceived(): void {
    this.#sender.settingsAck();
    this.#sender.pump();
    this.#control.onSettings?.(this.#peer);
  }

  pingAcknowledged(payload: Bytes): void {
    this.#control.onPingAck?.(payload);
  }

  goneAway(lastStream: number, code: number, debug: string): Fault | undefined {
    if (lastStream > this.#peerLast) {
      return { code: PROTOCOL_ERROR, reason: 'GOAWAY with a higher last stream than before' };
    }
    this.#peerLast = lastStream;
    if (this.role === 'client') {
      for (const stream of this.#streams.all()) {
        if (stream.id <= lastStream) continue;
        this.retire(stream);
        this.#handler.onReset(stream, REFUSED_STREAM);
      }
    }
    this.#control.onGoaway?.(lastStream, code, debug);
    return undefined;
  }

  // ─── inside ──────────────────────────────────────────────────────────────────────────────────

  #checkOutgoing(headers: HeaderList): void {
    if (this.#sender.encoder.knows(headers)) return;
    const problem = outgoingProblem(headers);
    if (problem)
      throw new HoldfastError('invalid-argument', `headers that cannot be sent: ${problem}`);
  }

  /** Says once per turn that there is something to write. */
  #touch(): void {
    if (this.#receiving || this.#announced) return;
    this.#announced = true;
    this.#control.onOutput?.();
  }

  #overflow(): void {
    this.#sender.discard();
    this.fail(ENHANCE_YOUR_CALM, 'the peer reads too slowly');
  }

  #end(fault: Fault | undefined, code: number): void {
    this.#closed = true;
    this.#fault = fault;
    this.#receiver.stop();
    const open = this.#streams.all();
    this.#streams.clear();
    this.#ownStreams = 0;
    for (const stream of open) {
      stream.state = 'closed';
      this.#sender.forget(stream);
      const unsent = this.role === 'client' && stream.id >= this.#firstUnsent;
      try {
        this.#handler.onReset(stream, unsent ? REFUSED_STREAM : code);
      } catch (error) {
        // The other streams must hear of their end all the same.
        this.#control.onHandlerError?.(error);
      }
    }
    this.#control.onClosed?.(fault);
    this.#touch();
  }
}
