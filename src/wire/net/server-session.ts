/** One client on one socket: its connection, and the times it must keep. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { Connection, type StreamHandler } from '../http2/connection.ts';
import { ENHANCE_YOUR_CALM, type Fault, NO_ERROR, SETTINGS_TIMEOUT } from '../http2/errors.ts';
import type { Limits } from '../http2/limits.ts';
import type { BufferPool } from '../http2/output.ts';
import { Link } from './link.ts';

export interface SessionTimes {
  /** TLS, preface and SETTINGS must be done. */
  readonly handshakeTimeoutMs: number;
  /** A frame or header block that has begun must be whole. */
  readonly frameTimeoutMs: number;
  /** A connection without a stream is closed. */
  readonly idleTimeoutMs: number;
  /** A socket that takes nothing from us is closed. */
  readonly writeTimeoutMs: number;
  /** Nothing heard for so long: a ping. */
  readonly keepaliveMs: number;
  /** Still nothing heard after the ping: the peer is gone. */
  readonly keepaliveTimeoutMs: number;
  /** Connections are drained at this age (give or take a tenth), so that load can move. */
  readonly maxAgeMs: number;
  readonly maxAgeGraceMs: number;
  /** How often all this is looked at. */
  readonly sweepMs: number;
}

export const DEFAULT_TIMES: SessionTimes = Object.freeze({
  handshakeTimeoutMs: 10_000,
  frameTimeoutMs: 20_000,
  idleTimeoutMs: 30 * 60_000,
  writeTimeoutMs: 30_000,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
  maxAgeMs: Number.POSITIVE_INFINITY,
  maxAgeGraceMs: 60_000,
  sweepMs: 1_000,
});

export interface SessionOptions {
  readonly accept: (session: ServerSession) => StreamHandler;
  /** When the socket was accepted, before TLS. */
  readonly acceptedAtMs: number;
  readonly limits: Partial<Limits>;
  readonly streamWindow: number | undefined;
  readonly connectionWindow: number | undefined;
  readonly buffers: BufferPool;
  readonly clock: Clock;
  readonly random: Random;
  readonly times: SessionTimes;
  /** Something was read or written. */
  readonly onTurn: () => void;
  readonly onHandlerError: (error: unknown) => void;
}

/** How far a graceful end has come. */
type Drain = 'no' | 'announced' | 'refusing';

const DRAIN_PING = Uint8Array.of(0x64, 0x72, 0x61, 0x69, 0x6e, 0, 0, 1);
/** A peer that does not close its side after we have closed ours is not waited for longer. */
const LINGER_MS = 2_000;
/** The peer has had time to read our first GOAWAY even if it does not answer the ping. */
const ANNOUNCE_MS = 1_000;

export class ServerSession {
  readonly socket: Socket;
  readonly connection: Connection;
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #times: SessionTimes;
  readonly openedAtMs: number;
  readonly #ageMs: number;
  #drain: Drain = 'no';
  #drainedAtMs = 0;
  #closeAtMs = Number.POSITIVE_INFINITY;
  #endedAtMs = 0;
  #pingedAtMs = -1;
  #midFrameSinceMs = -1;
  #framesSeen = 0;
  #idleSinceMs: number;
  #streamsSeen = 0;
  /** What the peer asked for while it left too much unread, in order. */
  readonly #waiting = new Set<() => void>();
  /** Why the peer lost the connection, if it did by its own fault. */
  fault: Fault | undefined;

