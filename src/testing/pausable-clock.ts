/**
 * One holder's view of time in a test: it can be frozen while everybody else's time goes on, and it
 * can run too fast or too slow.
 *
 * A frozen holder is a process that was stopped, is swapped out or collects garbage: none of its
 * timers fires, and code that a test lets run in its name still believes in the moment of the
 * freeze. When it goes on its time jumps to the present and all late timers fire at once.
 */
import type { Clock } from '../base/clock.ts';
import { type Deferred, deferred } from '../base/deferred.ts';

interface Alarm {
  readonly atMs: number;
  readonly order: number;
  readonly wake: () => void;
  /** Its time came while the holder was frozen. */
  late: boolean;
  cancel: () => void;
}

export interface PausableClockOptions {
  /** How far the rate may be from 1: what the deployment promises about its clocks. @default 0.05 */
  readonly driftMax?: number;
  /** This holder's seconds per second of the clock behind. @default 1 */
  readonly rate?: number;
}

/** 1.1 is meant to lie within a drift of 0.1, though in binary it does not. */
const ROUNDING = 1e-9;

export class PausableClock implements Clock {
  readonly #base: Clock;
  readonly #driftMax: number;
  readonly #alarms = new Set<Alarm>();
  #order = 0;
  /** The two clocks read these at one moment; from there `#rate` leads on. */
  #anchor: { readonly baseMs: number; readonly ownMs: number };
  #rate = 1;
  /** The latest own time anybody was told; rounding never goes behind it. */
  #seenMs = Number.NEGATIVE_INFINITY;
  #frozenMs: number | undefined;
  #running: Deferred<void> | undefined;

  constructor(base: Clock, options: PausableClockOptions = {}) {
    this.#base = base;
    this.#driftMax = options.driftMax ?? 0.05;
    this.#anchor = { baseMs: base.now(), ownMs: base.now() };
    if (options.rate !== undefined) this.setRate(options.rate);
  }

  get paused(): boolean {
    return this.#frozenMs !== undefined;
  }

  /** Timers that are set; a test uses it to prove that nothing was left behind. */
  get pending(): number {
    return this.#alarms.size;
  }

  now(): number {
    if (this.#frozenMs !== undefined) return this.#frozenMs;
    const { baseMs, ownMs } = this.#anchor;
    this.#seenMs = Math.max(this.#seenMs, ownMs + (this.#base.now() - baseMs) * this.#rate);
    return this.#seenMs;
  }

  wall(): number {
    return this.#base.wall();
  }

  wakeAt(atMs: number, wake: () => void): () => void {
    const alarm: Alarm = { atMs, order: this.#order++, wake, late: false, cancel: () => {} };
    this.#alarms.add(alarm);
    this.#arm(alarm);
    return () => {
      this.#alarms.delete(alarm);
      alarm.cancel();
    };
  }

  /** Freezes the holder. Freezing a frozen one changes nothing. */
  pause(): void {
    this.#frozenMs ??= this.now();
    this.#running ??= deferred();
  }

  /** Lets the holder go on: its time jumps to the present, its late timers fire in order. */
  resume(): void {
    if (this.#frozenMs === undefined) return;
    this.#frozenMs = undefined;
    const running = this.#running;
    this.#running = undefined;
    const late = [...this.#alarms].filter((alarm) => alarm.late);
    late.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
    for (const alarm of late) if (this.#alarms.has(alarm)) this.#fire(alarm);
    running?.resolve();
  }

  /** Resolves at once while the holder runs, otherwise when it goes on. */
  whenRunning(): Promise<void> {
    return this.#running?.promise ?? Promise.resolve();
  }

  /** From now on the holder's clock gains or loses; beyond the bound is refused. */
  setRate(rate: number): void {
    if (!(Math.abs(rate - 1) <= this.#driftMax + ROUNDING)) {
      throw new RangeError(`a rate of ${rate} is beyond the declared drift of ${this.#driftMax}`);
    }
    const { baseMs, ownMs } = this.#anchor;
    const now = this.#base.now();
    this.#anchor = { baseMs: now, ownMs: ownMs + (now - baseMs) * this.#rate };
    this.#rate = rate;
    for (const alarm of this.#alarms) {
      alarm.cancel();
      this.#arm(alarm);
    }
  }

  #arm(alarm: Alarm): void {
    if (alarm.late) return;
    const { baseMs, ownMs } = this.#anchor;
    const atBaseMs = baseMs + (alarm.atMs - ownMs) / this.#rate;
    alarm.cancel = this.#base.wakeAt(atBaseMs, () => {
      if (this.paused) alarm.late = true;
      else this.#fire(alarm);
    });
  }

  #fire(alarm: Alarm): void {
    this.#alarms.delete(alarm);
    this.#seenMs = Math.max(this.#seenMs, alarm.atMs);
    alarm.wake();
  }
}
