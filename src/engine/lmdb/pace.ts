/**
 * How the evaluation of works keeps pace with the disk: what a sync takes, when the one under way
 * will be over, and how long the open batch has been evaluated and may go on to be.
 */
import type { Clock } from '../../base/clock.ts';

/** How much a sync that took longer than the others counts. */
const SYNC_WEIGHT = 1 / 32;
/** Handing a sync to another thread and being woken by it costs about as much as such a sync. */
const BRIEF_MS = 0.5;
/** After one that took so long it is not the turn of this thread to wait for the next ones. */
const LONG_MS = 4;
const HANDED_OVER = 32;
/** What a sync takes here must be seen first. */
const FIRST_ELSEWHERE = 8;
/** What a batch is evaluated for at most where its sync is waited for: the loop has other work. */
const TURN_MS = 4;

export class Pace {
  readonly #clock: Clock;
  #syncMs = 0;
  #writtenMs = 0;
  #fromMs = 0;
  #untilMs = 0;
  #tookMs = 0;
  /** So many syncs are done elsewhere before one is waited for here. */
  #elsewhere = FIRST_ELSEWHERE;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What a sync takes, by the short ones of late. */
  get syncMs(): number {
    return this.#syncMs;
  }

  /** Syncs are so short that waiting for one here is cheaper than having it done elsewhere. */
  get isBrief(): boolean {
    return this.#elsewhere === 0 && this.#syncMs < BRIEF_MS;
  }

  /** For how long a batch had better be evaluated, whoever waits for its sync. */
  turnMs(here: boolean): number {
    return here ? TURN_MS : this.#syncMs;
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
    const weight = took < this.#syncMs || this.#syncMs === 0 ? 1 : SYNC_WEIGHT;
    this.#syncMs += (took - this.#syncMs) * weight;
    if (took > LONG_MS) this.#elsewhere = HANDED_OVER;
    else if (this.#elsewhere > 0) this.#elsewhere--;
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
