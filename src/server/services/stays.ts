/**
 * What the Lock and Election services tell whoever counts: how long was waited, and how long what
 * was granted through them was kept until it was given back through them.
 */
import { type Bytes, binaryString } from '../../base/bytes.ts';
import type { Clock } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { LockFigures } from '../../recipes/figures.ts';

/** Holders remembered at most; those whose lease ended are forgotten this way. */
const HOLDERS_MAX = 10_000;

export class Stays {
  readonly #clock: Clock;
  readonly #figures: LockFigures | undefined;
  readonly #since = new Map<string, number>();

  constructor(clock: Clock, figures: LockFigures | undefined) {
    this.#clock = clock;
    this.#figures = figures;
  }

  /** Waits, and remembers when what came of it began; `keyOf` names it. */
  async wait<T>(work: () => Promise<T>, keyOf: (granted: T) => Bytes): Promise<T> {
    const figures = this.#figures;
    if (!figures) return work();
    const sinceMs = this.#clock.now();
    const waitedMs = (): number => this.#clock.now() - sinceMs;
    figures.asked();
    try {
      const granted = await work();
      figures.answered('acquired', waitedMs());
      this.#began(binaryString(keyOf(granted)));
      return granted;
    } catch (error) {
      figures.answered(HoldfastError.from(error).code, waitedMs());
      throw error;
    }
  }

  /** It was given back. */
  ended(key: Bytes): void {
    const name = binaryString(key);
    const sinceMs = this.#since.get(name);
    if (sinceMs === undefined) return;
    this.#since.delete(name);
    this.#figures?.ended(this.#clock.now() - sinceMs);
  }

  /** Asked again by its holder, a lock is granted again: it began with the first grant. */
  #began(name: string): void {
    if (this.#since.has(name)) return;
    this.#since.set(name, this.#clock.now());
    if (this.#since.size <= HOLDERS_MAX) return;
    for (const oldest of this.#since.keys()) {
      this.#since.delete(oldest);
      return;
    }
  }
}
