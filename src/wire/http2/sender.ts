/**
 * The outgoing half of a connection: frames into the output buffer, header compression, and data as
 * far as the peer's windows and our buffer admit it.
 *
 * Data waits in its stream, never in the buffer: what is in the buffer can no longer be taken back
 * by a reset, and a slow peer must not make it grow. Streams that wait take turns, a frame each.
 */
import { type Bytes, EMPTY, putUint32 } from '../../base/bytes.ts';
import {
  ACK,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  FRAME_HEADER_BYTES,
  GOAWAY,
  HEADERS,
  PING,
  putFrameHeader,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
} from './frame.ts';
import type { HeaderList } from './headers.ts';
import { HpackEncoder } from './hpack/encode.ts';
import { type BufferPool, OutputBuffer } from './output.ts';
import type { Stream } from './stream.ts';

/** Data is not added to a buffer that holds more than this; it keeps one write at a sane size. */
const BUFFER_GOAL_BYTES = 262_144;

export interface SenderEvents {
  /** Our side of the stream has ended, on the wire as well. */
  onSentEnd(stream: Stream): void;
  /** Everything queued on the stream has been written. */
  onSentAll(stream: Stream): void;
}

export class Sender {
  readonly #events: SenderEvents;
  readonly #out: OutputBuffer;
  readonly encoder: HpackEncoder = new HpackEncoder();
  /** The connection's window. */
  window = 65_535;
  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  frameBytes = 16_384;
  /** Bytes that wait in streams. */
  queuedBytes = 0;
  /** DATA and HEADERS frames written, ever: the work that explains a peer's control frames. */
  workFrames = 0;
  #line: Stream[] = [];
  #lineHead = 0;

  constructor(events: SenderEvents, pool: BufferPool) {
    this.#events = events;
    this.#out = new OutputBuffer(pool);
  }

  get buffered(): number {
    return this.#out.length;
  }

  take(): Bytes {
    if (this.#lineHead < this.#line.length) this.pump();
    return this.#out.length === 0 ? EMPTY : this.#out.take();
  }

  giveBack(taken: Bytes): void {
    this.#out.giveBack(taken);
  }

  /** Forgets everything that waits, for a peer that does not read. */
  discard(): void {
    if (this.#out.length > 0) this.#out.giveBack(this.#out.take());
    this.#line = [];
    this.#lineHead = 0;
    this.queuedBytes = 0;
  }

  raw(bytes: Bytes): void {
    this.#out.append(bytes);
  }

  headers(stream: Stream, list: HeaderList, end: boolean): void {
    this.#block(stream.id, list, end);
    if (end) this.#events.onSentEnd(stream);
  }

  #block(id: number, list: HeaderList, end: boolean): void {
    const out = this.#out;
    const start = out.reserve(FRAME_HEADER_BYTES);
    this.encoder.encode(list, out);
    const length = out.length - start - FRAME_HEADER_BYTES;
    const flags = end ? END_STREAM : 0;
    this.workFrames++;
    if (length <= this.frameBytes) {
      putFrameHeader(out.bytes, start, length, HEADERS, flags | END_HEADERS, id);
      return;
    }
    const block = out.copy(start + FRAME_HEADER_BYTES);
    out.length = start;
    this.#splitBlock(id, block, flags);
  }

  #splitBlock(id: number, block: Bytes, flags: number): void {
    for (let at = 0; at < block.length; at += this.frameBytes) {
      const piece = block.subarray(at, at + this.frameBytes);
      const last = at + this.frameBytes >= block.length ? END_HEADERS : 0;
      const type = at === 0 ? HEADERS : CONTINUATION;
      this.#frame(type, (at === 0 ? flags : 0) | last, id, piece);
    }
  }

  #frame(type: number, flags: number, id: number, payload: Bytes): void {
    const start = this.#out.reserve(FRAME_HEADER_BYTES);
    putFrameHeader(this.#out.bytes, start, payload.length, type, flags, id);
    this.#out.append(payload);
  }