  constructor(socket: Socket, options: SessionOptions, onGone: () => void) {
    this.socket = socket;
    this.#clock = options.clock;
    this.#times = options.times;
    this.openedAtMs = options.acceptedAtMs;
    this.#idleSinceMs = this.#clock.now();
    this.#ageMs = options.times.maxAgeMs * (0.9 + 0.2 * options.random.next());
    const { streamWindow, connectionWindow } = options;
    this.connection = new Connection('server', {
      handler: options.accept(this),
      control: {
        onOutput: () => this.#link.scheduleFlush(),
        onHandlerError: options.onHandlerError,
        onPingAck: () => this.#pingAnswered(),
        onClosed: (fault) => {
          this.fault = fault;
        },
      },
      limits: options.limits,
      buffers: options.buffers,
      ...(streamWindow === undefined ? {} : { streamWindow }),
      ...(connectionWindow === undefined ? {} : { connectionWindow }),
    });
    this.#link = new Link(socket, this.connection, this.#clock, {
      onTurn: () => {
        this.#turned();
        options.onTurn();
      },
      onGone,
      onHandlerError: options.onHandlerError,
    });
    this.#link.flush();
  }

  /** When something was last heard of the peer; within a call's handler, its request. */
  get receivedAtMs(): number {
    return this.#link.receivedAtMs;
  }

  /** The peer's address as the system knows it; empty for a unix socket. */
  get remoteAddress(): string {
    return this.socket.remoteAddress ?? '';
  }

  /** The TLS side of the socket, for certificates; undefined without TLS. */
  get tls(): TLSSocket | undefined {
    const socket = this.socket as TLSSocket;
    return socket.encrypted ? socket : undefined;
  }

  /** The peer leaves much unread. What is under way for it should wait before it says more. */
  get behind(): boolean {
    const { queuedBytes, limits } = this.connection;
    return queuedBytes > limits.bufferedBytes;
  }

  /** More data would cost the connection. */
  get full(): boolean {
    const { queuedBytes, limits } = this.connection;
    return queuedBytes > limits.queuedBytes;
  }

  /** No new call should be begun until the peer has read, and those are begun that waited before. */
  get crowded(): boolean {
    return this.behind || this.#waiting.size > 0;
  }

  /** How many wait for that. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Calls `begin` when the peer has read what waits for it, unless the answered function is called first. */
  whenRoom(begin: () => void): () => void {
    this.#waiting.add(begin);
    return () => this.#waiting.delete(begin);
  }

  #admitWaiting(): void {
    for (const begin of this.#waiting) {
      if (this.behind) return;
      this.#waiting.delete(begin);
      begin();
    }
  }

  /** Lets open streams finish, refuses new ones, and closes after `graceMs` at the latest. */
  drain(graceMs: number): void {
    const now = this.#clock.now();
    this.#closeAtMs = Math.min(this.#closeAtMs, now + graceMs);
    if (this.#drain !== 'no') return;
    this.#drain = 'announced';
    this.#drainedAtMs = now;
    this.connection.announceShutdown();
    this.connection.ping(DRAIN_PING);
    this.#link.flush();
  }

  /** GOAWAY with a reason, and the end. Open streams get a reset. */
  close(code: number = NO_ERROR, reason = ''): void {
    this.connection.close(code, reason);
    this.#link.flush();
  }

  destroy(): void {
    this.#link.destroy();
  }

  /** The peer has read everything up to our first GOAWAY: what it opens now is late. */
  #pingAnswered(): void {
    this.#pingedAtMs = -1;
    if (this.#drain === 'announced') this.#refuse();
  }

  #refuse(): void {
    this.#drain = 'refusing';
    this.connection.refuseNew();
  }

  #turned(): void {
    if (this.#waiting.size > 0) this.#admitWaiting();
    const { openStreams, peerHighest } = this.connection;
    if (openStreams > 0) this.#idleSinceMs = -1;
    else if (this.#drain === 'refusing') this.#link.end();
    else if (this.#idleSinceMs < 0 || peerHighest !== this.#streamsSeen) {
      // A call may come and be answered within one turn; it counts all the same.
      this.#streamsSeen = peerHighest;
      this.#idleSinceMs = this.#link.receivedAtMs;
    }
  }

  /** Looks at all times; called once per sweep. */
  check(now: number): void {
    const { connection } = this;
    if (this.#link.ended) {
      this.#endedAtMs ||= now;
      if (now - this.#endedAtMs > LINGER_MS) this.destroy();
      return;
    }
    if (!connection.ready && now - this.openedAtMs > this.#times.handshakeTimeoutMs) {
      this.close(SETTINGS_TIMEOUT, 'no SETTINGS came');
    } else if (this.#link.blocked && now - this.#link.blockedSinceMs > this.#times.writeTimeoutMs) {
      this.destroy();
    } else if (this.#stalledInFrame(now)) {
      this.close(ENHANCE_YOUR_CALM, 'a frame was not finished in time');
    } else if (!this.#alive(now)) this.destroy();
    else this.#checkEnd(now);
  }

  #stalledInFrame(now: number): boolean {
    const { midFrame, framesReceived } = this.connection;
    if (!midFrame || framesReceived !== this.#framesSeen) {
      this.#framesSeen = framesReceived;
      this.#midFrameSinceMs = now;
      return false;
    }
    return now - this.#midFrameSinceMs > this.#times.frameTimeoutMs;
  }

  #alive(now: number): boolean {
    const heardMs = this.#link.receivedAtMs;
    if (this.#pingedAtMs >= 0 && heardMs >= this.#pingedAtMs) this.#pingedAtMs = -1;
    if (this.#pingedAtMs >= 0) return now - this.#pingedAtMs <= this.#times.keepaliveTimeoutMs;
    if (now - heardMs > this.#times.keepaliveMs) {
      this.#pingedAtMs = now;
      this.connection.ping();
    }
    return true;
  }

  #checkEnd(now: number): void {
    if (now >= this.#closeAtMs) {
      this.close(NO_ERROR, 'the time to finish is over');
      return;
    }
    if (this.#drain === 'announced' && now - this.#drainedAtMs > ANNOUNCE_MS) {
      this.#refuse();
      this.#turned();
    }
    if (this.#drain !== 'no') return;
    const idle = this.#idleSinceMs >= 0 && now - this.#idleSinceMs > this.#times.idleTimeoutMs;
    if (idle || now - this.openedAtMs > this.#ageMs) this.drain(this.#times.maxAgeGraceMs);
  }
}
