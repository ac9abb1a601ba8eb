/**
 * How the evaluation of works keeps pace with the disk: what a sync takes, when the one under way
 * will be over, and how long the open batch has been evaluated and may go on to be.
 */
import type { Clock } from '../../base/clock.ts';

/** How much a sync that took longer than the others counts. */
const SYNC_WEIGHT = 1 / 32;
/** Handing a sync to another thread and being woken by it costs about as much as such a sync. */
const BRIEF_MS = 1;
/** After one that took so long, others wait for the next ones. */
const LONG_MS = 8;
/** So many of them, then one is tried here; twice as many each time that does no good. */
const HANDED_OVER = 32;
const HANDED_OVER_MAX = 4_096;
/** What a batch is evaluated for at most where its sync is waited for: the loop has other work. */
const TURN_MS = 4;

/** Who waits for syncs: this thread, or one of the pool. Without a word it depends on the disk. */
export type SyncPlace = 'here' | 'elsewhere';

export class Pace {
  readonly #clock: Clock;
  readonly #always: SyncPlace | undefined;
  #syncMs = 0;
  #writtenMs = 0;
  #fromMs = 0;
  #untilMs = 0;
  #tookMs = 0;
  /** What one takes that is waited for here. */
  #hereMs = 0;
  #shortOnes = 0;
  /** So many syncs are done elsewhere before one is tried here; and so many the next time. */
  #elsewhere = 0;
  #patience = HANDED_OVER;

  constructor(clock: Clock, always?: SyncPlace) {
    this.#clock = clock;
    this.#always = always;
  }

  /** What a sync takes, by the short ones of late. */
  get syncMs(): number {
    return this.#syncMs;
  }

  /** Syncs are so short that waiting for one here is cheaper than having it done elsewhere. */
  get waitsHere(): boolean {
    return this.#always ? this.#always === 'here' : this.#elsewhere === 0;
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

  /** A sync that this thread waits for. */
  here(sync: () => void): void {
    const from = this.#clock.now();
    sync();
    this.#tookHere(this.#clock.now() - from);
  }

  /** One that another thread does; what this one does meanwhile may make it look longer. */
  async elsewhere(sync: () => Promise<void>): Promise<void> {
    const from = this.#clock.now();
    await sync();
    this.#tookElsewhere(this.#clock.now() - from);
  }

  #tookHere(ms: number): void {
    this.#hereMs = average(this.#hereMs, ms);
    if (ms <= LONG_MS && this.#hereMs <= BRIEF_MS) {
      if (++this.#shortOnes >= HANDED_OVER) this.#patience = HANDED_OVER;
      return;
    }
    // Until one has been seen that was done elsewhere, this is what is known.
    if (this.#syncMs === 0) this.#syncMs = ms;
    this.#hereMs = 0;
    this.#shortOnes = 0;
    this.#elsewhere = this.#patience;
    this.#patience = Math.min(2 * this.#patience, HANDED_OVER_MAX);
  }

  #tookElsewhere(ms: number): void {
    this.#syncMs = average(this.#syncMs, ms);
    if (this.#elsewhere > 0) this.#elsewhere--;
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

/** By the short ones: one that takes longer than the others has mostly waited for something else. */
function average(formerMs: number, ms: number): number {
  const weight = ms < formerMs || formerMs === 0 ? 1 : SYNC_WEIGHT;
  return formerMs + (ms - formerMs) * weight;
}
