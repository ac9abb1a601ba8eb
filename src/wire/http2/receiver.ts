/**
 * The incoming half of a connection: what each frame means, which violation costs a stream and which
 * the connection.
 *
 * A method about a frame answers the fault that costs the connection, or undefined.
 */
import { type Bytes, getUint32, text } from '../../base/bytes.ts';
import { FrameAssembler, type FrameSink } from './assembler.ts';
import { BlockAssembler } from './block-assembler.ts';
import type { Connection, StreamHandler } from './connection.ts';
import {
  COMPRESSION_ERROR,
  ENHANCE_YOUR_CALM,
  type Fault,
  FLOW_CONTROL_ERROR,
  FRAME_SIZE_ERROR,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  STREAM_CLOSED,
  tooMuch,
  windowTooLarge,
  wrong,
  wrongSize,
} from './errors.ts';
import { ResetMemory, WindowCredit } from './flow.ts';
import {
  ACK,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  GOAWAY,
  HEADERS,
  PADDED,
  PING,
  PRIORITY,
  PUSH_PROMISE,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
  WITH_PRIORITY,
} from './frame.ts';
import { checkRequest, checkResponse, checkTrailers } from './headers.ts';
import type { HeaderBlock } from './hpack/decode.ts';
import type { Sender } from './sender.ts';
import {
  announcesPush,
  applySettings,
  ENTRY_BYTES,
  INITIAL_SETTINGS,
  smallestTable,
  WINDOW_MAX,
} from './settings.ts';
import type { Stream } from './stream.ts';
import { Tolls } from './tolls.ts';

const DEBUG_BYTES_MAX = 256;

type Verb = Fault | undefined;

export class Receiver implements FrameSink {
  readonly #connection: Connection;
  readonly #handler: StreamHandler;
  readonly #sender: Sender;
  readonly #frames: FrameAssembler;
  readonly #blocks: BlockAssembler;
  readonly #window: WindowCredit;
  readonly #resetByUs = new ResetMemory();
  readonly #tolls: Tolls;
  readonly #isServer: boolean;
  /** The peer's first frame, its SETTINGS, has come. */
  settled = false;
  /** Our SETTINGS have been acknowledged. */
  #acknowledged = false;
  #refusing = false;
  peerHighest = 0;
  framesReceived = 0;
  /** The window a stream begins with: ours, once the peer knows it. */
  initialWindow: number = INITIAL_SETTINGS.initialWindowSize;

  constructor(connection: Connection, handler: StreamHandler, sender: Sender, window: number) {
    const { limits, role } = connection;
    this.#connection = connection;
    this.#handler = handler;
    this.#sender = sender;
    this.#isServer = role === 'server';
    this.#frames = new FrameAssembler(this, limits.frameBytes, this.#isServer);
    this.#blocks = new BlockAssembler(limits);
    this.#window = new WindowCredit(window);
    this.#tolls = new Tolls(limits);
  }

  get midFrame(): boolean {
    return this.#frames.midFrame || this.#blocks.stream !== 0;
  }

  receive(bytes: Bytes, now: number): void {
    this.#tolls.now = now;
    this.#frames.feed(bytes);
  }

  stop(): void {
    this.#frames.stop();
    this.#blocks.drop();
  }

  /** Widens the connection's window from the initial one to ours. */
  openWindow(): void {
    const increment = this.#window.open();
    if (increment > 0) this.#sender.windowUpdate(0, increment);
  }

  refuseBeyond(): void {
    this.#refusing = true;
  }

  rememberReset(id: number): void {
    this.#resetByUs.add(id);
  }

  /** A stream came to its proper end. */
  finished(): void {
    this.#tolls.finished();
  }

  // ─── frames ──────────────────────────────────────────────────────────────────────────────────

  onOversize(): void {
    this.#connection.fail(FRAME_SIZE_ERROR, 'a frame longer than allowed');
  }

