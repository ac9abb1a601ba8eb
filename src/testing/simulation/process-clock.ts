/**
 * The clock of one simulated process: runs at its own speed against the world's, and stands still
 * for the process while it is paused. What falls due during a pause happens late, in order.
 */
import type { Clock, ManualClock } from '../../base/clock.ts';

interface Late {
  readonly run: () => void;
  cancelled: boolean;
}

/** Rounding must not let an alarm find its time not yet come. */
const EPSILON_MS = 0.001;

export class ProcessClock implements Clock {
  readonly #world: ManualClock;
  readonly #rate: number;
  readonly #startMs: number;
  readonly #sleepy: boolean;
  #paused = false;
  #pausedAtMs = 0;
  #sleptMs = 0;
  #late: Late[] = [];

  /**
   * `rate`: milliseconds of this clock per millisecond of the world. `sleepy`: stands still during
   * a pause, as a monotonic clock does while the machine is suspended; a bug for judging leases.
   */
  constructor(world: ManualClock, rate: number, sleepy = false) {
    this.#world = world;
    this.#rate = rate;
    this.#sleepy = sleepy;
    this.#startMs = world.now();
  }

  get paused(): boolean {
    return this.#paused;
  }

  now(): number {
    return (this.#world.now() - this.#startMs - this.#sleptMs) * this.#rate;
  }

  /** How long the world takes for this many milliseconds of the process. */
  toWorldMs(ms: number): number {
    return ms / this.#rate;
  }

  wall(): number {
    return this.#world.wall();
  }

  wakeAt(atMs: number, wake: () => void): () => void {
    const late: Late = { run: wake, cancelled: false };
    const worldMs = this.#startMs + this.#sleptMs + atMs / this.#rate + EPSILON_MS;
    const cancel = this.#world.wakeAt(worldMs, () => this.#run(late));
    return () => {
      late.cancelled = true;
      cancel();
    };
  }

  /** Runs now, or when the process goes on: an answer reaches a paused process late, too. */
  deliver(run: () => void): void {
    this.#run({ run, cancelled: false });
  }

  pause(): void {
    this.#paused = true;
    this.#pausedAtMs = this.#world.now();
  }

  resume(): void {
    this.#paused = false;
    if (this.#sleepy) this.#sleptMs += this.#world.now() - this.#pausedAtMs;
    for (const late of this.#late.splice(0)) if (!late.cancelled) late.run();
  }

  #run(late: Late): void {
    if (this.#paused) this.#late.push(late);
    else if (!late.cancelled) late.run();
  }
}
