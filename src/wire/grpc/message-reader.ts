/**
 * Cuts a stream's data into gRPC's length-prefixed messages. Any cutting of the input into chunks
 * gives the same messages and the same error.
 *
 *   reader.push(chunk);
 *   for (let m = reader.next(); m !== undefined; m = reader.next()) …
 *
 * A message that lies in one chunk is a view of it. Memory grows with what has arrived, never with
 * what a prefix announces. Faults are thrown by `next` and `end`, again and again once there is one.
 */
import { type Bytes, concatBytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED } from '../messages/status.ts';
import { grpcError } from './status.ts';

/** Undoes a compression; must refuse (throw) rather than give more than `bytesMax`. */
export type Decompress = (bytes: Bytes, bytesMax: number) => Bytes;

export interface MessageReaderOptions {
  /** The longest message, before and after decompression. */
  readonly bytesMax: number;
  /** For messages flagged as compressed; absent when the peer announced no encoding. */
  readonly decompress?: Decompress | undefined;
}

export const PREFIX_BYTES = 5;
const NOTHING: Bytes = new Uint8Array(0);

export class MessageReader {
  readonly #bytesMax: number;
  readonly #decompress: Decompress | undefined;
  #chunk: Bytes = NOTHING;
  #at = 0;
  /** The beginning of a message whose rest is still to come; only `#heldLength` of it is filled. */
  #held: Bytes = NOTHING;
  #heldLength = 0;
  #fault: HoldfastError | undefined;

  constructor(options: MessageReaderOptions) {
    this.#bytesMax = options.bytesMax;
    this.#decompress = options.decompress;
  }

  /** The bytes must stay as they are until `next` has answered undefined, best before the next push. */
  push(chunk: Bytes): void {
    const left = this.#at < this.#chunk.length;
    this.#chunk = left ? concatBytes(this.#chunk.subarray(this.#at), chunk) : chunk;
    this.#at = 0;
  }

  /** Bytes of an unfinished message. */
  get pending(): number {
    return this.#heldLength + this.#chunk.length - this.#at;
  }

  /** The next whole message, or undefined when more data is needed. Throws. */
  next(): Bytes | undefined {
    if (this.#fault) throw this.#fault;
    try {
      return this.#heldLength > 0 ? this.#nextHeld() : this.#nextWhole();
    } catch (error) {
      this.#fault = HoldfastError.from(error);
      throw this.#fault;
    }
  }

  /** The peer has ended its side; throws when that cuts a message. */
  end(): void {
    if (this.#fault) throw this.#fault;
    if (this.pending > 0) throw grpcError(INTERNAL, 'the stream ended inside a message');
  }

  #nextWhole(): Bytes | undefined {
    const chunk = this.#chunk;
    const start = this.#at;
    const available = chunk.length - start;
    if (available === 0) return undefined;
    const length = available < PREFIX_BYTES ? -1 : this.#length(chunk, start);
    if (length < 0 || available < PREFIX_BYTES + length) {
      this.#keep(available);
      return undefined;
    }
    this.#at = start + PREFIX_BYTES + length;
    return this.#open(chunk[start]!, chunk.subarray(start + PREFIX_BYTES, this.#at));
  }

  #nextHeld(): Bytes | undefined {
    if (!this.#fill(PREFIX_BYTES)) return undefined;
    const length = this.#length(this.#held, 0);
    if (!this.#fill(PREFIX_BYTES + length)) return undefined;
    const held = this.#held;
    // The memory goes with the message: whoever gets it may keep it.
    this.#held = NOTHING;
    this.#heldLength = 0;
    return this.#open(held[0]!, held.subarray(PREFIX_BYTES, PREFIX_BYTES + length));
  }

  /** Moves bytes until `count` are held; false when the chunk ends before. */
  #fill(count: number): boolean {
    const wanted = Math.min(count - this.#heldLength, this.#chunk.length - this.#at);
    if (wanted > 0) this.#keep(wanted);
    return this.#heldLength >= count;
  }

  #keep(count: number): void {
    const length = this.#heldLength + count;
    if (length > this.#held.length) {
      const larger = new Uint8Array(Math.max(64, length, Math.min(length * 2, this.#bytesMax)));
      larger.set(this.#held.subarray(0, this.#heldLength));
      this.#held = larger;
    }
    this.#held.set(this.#chunk.subarray(this.#at, this.#at + count), this.#heldLength);
    this.#heldLength = length;
    this.#at += count;
  }

  #length(bytes: Bytes, at: number): number {
    const flags = bytes[at]!;
    if (flags > 1) throw grpcError(INTERNAL, `unknown message flags ${flags}`);
    const length =
      bytes[at + 1]! * 0x1000000 +
      ((bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
    if (length > this.#bytesMax) {
      throw grpcError(
        RESOURCE_EXHAUSTED,
        `received message larger than max (${length} vs. ${this.#bytesMax})`,
      );
    }
    return length;
  }

  #open(flags: number, bytes: Bytes): Bytes {
    if (flags === 0) return bytes;
    if (!this.#decompress) {
      throw grpcError(UNIMPLEMENTED, 'a compressed message without a known encoding');
    }
    return this.#decompress(bytes, this.#bytesMax);
  }
}

/**
 * The fast way: the message, when the chunk is exactly one uncompressed message within the limit,
 * which is how nearly every unary call arrives. Otherwise undefined, and a reader must decide.
 */
export function wholeMessage(chunk: Bytes, bytesMax: number): Bytes | undefined {
  const length = chunk.length - PREFIX_BYTES;
  if (length < 0 || length > bytesMax || chunk[0] !== 0) return undefined;
  const announced = chunk[1]! * 0x1000000 + ((chunk[2]! << 16) | (chunk[3]! << 8) | chunk[4]!);
  return announced === length ? chunk.subarray(PREFIX_BYTES) : undefined;
}

/** A message with its prefix, for bytes that are encoded already. */
export function frameMessage(message: Bytes, compressed = false): Bytes {
  const framed = new Uint8Array(PREFIX_BYTES + message.length);
  const { length } = message;
  framed[0] = compressed ? 1 : 0;
  framed[1] = length >>> 24;
  framed[2] = length >>> 16;
  framed[3] = length >>> 8;
  framed[4] = length;
  framed.set(message, PREFIX_BYTES);
  return framed;
}
