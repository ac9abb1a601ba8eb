/** The connection's receive window, and the memory of streams we have reset. */
import { INITIAL_SETTINGS } from './settings.ts';

/** What the peer may still send on the connection; credit is announced in batches. */
export class WindowCredit {
  readonly #size: number;
  #left: number = INITIAL_SETTINGS.initialWindowSize;
  #unannounced = 0;

  /** A window smaller than the initial one cannot be announced: it is let run down instead. */
  constructor(size: number) {
    this.#size = size;
  }

  /** The increment that widens the initial window to our size. */
  open(): number {
    const increment = this.#size - this.#left;
    if (increment <= 0) {
      this.#unannounced = increment;
      return 0;
    }
    this.#left = this.#size;
    return increment;
  }

  /** False when the peer sends more than it may. */
  spend(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }

  /** The increment to announce now, 0 for later. */
  credit(bytes: number): number {
    this.#unannounced += bytes;
    if (this.#unannounced <= 0 || this.#unannounced * 2 < this.#size) return 0;
    const increment = this.#unannounced;
    this.#left += increment;
    this.#unannounced = 0;
    return increment;
  }
}

const REMEMBERED = 1_024;

/**
 * Frames may be under way when we reset a stream; on such a stream they are ignored, on one that
 * ended otherwise they are an error. The oldest are forgotten, and all below them excused.
 */
export class ResetMemory {
  readonly #ids = new Set<number>();
  #excusedUpTo = 0;

  add(id: number): void {
    this.#ids.add(id);
    if (this.#ids.size <= REMEMBERED) return;
    for (const oldest of this.#ids) {
      this.#ids.delete(oldest);
      if (oldest > this.#excusedUpTo) this.#excusedUpTo = oldest;
      return;
    }
  }

  has(id: number): boolean {
    return id <= this.#excusedUpTo || this.#ids.has(id);
  }
}