  data(stream: Stream, bytes: Bytes, end: boolean): void {
    const { length } = bytes;
    if (
      stream.queue.length === 0 &&
      length <= this.frameBytes &&
      (length === 0 || (length <= this.window && length <= stream.sendWindow)) &&
      this.#out.length < BUFFER_GOAL_BYTES
    ) {
      this.#writeData(stream, bytes, end);
      if (end) this.#events.onSentEnd(stream);
      return;
    }
    const largest = stream.queue.length === 0 ? 0 : stream.largestQueued;
    stream.largestQueued = Math.max(largest, length);
    stream.queue.push(bytes);
    stream.queuedBytes += length;
    stream.endQueued = end;
    this.queuedBytes += length;
    this.enlist(stream);
    this.pump();
  }

  trailers(stream: Stream, list: HeaderList): void {
    if (stream.queue.length > 0) stream.trailersQueued = list;
    else this.headers(stream, list, true);
  }

  #writeData(stream: Stream, bytes: Bytes, end: boolean): void {
    const { length } = bytes;
    stream.sendWindow -= length;
    this.window -= length;
    this.workFrames++;
    this.#frame(DATA, end ? END_STREAM : 0, stream.id, bytes);
  }

  /** Puts a stream with something queued into the line, unless its own window is what it waits for. */
  enlist(stream: Stream): void {
    if (stream.lined || stream.queue.length === 0) return;
    if (stream.sendWindow <= 0 && stream.queue[0]!.length > 0) return;
    stream.lined = true;
    this.#line.push(stream);
  }

  /** A closed stream needs nothing of what it queued. */
  forget(stream: Stream): void {
    this.queuedBytes -= stream.queuedBytes;
    stream.queuedBytes = 0;
    stream.queue = [];
    stream.trailersQueued = undefined;
  }

  /** Writes what windows and buffer admit. */
  pump(): void {
    while (this.#lineHead < this.#line.length && this.#out.length < BUFFER_GOAL_BYTES) {
      const stream = this.#line[this.#lineHead]!;
      const first = stream.queue[0];
      if (first && first.length > 0 && this.window <= 0) return;
      this.#lineHead++;
      if (this.#lineHead > 1_024 && this.#lineHead * 2 > this.#line.length) {
        this.#line.splice(0, this.#lineHead);
        this.#lineHead = 0;
      }
      stream.lined = false;
      if (first) this.#turn(stream, first);
    }
    if (this.#lineHead === this.#line.length && this.#lineHead > 0) {
      this.#line = [];
      this.#lineHead = 0;
    }
  }

  /** One frame of a stream; then it goes to the end of the line if it has more. */
  #turn(stream: Stream, first: Bytes): void {
    const admitted = Math.min(first.length, this.frameBytes, this.window, stream.sendWindow);
    const room = Math.max(0, admitted);
    if (room === 0 && first.length > 0) return;
    const whole = room === first.length;
    if (whole) stream.queue.shift();
    else stream.queue[0] = first.subarray(room);
    stream.queuedBytes -= room;
    this.queuedBytes -= room;
    const drained = stream.queue.length === 0;
    const end = drained && stream.endQueued;
    this.#writeData(stream, whole ? first : first.subarray(0, room), end);
    if (!drained) this.enlist(stream);
    else if (end) this.#events.onSentEnd(stream);
    else if (stream.trailersQueued) this.headers(stream, stream.trailersQueued, true);
    else this.#events.onSentAll(stream);
  }

  resetStream(id: number, code: number): void {
    this.#frame4(RST_STREAM, id, code);
  }

  windowUpdate(id: number, increment: number): void {
    this.#frame4(WINDOW_UPDATE, id, increment);
  }

  #frame4(type: number, id: number, value: number): void {
    const start = this.#out.reserve(FRAME_HEADER_BYTES + 4);
    putFrameHeader(this.#out.bytes, start, 4, type, 0, id);
    putUint32(this.#out.bytes, start + FRAME_HEADER_BYTES, value);
  }

  settings(payload: Bytes): void {
    this.#frame(SETTINGS, 0, 0, payload);
  }

  settingsAck(): void {
    this.#frame(SETTINGS, ACK, 0, EMPTY);
  }

  ping(payload: Bytes, ack: boolean): void {
    this.#frame(PING, ack ? ACK : 0, 0, payload);
  }

  goaway(lastStream: number, code: number, debug: Bytes): void {
    const payload = new Uint8Array(8 + debug.length);
    putUint32(payload, 0, lastStream);
    putUint32(payload, 4, code);
    payload.set(debug, 8);
    this.#frame(GOAWAY, 0, 0, payload);
  }
}
