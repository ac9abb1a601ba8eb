/**
 * One socket and one connection: bytes in, and one write per turn out.
 *
 * What is sent inside `receive` is written when it returns; what is sent later in a turn is written
 * once at the end of that turn. A socket that does not take our bytes stops us from taking more from
 * the connection, and, when much has gathered, from reading more of the peer's.
 */
import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import type { Connection } from '../http2/connection.ts';
import { INTERNAL_ERROR } from '../http2/errors.ts';
import { readInto } from './read-into.ts';

/** So much may gather before we stop reading from a peer that does not read from us. */
const PAUSE_READING_BYTES = 1_048_576;
/** So much is read of a peer that broke the rules, and thrown away. */
const IGNORED_BYTES_MAX = 65_536;

export interface LinkEvents {
  /** After every turn in which something was read or written. */
  onTurn(): void;
  /** The socket is closed; the connection has been told. */
  onGone(): void;
  /** A handler threw, which it must not. */
  onHandlerError(error: unknown): void;
}

export class Link {
  readonly socket: Socket;
  readonly connection: Connection;
  readonly #clock: Clock;
  readonly #events: LinkEvents;
  /** The socket takes no more for now, and since when. */
  #blocked = false;
  blockedSinceMs = 0;
  #flushDue = false;
  #ended = false;
  #ignoredBytes = 0;
  receivedAtMs: number;

  readonly #flushLater = (): void => {
    this.#flushDue = false;
    this.flush();
    this.#events.onTurn();
  };

  constructor(socket: Socket, connection: Connection, clock: Clock, events: LinkEvents) {
    this.socket = socket;
    this.connection = connection;
    this.#clock = clock;
    this.#events = events;
    this.receivedAtMs = clock.now();
    const read = (chunk: Uint8Array): void => this.#read(chunk);
    // What stands in the socket already comes this way, and on some sockets all.
    socket.on('data', read);
    readInto(socket, read);
    socket.on('drain', () => this.#drained());
    socket.on('end', () => this.end());
    // What is wrong with a socket shows in its 'close'; without a listener it would be thrown.
    socket.on('error', () => {});
    socket.on('close', () => {
      connection.transportClosed();
      events.onGone();
    });
  }

  get blocked(): boolean {
    return this.#blocked;
  }

  /** For `ControlHandler.onOutput`. */
  scheduleFlush(): void {
    if (this.#flushDue) return;
    this.#flushDue = true;
    process.nextTick(this.#flushLater);
  }

  #read(chunk: Uint8Array): void {
    const now = this.#clock.now();
    this.receivedAtMs = now;
    if (this.#ended) this.#ignore(chunk.length);
    try {
      this.connection.receive(chunk, now);
    } catch (error) {
      this.#handlerThrew(error);
    }
    this.flush();
    if (this.#blocked && this.connection.buffered > PAUSE_READING_BYTES) this.socket.pause();
    this.#events.onTurn();
  }

  /** The streams of this connection may be in any state now; those of others are not touched. */
  #handlerThrew(error: unknown): void {
    this.#events.onHandlerError(error);
    this.connection.fail(INTERNAL_ERROR, 'a fault in the software');
  }

  #drained(): void {
    this.#blocked = false;
    if (this.socket.isPaused()) this.socket.resume();
    this.flush();
    this.#events.onTurn();
  }

  flush(): void {
    try {
      this.#write();
    } catch (error) {
      // What waits for windows and room is pumped here, and `onDrain` called.
      this.#handlerThrew(error);
    }
    if (this.connection.closed) this.end();
  }

  #write(): void {
    const { connection, socket } = this;
    while (!this.#blocked && !this.#ended) {
      const bytes = connection.takeOutput();
      if (bytes.length === 0) break;
      const more = socket.write(bytes);
      if (socket.writableLength === 0) connection.giveBack(bytes);
      else if (!more) {
        this.#blocked = true;
        this.blockedSinceMs = this.#clock.now();
      }
    }
  }

  /** Writes what is left, and closes when the peer does; see `destroy` for peers that do not. */
  end(): void {
    if (this.#ended) return;
    this.connection.close();
    const rest = this.connection.takeOutput();
    this.#ended = true;
    if (rest.length > 0 && this.socket.writable) this.socket.write(rest);
    this.socket.end();
    // What the peer still sends is read, so that closing does not cut off our last words, and that we
    // see it go.
    this.socket.resume();
  }

  /** One that broke the rules is not listened to for long: it may be flooding us. */
  #ignore(bytes: number): void {
    if (!this.connection.fault) return;
    this.#ignoredBytes += bytes;
    if (this.#ignoredBytes > IGNORED_BYTES_MAX) this.socket.pause();
  }

  get ended(): boolean {
    return this.#ended;
  }

  destroy(): void {
    this.#ended = true;
    this.socket.destroy();
  }
}