  onBadPreface(): void {
    this.#connection.fail(PROTOCOL_ERROR, 'this is not HTTP/2');
  }

  onFrame(
    type: number,
    flags: number,
    id: number,
    bytes: Bytes,
    start: number,
    end: number,
  ): boolean {
    this.framesReceived++;
    const fault = this.#outOfOrder(type, id) ?? this.#frame(type, flags, id, bytes, start, end);
    if (fault) this.#connection.fail(fault.code, fault.reason);
    return !this.#connection.closed;
  }

  #outOfOrder(type: number, id: number): Verb {
    const open = this.#blocks.stream;
    if (open !== 0 && (type !== CONTINUATION || id !== open)) {
      return wrong('a header block interrupted by another frame');
    }
    if (!this.settled && type !== SETTINGS) return wrong('the first frame is not SETTINGS');
    return undefined;
  }

  #frame(type: number, flags: number, id: number, bytes: Bytes, start: number, end: number): Verb {
    switch (type) {
      case DATA:
        return this.#data(flags, id, bytes, start, end);
      case HEADERS:
        return this.#headers(flags, id, bytes, start, end);
      case PRIORITY:
        return this.#priority(id, end - start);
      case RST_STREAM:
        return this.#reset(id, bytes, start, end);
      case SETTINGS:
        return this.#settingsFrame(flags, id, bytes, start, end);
      case PUSH_PROMISE:
        return wrong('a push, which is switched off');
      case PING:
        return this.#ping(flags, id, bytes, start, end);
      case GOAWAY:
        return this.#goaway(id, bytes, start, end);
      case WINDOW_UPDATE:
        return this.#windowUpdate(id, bytes, start, end);
      case CONTINUATION:
        return this.#continuation(flags, id, bytes, start, end);
      default:
        return this.#tolls.idle('too many frames of unknown type');
    }
  }

  #data(flags: number, id: number, bytes: Bytes, start: number, end: number): Verb {
    if (id === 0) return wrong('DATA on stream 0');
    const charged = end - start;
    if (!this.#window.spend(charged)) {
      return { code: FLOW_CONTROL_ERROR, reason: 'the window of the connection is exceeded' };
    }
    let from = start;
    let to = end;
    if ((flags & PADDED) !== 0) {
      if (charged === 0) return wrongSize('DATA without its length of padding');
      from = start + 1;
      to = end - bytes[start]!;
      if (to < from) return wrong('more padding than payload');
    }
    const last = (flags & END_STREAM) !== 0;
    const stream = this.#connection.stream(id);
    if (!stream?.canReceive || !stream.openedByPeer) {
      this.#creditConnection(charged);
      return this.#misplaced(stream, id, 'DATA');
    }
    if (charged > stream.receiveWindow) {
      this.#creditConnection(charged);
      return this.#streamFault(stream, FLOW_CONTROL_ERROR);
    }
    if (from === to && !last) {
      const fault = this.#tolls.empty();
      if (fault) return fault;
    }
    return this.#content(stream, bytes, from, to, charged, last);
  }

  #content(
    stream: Stream,
    bytes: Bytes,
    from: number,
    to: number,
    charged: number,
    last: boolean,
  ): Verb {
    const length = to - from;
    stream.receiveWindow -= charged;
    stream.receivedBytes += length;
    if (!stream.contentFits(last)) {
      this.#creditConnection(charged);
      return this.#streamFault(stream, PROTOCOL_ERROR);
    }
    if (last) this.#connection.receivedEnd(stream);
    if (stream.holdCredit && stream.state !== 'closed') {
      stream.held += length;
      if (charged > length) this.credit(stream, charged - length);
    } else if (charged > 0) this.credit(stream, charged);
    if (length > 0 || last) this.#handler.onData(stream, bytes.subarray(from, to), last);
    return undefined;
  }

  #headers(flags: number, id: number, bytes: Bytes, start: number, end: number): Verb {
    if (id === 0) return wrong('HEADERS on stream 0');
    let from = start;
    let to = end;
    if ((flags & PADDED) !== 0) {
      if (start === end) return wrongSize('HEADERS without its length of padding');
      from = start + 1;
      to = end - bytes[start]!;
    }
    if ((flags & WITH_PRIORITY) !== 0) {
      from += 5;
      if (from > end) return wrongSize('HEADERS too short for its priority');
    }
    if (to < from) return wrong('more padding than payload');
    const last = (flags & END_STREAM) !== 0;
    if ((flags & END_HEADERS) !== 0) {
      return this.#headerBlock(id, last, this.#blocks.decoder.decode(bytes, from, to));
    }
    this.#blocks.begin(id, last);
    return this.#fragment(bytes, from, to);
  }

  #continuation(flags: number, id: number, bytes: Bytes, start: number, end: number): Verb {
    if (this.#blocks.stream === 0) return wrong(`CONTINUATION without HEADERS on stream ${id}`);
    if ((flags & END_HEADERS) === 0) return this.#fragment(bytes, start, end);
    const fault = this.#blocks.add(bytes, start, end);
    if (fault) return fault;
    const { endStream } = this.#blocks;
    return this.#headerBlock(id, endStream, this.#blocks.finish());
  }

  #fragment(bytes: Bytes, start: number, end: number): Verb {
    const idle = start === end && this.#tolls.empty();
    return idle || this.#blocks.add(bytes, start, end);
  }

  #headerBlock(id: number, last: boolean, block: HeaderBlock | undefined): Verb {
    if (!block) return { code: COMPRESSION_ERROR, reason: this.#blocks.decoder.fault };
    if (block.size > this.#connection.limits.headerBombBytes) return tooMuch('a header bomb');
    const stream = this.#connection.stream(id);
    if (stream) {
      return stream.openedByPeer
        ? this.#trailers(stream, last, block)
        : this.#response(stream, last, block);
    }
    if (!this.#isServer) return this.#misplaced(undefined, id, 'HEADERS');
    if ((id & 1) === 0) return wrong('a stream with an even number');
    if (id > this.peerHighest) return this.#request(id, last, block);
    return this.#misplaced(undefined, id, 'HEADERS');
  }

  #request(id: number, last: boolean, block: HeaderBlock): Verb {
    this.peerHighest = id;
    const { limits, openStreams } = this.#connection;
    block.asRequest ??= block.judge(checkRequest);
    const { problem, contentLength } = block.asRequest;
    if (block.tooLarge) return this.#refuse(id, ENHANCE_YOUR_CALM);
    if (problem || (last && contentLength > 0)) return this.#refuse(id, PROTOCOL_ERROR);
    if (this.#refusing || openStreams >= limits.concurrentStreams) {
      return this.#refuse(id, REFUSED_STREAM);
    }
    const stream = this.#connection.admit(id, this.#tolls.now);
    stream.expectedBytes = contentLength;
    if (last) stream.state = 'half-closed-remote';
    this.#handler.onHeaders(stream, block.list, last);
    return undefined;
  }

  /** Answers a request that never became a stream. */
  #refuse(id: number, code: number): Verb {
    this.#sender.resetStream(id, code);
    this.#resetByUs.add(id);
    return this.#tolls.reset();
  }

  #response(stream: Stream, last: boolean, block: HeaderBlock): Verb {
    block.asResponse ??= block.judge(checkResponse);
    const { problem, status, contentLength, bodiless } = block.asResponse;
    if (block.tooLarge) return this.#streamFault(stream, ENHANCE_YOUR_CALM);
    if (problem) return this.#streamFault(stream, PROTOCOL_ERROR);
    if (status < 200) {
      if (last) return this.#streamFault(stream, PROTOCOL_ERROR);
      this.#handler.onInterim?.(stream, block.list);
      return this.#tolls.idle('too many interim responses');
    }
    const expected = bodiless || stream.headRequest ? -1 : contentLength;
    if (last && expected > 0) return this.#streamFault(stream, PROTOCOL_ERROR);
    stream.openedByPeer = true;
    stream.expectedBytes = expected;
    if (last) this.#connection.receivedEnd(stream);
    this.#handler.onHeaders(stream, block.list, last);
    return undefined;
  }

  #trailers(stream: Stream, last: boolean, block: HeaderBlock): Verb {
    if (!stream.canReceive) return this.#streamFault(stream, STREAM_CLOSED);
    block.asTrailers ??= block.judge(checkTrailers);
    if (block.tooLarge) return this.#streamFault(stream, ENHANCE_YOUR_CALM);
    const short = !stream.contentFits(true);
    if (!last || short || block.asTrailers.problem) {
      return this.#streamFault(stream, PROTOCOL_ERROR);
    }
    this.#connection.receivedEnd(stream);
    this.#handler.onTrailers(stream, block.list);
    return undefined;
  }

  #priority(id: number, length: number): Verb {
    if (id === 0) return wrong('PRIORITY on stream 0');
    if (length === 5) return this.#tolls.idle('too many PRIORITY frames');
    const stream = this.#connection.stream(id);
    if (stream) return this.#streamFault(stream, FRAME_SIZE_ERROR);
    return wrongSize('PRIORITY of a wrong length');
  }

  #reset(id: number, bytes: Bytes, start: number, end: number): Verb {
    if (id === 0) return wrong('RST_STREAM on stream 0');
    if (end - start !== 4) return wrongSize('RST_STREAM of a wrong length');
    const stream = this.#connection.stream(id);
    if (!stream) {
      if (this.#isIdle(id)) return wrong('RST_STREAM on an idle stream');
      return this.#tolls.idle('too many frames for closed streams');
    }
    this.#connection.retire(stream);
    this.#handler.onReset(stream, getUint32(bytes, start));
    return this.#isServer ? this.#tolls.reset(stream.openedAtMs) : undefined;
  }

  #settingsFrame(flags: number, id: number, bytes: Bytes, start: number, end: number): Verb {
    const length = end - start;
    if (id !== 0) return wrong('SETTINGS on a stream');
    if ((flags & ACK) !== 0) {
      if (!this.settled) return wrong('the first frame is an acknowledgement');
      if (length > 0) return wrongSize('SETTINGS acknowledged with content');
      return this.#settingsAcknowledged();
    }
    if (length % ENTRY_BYTES !== 0) return wrongSize('SETTINGS cut off');
    const { limits, peerSettings } = this.#connection;
    if (length / ENTRY_BYTES > limits.settingsEntries) return tooMuch('too many settings');
    const flood = this.#tolls.settings();
    if (flood) return flood;
    const applied = applySettings(peerSettings, bytes, start, end);
    if ('reason' in applied) return applied;
    if (!this.#isServer && announcesPush(bytes, start, end)) {
      return wrong('a server that switches on pushes');
    }
    this.settled = true;
    const table = smallestTable(bytes, start, end);
    if (table !== undefined) this.#sender.encoder.limitTable(table);
    if (!this.#connection.applyPeerSettings(applied)) return windowTooLarge();
    this.#connection.settingsReceived();
    return undefined;
  }

  /** From here on the peer must keep to our settings. */
  #settingsAcknowledged(): Verb {
    if (this.#acknowledged) return this.#tolls.idle('too many acknowledgements');
    this.#acknowledged = true;
    const { settings, streams } = this.#connection;
    this.#blocks.decoder.allowTable(settings.headerTableSize);
    const change = settings.initialWindowSize - this.initialWindow;
    this.initialWindow = settings.initialWindowSize;
    for (const stream of streams) stream.receiveWindow += change;
    return undefined;
  }

  #ping(flags: number, id: number, bytes: Bytes, start: number, end: number): Verb {
    if (id !== 0) return wrong('PING on a stream');
    if (end - start !== 8) return wrongSize('PING of a wrong length');
    const payload = bytes.slice(start, end);
    if ((flags & ACK) !== 0) {
      const fault = this.#tolls.idle('too many answers to pings');
      if (!fault) this.#connection.pingAcknowledged(payload);
      return fault;
    }
    const fault = this.#tolls.ping(this.#sender.workFrames);
    if (!fault) this.#sender.ping(payload, true);
    return fault;
  }

  #goaway(id: number, bytes: Bytes, start: number, end: number): Verb {
    if (id !== 0) return wrong('GOAWAY on a stream');
    if (end - start < 8) return wrongSize('GOAWAY cut off');
    const fault = this.#tolls.idle('too many GOAWAY frames');
    if (fault) return fault;
    return this.#connection.goneAway(
      getUint32(bytes, start) & WINDOW_MAX,
      getUint32(bytes, start + 4),
      text(bytes.subarray(start + 8, Math.min(end, start + 8 + DEBUG_BYTES_MAX))),
    );
  }

  #windowUpdate(id: number, bytes: Bytes, start: number, end: number): Verb {
    if (end - start !== 4) return wrongSize('WINDOW_UPDATE of a wrong length');
    const flood = this.#tolls.windowUpdate(this.#sender.workFrames);
    if (flood) return flood;
    const increment = getUint32(bytes, start) & WINDOW_MAX;
    if (id === 0) {
      if (increment === 0) return wrong('a window update of nothing');
      this.#sender.window += increment;
      if (this.#sender.window > WINDOW_MAX) return windowTooLarge();
      this.#sender.pump();
      return undefined;
    }
    const stream = this.#connection.stream(id);
    if (!stream) {
      return this.#isIdle(id) ? wrong('WINDOW_UPDATE on an idle stream') : undefined;
    }
    if (increment === 0) return this.#streamFault(stream, PROTOCOL_ERROR);
    stream.sendWindow += increment;
    if (stream.sendWindow > WINDOW_MAX) return this.#streamFault(stream, FLOW_CONTROL_ERROR);
    this.#sender.enlist(stream);
    this.#sender.pump();
    return undefined;
  }

  // ─── rules ───────────────────────────────────────────────────────────────────────────────────

  #isIdle(id: number): boolean {
    if ((id & 1) === 0) return true;
    return this.#isServer ? id > this.peerHighest : !this.#connection.opened(id);
  }

  /** Section 5.1: a frame on a stream that is idle, half-closed or closed. */
  #misplaced(stream: Stream | undefined, id: number, what: string): Verb {
    if (stream) {
      return this.#streamFault(stream, stream.canReceive ? PROTOCOL_ERROR : STREAM_CLOSED);
    }
    if (this.#isIdle(id)) return wrong(`${what} on an idle stream`);
    if (this.#resetByUs.has(id)) {
      return this.#tolls.idle('too many frames for closed streams');
    }
    return { code: STREAM_CLOSED, reason: `${what} on a closed stream` };
  }

  #streamFault(stream: Stream, code: number): Verb {
    this.#sender.resetStream(stream.id, code);
    this.#resetByUs.add(stream.id);
    this.#connection.retire(stream);
    this.#handler.onReset(stream, code);
    return this.#tolls.reset();
  }

  #creditConnection(bytes: number): void {
    const increment = this.#window.credit(bytes);
    if (increment > 0) this.#sender.windowUpdate(0, increment);
  }

  /** The bytes have been consumed: the peer may send as many again, told in batches. */
  credit(stream: Stream, bytes: number): void {
    this.#creditConnection(bytes);
    if (!stream.canReceive) return;
    stream.unannounced += bytes;
    if (stream.unannounced * 2 < this.initialWindow) return;
    this.#sender.windowUpdate(stream.id, stream.unannounced);
    stream.receiveWindow += stream.unannounced;
    stream.unannounced = 0;
  }
}
