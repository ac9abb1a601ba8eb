/**
 * How the evaluation of works keeps pace with the disk: what a sync takes, when the one under way
 * will be over, and how long the open batch has been evaluated and may go on to be.
 */
import type { Clock } from '../../base/clock.ts';

/** How much a sync that took longer than the others counts. */
const SYNC_WEIGHT = 1 / 32;

export class Pace {
  readonly #clock: Clock;
  #syncMs = 0;
  #writtenMs = 0;
  #fromMs = 0;
  #untilMs = 0;
  #tookMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What a sync takes, by the short ones of late. */
  get syncMs(): number {
    return this.#syncMs;
  }

  /** Until the write under way will be on the disk, if its sync is a short one. */
  get leftMs(): number {
    return this.#writtenMs - this.#clock.now();
  }

  /** A write begins. */
  writes(): void {
    this.#writtenMs = this.#clock.now() + this.#syncMs;
  }

  async timed(sync: () => Promise<void>): Promise<void> {
    const from = this.#clock.now();
    await sync();
    const took = this.#clock.now() - from;
    this.#syncMs = took < this.#syncMs ? took : this.#syncMs + (took - this.#syncMs) * SYNC_WEIGHT;
  }

  /** Works are evaluated from now on, for about so long. */
  begin(forMs: number): void {
    this.#fromMs = this.#clock.now();
    this.#untilMs = this.#fromMs + forMs;
  }

  get isOver(): boolean {
    return this.#clock.now() > this.#untilMs;
  }

  end(): void {
    this.#tookMs += this.#clock.now() - this.#fromMs;
  }

  /** What evaluating the batch took that is closed now. */
  takeTook(): number {
    const took = this.#tookMs;
    this.#tookMs = 0;
    return took;
  }
}
