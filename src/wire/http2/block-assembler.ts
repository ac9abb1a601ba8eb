/** Joins HEADERS with its CONTINUATION frames into one block, within limits, and decodes it. */
import { type Bytes, concatBytes } from '../../base/bytes.ts';
import { ENHANCE_YOUR_CALM, type Fault } from './errors.ts';
import { type HeaderBlock, HpackDecoder } from './hpack/decode.ts';
import type { Limits } from './limits.ts';

export class BlockAssembler {
  readonly decoder: HpackDecoder;
  readonly #limits: Limits;
  #parts: Bytes[] = [];
  #bytes = 0;
  /** The stream whose block is not whole yet, or 0. */
  stream = 0;
  endStream = false;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.decoder = new HpackDecoder(limits);
  }

  begin(stream: number, endStream: boolean): void {
    this.stream = stream;
    this.endStream = endStream;
  }

  /** Parts are copied: a view would keep the whole chunk of each. */
  add(bytes: Bytes, start: number, end: number): Fault | undefined {
    this.#bytes += end - start;
    if (
      this.#bytes > this.#limits.headerBlockBytes ||
      this.#parts.length > this.#limits.continuations
    ) {
      return { code: ENHANCE_YOUR_CALM, reason: 'a header block without end' };
    }
    this.#parts.push(bytes.slice(start, end));
    return undefined;
  }

  finish(): HeaderBlock | undefined {
    const whole = concatBytes(...this.#parts);
    this.drop();
    return this.decoder.decode(whole, 0, whole.length);
  }

  drop(): void {
    this.#parts = [];
    this.#bytes = 0;
    this.stream = 0;
  }
}
