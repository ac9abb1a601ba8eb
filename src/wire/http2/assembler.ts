/**
 * Cuts the byte stream into whole frames. A frame that lies whole in a chunk is handed on in place;
 * only one that crosses chunks is copied, once, into memory of its own size.
 */
import { type Bytes, EMPTY } from '../../base/bytes.ts';
import { FRAME_HEADER_BYTES, PREFACE } from './frame.ts';

export interface FrameSink {
  /** The payload is `bytes[start, end)`. False: no further frame is wanted. */
  onFrame(
    type: number,
    flags: number,
    stream: number,
    bytes: Bytes,
    start: number,
    end: number,
  ): boolean;
  /** A frame longer than allowed begins; nothing of it was kept. */
  onOversize(): void;
  /** The peer does not speak HTTP/2. */
  onBadPreface(): void;
}

export class FrameAssembler {
  readonly #sink: FrameSink;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerLength = 0;
  #payload: Bytes = EMPTY;
  #payloadLength = 0;
  #prefaceAt: number;
  #stopped = false;
  /** Longest payload accepted. */
  frameBytes: number;

  constructor(sink: FrameSink, frameBytes: number, expectPreface: boolean) {
    this.#sink = sink;
    this.frameBytes = frameBytes;
    this.#prefaceAt = expectPreface ? 0 : PREFACE.length;
  }

  /** A frame, or the preface, has begun and is not whole yet. */
  get midFrame(): boolean {
    return this.#headerLength > 0 || this.#prefaceAt < PREFACE.length;
  }

  /** No further frame will be handed on. */
  stop(): void {
    this.#stopped = true;
    this.#payload = EMPTY;
  }

  feed(bytes: Bytes): void {
    let at = this.#prefaceAt < PREFACE.length ? this.#preface(bytes) : 0;
    if (this.#headerLength > 0) at = this.#continue(bytes, at);
    const end = bytes.length;
    while (!this.#stopped && end - at >= FRAME_HEADER_BYTES) {
      const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
      if (length > this.frameBytes) {
        this.#oversize();
        return;
      }
      const start = at + FRAME_HEADER_BYTES;
      if (end - start < length) break;
      this.#emit(bytes, at, bytes, start, start + length);
      at = start + length;
    }
    if (!this.#stopped && at < end) this.#continue(bytes, at);
  }

  /** Compares with the preface and answers where the frames begin. */
  #preface(bytes: Bytes): number {
    let at = 0;
    while (at < bytes.length && this.#prefaceAt < PREFACE.length) {
      if (bytes[at] !== PREFACE[this.#prefaceAt]) {
        this.stop();
        this.#sink.onBadPreface();
        return bytes.length;
      }
      at++;
      this.#prefaceAt++;
    }
    return at;
  }

  /** Fills the frame that crosses chunks from `bytes[at…]`; answers where what follows begins. */
  #continue(bytes: Bytes, at: number): number {
    let from = at;
    while (this.#headerLength < FRAME_HEADER_BYTES) {
      if (from === bytes.length) return from;
      this.#header[this.#headerLength++] = bytes[from++]!;
      if (this.#headerLength === FRAME_HEADER_BYTES && !this.#begin()) return bytes.length;
    }
    const wanted = Math.min(this.#payload.length - this.#payloadLength, bytes.length - from);
    this.#payload.set(bytes.subarray(from, from + wanted), this.#payloadLength);
    this.#payloadLength += wanted;
    if (this.#payloadLength === this.#payload.length) {
      const payload = this.#payload;
      this.#headerLength = 0;
      this.#payload = EMPTY;
      this.#emit(this.#header, 0, payload, 0, payload.length);
    }
    return from + wanted;
  }

  #begin(): boolean {
    const header = this.#header;
    const length = (header[0]! << 16) | (header[1]! << 8) | header[2]!;
    if (length > this.frameBytes) {
      this.#oversize();
      return false;
    }
    this.#payload = length === 0 ? EMPTY : new Uint8Array(length);
    this.#payloadLength = 0;
    return true;
  }

  #oversize(): void {
    this.stop();
    this.#sink.onOversize();
  }

  #emit(header: Bytes, at: number, bytes: Bytes, start: number, end: number): void {
    const stream =
      ((header[at + 5]! & 0x7f) << 24) |
      (header[at + 6]! << 16) |
      (header[at + 7]! << 8) |
      header[at + 8]!;
    if (!this.#sink.onFrame(header[at + 3]!, header[at + 4]!, stream, bytes, start, end)) {
      this.stop();
    }
  }
}
