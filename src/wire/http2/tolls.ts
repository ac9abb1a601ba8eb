/**
 * What a peer may demand of us per unit of time. Each method pays for one demand and answers the fault
 * when the peer has used up its budget, which costs it the connection.
 */
import { type Fault, tooMuch } from './errors.ts';
import { Budget, type Limits } from './limits.ts';

/** How many window updates one DATA frame of ours explains. */
const UPDATES_PER_FRAME = 10;
/** Who waits so long before he resets is not rapid. */
const PATIENT_MS = 1_000;

export class Tolls {
  now = 0;
  #explained = 0;
  readonly #resets: Budget;
  readonly #pings: Budget;
  readonly #settings: Budget;
  readonly #empty: Budget;
  readonly #updates: Budget;
  readonly #idle: Budget;

  constructor(limits: Limits) {
    this.#resets = new Budget(limits.resets);
    this.#pings = new Budget(limits.pings);
    this.#settings = new Budget(limits.settings);
    this.#empty = new Budget(limits.emptyFrames);
    this.#updates = new Budget(limits.windowUpdates);
    this.#idle = new Budget(limits.idleFrames);
  }

  /** One that was open for long was no part of a flood: only so many are open at once. */
  reset(openedAtMs: number = this.now): Fault | undefined {
    if (this.now - openedAtMs >= PATIENT_MS) return undefined;
    return this.#pay(this.#resets, 'too many streams reset');
  }

  /** A stream came to its proper end: useful work, which explains a reset elsewhere. */
  finished(): void {
    this.#resets.earn(1);
  }

  settings(): Fault | undefined {
    return this.#pay(this.#settings, 'too many SETTINGS frames');
  }

  empty(): Fault | undefined {
    return this.#pay(this.#empty, 'too many empty frames');
  }

  /** A frame that moves nothing. */
  idle(reason: string): Fault | undefined {
    return this.#pay(this.#idle, reason);
  }

  /** Pings and window updates are honest as far as they follow frames of ours. */
  ping(workFrames: number): Fault | undefined {
    this.#explain(workFrames);
    return this.#pay(this.#pings, 'too_many_pings');
  }

  windowUpdate(workFrames: number): Fault | undefined {
    this.#explain(workFrames);
    return this.#pay(this.#updates, 'too many window updates');
  }

  #explain(workFrames: number): void {
    const work = workFrames - this.#explained;
    if (work === 0) return;
    this.#explained = workFrames;
    this.#pings.earn(work);
    this.#updates.earn(work * UPDATES_PER_FRAME);
  }

  #pay(budget: Budget, reason: string): Fault | undefined {
    return budget.spend(this.now) ? undefined : tooMuch(reason);
  }
}
