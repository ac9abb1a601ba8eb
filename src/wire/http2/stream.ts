/**
 * One stream: its state, its windows, and what its user may do with it.
 *
 * States are those of RFC 9113, section 5.1, without the reserved ones: we neither push nor accept
 * pushes. An idle stream is not an object here.
 */
import type { Bytes } from '../../base/bytes.ts';
import type { HeaderList } from './headers.ts';

export type StreamState = 'open' | 'half-closed-local' | 'half-closed-remote' | 'closed';

/** What a stream asks of its connection. */
export interface StreamOwner {
  sendHeaders(stream: Stream, headers: HeaderList, end: boolean): boolean;
  sendInterim(stream: Stream, headers: HeaderList): boolean;
  sendData(stream: Stream, bytes: Bytes, end: boolean): boolean;
  sendTrailers(stream: Stream, headers: HeaderList): boolean;
  resetStream(stream: Stream, code: number): void;
  creditStream(stream: Stream, bytes: number): void;
}

export class Stream {
  readonly id: number;
  readonly #owner: StreamOwner;
  state: StreamState = 'open';
  /** A place for the layer above; the machine never looks at it. */
  user: unknown = undefined;
  /**
   * Back-pressure. False: bytes count as consumed when `onData` returns. True: the peer may send
   * more only after `credit`.
   */
  holdCredit = false;

  /** Bytes we may send; negative after the peer has made its windows smaller. */
  sendWindow: number;
  /** Bytes the peer may still send. */
  receiveWindow: number;
  /** Delivered, and not credited yet. */
  held = 0;
  /** Credited, and not announced yet. */
  unannounced = 0;

  /** The peer's content-length, -1 without one, and what came of it. */
  expectedBytes = -1;
  receivedBytes = 0;
  /** The final header list of the peer has come: only data and trailers may follow. */
  openedByPeer = false;
  /** When the peer opened it, as `receive` was told. */
  openedAtMs = 0;
  /** A response to HEAD has no content whatever its content-length says. */
  headRequest = false;
  sentHeaders = false;

  /** Waiting for window or room, in order; the last piece may carry the end. */
  queue: Bytes[] = [];
  queuedBytes = 0;
  /** The largest piece since nothing was queued. */
  largestQueued = 0;
  endQueued = false;
  trailersQueued: HeaderList | undefined = undefined;
  /** Is in the line of streams that could send. */
  lined = false;

  constructor(owner: StreamOwner, id: number, sendWindow: number, receiveWindow: number) {
    this.#owner = owner;
    this.id = id;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
  }

  get canSend(): boolean {
    return (
      (this.state === 'open' || this.state === 'half-closed-remote') &&
      !this.endQueued &&
      this.trailersQueued === undefined
    );
  }

  get canReceive(): boolean {
    return this.state === 'open' || this.state === 'half-closed-local';
  }

  /** Whether what came agrees with the content-length; `last`: nothing more will come. */
  contentFits(last: boolean): boolean {
    if (this.expectedBytes < 0) return true;
    return last
      ? this.receivedBytes === this.expectedBytes
      : this.receivedBytes <= this.expectedBytes;
  }

  /**
   * All `send` methods answer false, and do nothing, on a stream that may not send any more: a reset
   * may come at any time, so that is not a mistake of the caller. Headers that break the rules throw
   * `invalid-argument`. A frozen list is encoded once and remembered.
   */
  sendHeaders(headers: HeaderList, end = false): boolean {
    return this.#owner.sendHeaders(this, headers, end);
  }

  /** A 1xx response ahead of the real one. */
  sendInterim(headers: HeaderList): boolean {
    return this.#owner.sendInterim(this, headers);
  }

  /**
   * The bytes must not change until they are sent. Queues what the windows do not admit; see
   * `blocked` and `onDrain`.
   */
  sendData(bytes: Bytes, end = false): boolean {
    return this.#owner.sendData(this, bytes, end);
  }

  /** Ends our side, behind all data. */
  sendTrailers(headers: HeaderList): boolean {
    return this.#owner.sendTrailers(this, headers);
  }

  /** Something is queued: a sender of much should wait for `onDrain`. */
  get blocked(): boolean {
    return this.queuedBytes > 0;
  }

  /** Queued beside the largest piece: one may be of any size. */
  get bytesBeside(): number {
    return this.queuedBytes - this.largestQueued;
  }

  /** Ends both sides at once. There will be no further event on this stream. */
  reset(code: number): void {
    this.#owner.resetStream(this, code);
  }

  /** With `holdCredit`: so many of the delivered bytes have been consumed. */
  credit(bytes: number): void {
    this.#owner.creditStream(this, bytes);
  }
}
