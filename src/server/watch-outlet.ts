/**
 * Where the answers of one stream of watches go.
 *
 * On gRPC a batch that many watches share is encoded once; for each watch only its id is written
 * into a copy. All that a stream is told in one turn leaves in one piece.
 */
import { type Bytes, concatBytes } from '../base/bytes.ts';
import type { WatchBatch } from '../model/watch.ts';
import { encode, encodeFramed } from '../wire/messages/codec.ts';
import { eventToWire } from '../wire/messages/convert.ts';
import { WatchResponse, type WatchResponseInit } from '../wire/messages/gen/rpc.ts';
import type { StreamCall } from '../wire/net/grpc-server.ts';
import type { Backend } from './backend.ts';
import type { Outbox } from './outbox.ts';

export interface WatchOutlet {
  /** Whoever tells events waits until `onRoom`. */
  readonly full: boolean;
  onRoom: () => void;
  /** Messages that belong together, and the few that are not events, wait for nobody. */
  say(...messages: readonly WatchResponseInit[]): void;
  tell(watchId: number, batch: WatchBatch): void;
}

/** Answers as objects, for the JSON gateway. */
export class ObjectOutlet implements WatchOutlet {
  onRoom: () => void = () => {};
  full = false;
  readonly #backend: Backend;
  readonly #outbox: Outbox<WatchResponseInit>;

  constructor(backend: Backend, outbox: Outbox<WatchResponseInit>) {
    this.#backend = backend;
    this.#outbox = outbox;
  }

  say(...messages: readonly WatchResponseInit[]): void {
    for (const message of messages) this.#push(message);
  }

  #push(message: WatchResponseInit): void {
    const room = this.#outbox.push(message);
    if (!room || this.full) return;
    this.full = true;
    void room.then(() => {
      this.full = false;
      this.onRoom();
    });
  }

  tell(watchId: number, batch: WatchBatch): void {
    this.say(answer(this.#backend, watchId, batch));
  }
}

/** What a client that does not read may have waiting for it. */
const BACKLOG_BYTES = 262_144;
/** So much is gathered before it is passed on within a turn. */
const PIECE_BYTES = 32_768;
const PIECE_BYTES_MIN = 512;

/** Answers as frames of gRPC. */
export class FramedOutlet implements WatchOutlet {
  onRoom: () => void = () => {};
  #full = false;
  readonly #call: StreamCall;
  readonly #encoder: BatchEncoder;
  #piece: Bytes = new Uint8Array(0);
  #length = 0;
  #sizeGuess = PIECE_BYTES_MIN;
  #flushDue = false;
  readonly #hasRoom = (): void => {
    this.#full = false;
    this.onRoom();
  };

  constructor(call: StreamCall, encoder: BatchEncoder) {
    this.#call = call;
    this.#encoder = encoder;
  }

  say(...messages: readonly WatchResponseInit[]): void {
    // In one piece: what waits in pieces may be more than a peer is allowed to leave unread.
    this.#append(concatBytes(...messages.map((message) => encodeFramed(WatchResponse, message))));
  }

  tell(watchId: number, batch: WatchBatch): void {
    const idBytes = idLength(watchId);
    if (idBytes === undefined) {
      this.#append(encodeFramed(WatchResponse, this.#encoder.message(watchId, batch)));
      return;
    }
    const { framed, idAt } = this.#encoder.template(idBytes, batch);
    if (framed.length <= PIECE_BYTES) {
      const at = this.#append(framed);
      if (idBytes > 0) putId(this.#piece, at + idAt, watchId);
      return;
    }
    const own = framed.slice();
    if (idBytes > 0) putId(own, idAt, watchId);
    this.#append(own);
  }

  /** Answers where in the piece the message begins, if it is small enough to be copied at all. */
  #append(message: Bytes): number {
    if (this.#length + message.length > PIECE_BYTES) this.#flush();
    if (message.length > PIECE_BYTES) {
      this.#call.sendFramed(message);
      return 0;
    }
    this.#reserve(message.length);
    const at = this.#length;
    this.#piece.set(message, at);
    this.#length += message.length;
    if (!this.#flushDue) {
      this.#flushDue = true;
      queueMicrotask(() => {
        this.#flushDue = false;
        this.#flush();
      });
    }
    return at;
  }

  #reserve(bytes: number): void {
    const wanted = this.#length + bytes;
    if (wanted <= this.#piece.length) return;
    const larger = Math.max(this.#sizeGuess, this.#piece.length * 2, wanted);
    const piece = new Uint8Array(Math.min(PIECE_BYTES, larger));
    piece.set(this.#piece.subarray(0, this.#length));
    this.#piece = piece;
  }

  /** What is sent must not change any more: the next piece is a new one, as large as this was. */
  #flush(): void {
    if (this.#length === 0) return;
    const piece = this.#piece.subarray(0, this.#length);
    this.#sizeGuess = Math.max(PIECE_BYTES_MIN, this.#length);
    this.#piece = new Uint8Array(0);
    this.#length = 0;
    this.#call.sendFramed(piece);
  }

  /** Asked before anything is told. Who hears that it is full hears of `onRoom`, too. */
  get full(): boolean {
    const call = this.#call;
    if (this.#full) return true;
    if (call.backlog > BACKLOG_BYTES) {
      this.#full = true;
      // When the call is over, nothing is told any more.
      call.drained().then(this.#hasRoom, () => {});
    } else if (call.session.behind) {
      this.#full = true;
      call.whenRoom(this.#hasRoom);
    }
    return this.#full;
  }
}

/** A message for any watch id of one length, and where the id stands in it. */
interface Template {
  readonly framed: Bytes;
  readonly idAt: number;
}

/** Remembers the bytes of a batch for the other watches it is told to. */
export class BatchEncoder {
  readonly #backend: Backend;
  readonly #templates = new WeakMap<WatchBatch, (Template | undefined)[]>();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  message(watchId: number, batch: WatchBatch): WatchResponseInit {
    return answer(this.#backend, watchId, batch);
  }

  template(idBytes: number, batch: WatchBatch): Template {
    const templates = this.#templates.get(batch) ?? [];
    if (templates.length === 0) this.#templates.set(batch, templates);
    const known = templates[idBytes];
    if (known) return known;
    const message = answer(this.#backend, smallestId(idBytes), batch);
    const framed = encodeFramed(WatchResponse, message);
    const { header } = message;
    // gRPC's five bytes, the header, and the id's tag.
    const idAt = 5 + encode(WatchResponse, { header }).length + 1;
    const template = { framed, idAt };
    templates[idBytes] = template;
    return template;
  }
}

function answer(backend: Backend, watchId: number, batch: WatchBatch): WatchResponseInit {
  const header = backend.header(batch.header);
  return { header, watchId, events: batch.events.map(eventToWire) };
}

/** As a varint; zero is not written at all. `undefined`: an id no server would choose. */
function idLength(id: number): number | undefined {
  if (id < 0 || id >= 2 ** 28) return undefined;
  if (id === 0) return 0;
  return id < 2 ** 7 ? 1 : id < 2 ** 14 ? 2 : id < 2 ** 21 ? 3 : 4;
}

function smallestId(idBytes: number): number {
  return idBytes < 2 ? idBytes : 2 ** (7 * (idBytes - 1));
}

function putId(bytes: Bytes, at: number, id: number): void {
  let rest = id;
  let place = at;
  for (; rest >= 0x80; rest >>>= 7) bytes[place++] = (rest & 0x7f) | 0x80;
  bytes[place] = rest;
}
