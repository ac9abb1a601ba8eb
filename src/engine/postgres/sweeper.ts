/**
 * Ends leases on time, together with every other process that is awake.
 *
 * Every answer of the database says how long it is until the next lease ends. Whoever knows sends a
 * sweep then; the lock on the row of truth lets one do it, and the others find nothing left. Each
 * waits a little at random so that they do not all come at once. A lease that somebody else granted
 * meanwhile is found by a look from time to time.
 */
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';

export interface SweeperOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Ends what is over. */
  sweep(): Promise<unknown>;
  /** Any question; its answer tells when the next lease ends. */
  look(): Promise<unknown>;
}

const LOOK_EVERY_MS = 1_000;
const SPREAD_MS = 15;

export class Sweeper {
  readonly #options: SweeperOptions;
  #cancel: () => void = () => {};
  #sweepAtMs: number | undefined;
  #heardAtMs = 0;
  #busy = false;
  #stopped = true;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stopped = false;
    this.#arm();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /** Milliseconds until the next lease ends, as an answer just told. */
  heard(dueMs: number | null): void {
    const { clock, random } = this.#options;
    this.#heardAtMs = clock.now();
    const before = this.#sweepAtMs;
    if (dueMs === null) this.#sweepAtMs = undefined;
    else if (before === undefined || Math.abs(before - this.#heardAtMs - dueMs) > SPREAD_MS * 2) {
      this.#sweepAtMs = this.#heardAtMs + Math.max(0, dueMs) + 1 + random.next() * SPREAD_MS;
    }
    if (this.#sweepAtMs !== before && !this.#busy) this.#arm();
  }

  #arm(): void {
    if (this.#stopped) return;
    this.#cancel();
    const lookAtMs = this.#options.clock.now() + LOOK_EVERY_MS;
    const atMs = Math.min(this.#sweepAtMs ?? lookAtMs, lookAtMs);
    this.#cancel = this.#options.clock.wakeAt(atMs, () => void this.#wake());
  }

  async #wake(): Promise<void> {
    const { clock } = this.#options;
    this.#busy = true;
    try {
      const now = clock.now();
      if (this.#sweepAtMs !== undefined && now >= this.#sweepAtMs) {
        this.#sweepAtMs = undefined;
        await this.#options.sweep();
      } else if (now - this.#heardAtMs >= LOOK_EVERY_MS / 2) await this.#options.look();
    } catch {
      // The database is away, or has gone back in time: there is nothing to end meanwhile.
    } finally {
      this.#busy = false;
      this.#arm();
    }
  }
}
