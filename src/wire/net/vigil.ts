/**
 * Staying awake between the requests of a client that asks again as soon as it has its answer.
 *
 * A loop that has nothing to do sleeps in the kernel, and waking a sleeping processor costs more
 * than answering a read. So while requests and answers follow each other closely, the loop looks for
 * the next one without going to sleep; when none has come for a moment it sleeps as ever. A server
 * that nobody uses burns nothing, and one that is busy never gets to it.
 */
import type { Clock } from '../../base/clock.ts';

export class Vigil {
  readonly #clock: Clock;
  readonly #forMs: number;
  #stirredAtMs = Number.NEGATIVE_INFINITY;
  #awake = false;

  readonly #look = (): void => {
    this.#awake = this.#clock.now() - this.#stirredAtMs <= this.#forMs;
    if (this.#awake) setImmediate(this.#look);
  };

  /** `forMs`: how long after a sign of life the loop stays awake; 0: it never does. */
  constructor(clock: Clock, forMs: number) {
    this.#clock = clock;
    this.#forMs = forMs;
  }

  /** Something was read or written. The first time in a while is no reason to expect more. */
  stirred(): void {
    if (this.#forMs === 0) return;
    const now = this.#clock.now();
    const follows = now - this.#stirredAtMs <= this.#forMs;
    this.#stirredAtMs = now;
    if (this.#awake || !follows) return;
    this.#awake = true;
    setImmediate(this.#look);
  }
}
