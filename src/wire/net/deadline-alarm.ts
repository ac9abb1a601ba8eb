/** Drives `Deadlines` by a clock: one alarm for all calls of a server or client. */
import type { Clock } from '../../base/clock.ts';
import { Deadlines, type Expiring } from '../grpc/deadlines.ts';

export class DeadlineAlarm {
  readonly #clock: Clock;
  readonly #deadlines = new Deadlines();
  #armedAtMs = Number.POSITIVE_INFINITY;
  #cancel: () => void = () => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(entry: Expiring, atMs: number, now: number): void {
    this.#deadlines.add(entry, atMs, now);
    this.#arm();
  }

  remove(entry: Expiring): void {
    this.#deadlines.remove(entry);
  }

  /** Nothing fires after this. */
  stop(): void {
    this.#cancel();
    this.#armedAtMs = Number.NEGATIVE_INFINITY;
  }

  #arm(): void {
    const atMs = this.#deadlines.nextAtMs;
    if (atMs >= this.#armedAtMs) return;
    this.#cancel();
    this.#armedAtMs = atMs;
    this.#cancel = this.#clock.wakeAt(atMs, () => {
      this.#armedAtMs = Number.POSITIVE_INFINITY;
      this.#deadlines.expire(this.#clock.now());
      this.#arm();
    });
  }
}
