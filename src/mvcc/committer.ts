/**
 * Group commit: requests queue up, and a round takes all that wait. While the store makes one round
 * durable the next is evaluated on what it will have left behind.
 *
 * The order of events is the promise of the store: evaluate, make durable, publish, answer. A
 * request that is refused during evaluation is answered with the commit too, since the state it was
 * refused on may not be durable before. When a round fails nothing can be said about what was in it;
 * the committer is finished, and whoever waits is told so.
 */
import { abortError, HoldfastError } from '../model/errors.ts';
import { encodeState, STATE_KEY, type State } from './layout.ts';
import type { Store, Table } from './table.ts';
import { type LeaseRegister, type RevisionChanges, Writer } from './writer.ts';

/** Requests evaluated in one round at most, so that no round can hold up the loop for long. */
const ROUND_REQUESTS_MAX = 4_096;
/** How often a round asks whether the store had better have what there is. */
const LOOK_REQUESTS = 8;

interface Pending {
  readonly work: (writer: Writer) => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: HoldfastError) => void;
  taken: boolean;
  cancelled: boolean;
  /** What it comes to when the commit is durable: a value, or why it was refused. */
  value: unknown;
  error: HoldfastError | undefined;
}

interface Round {
  readonly taken: readonly Pending[];
  readonly state: State;
  readonly commits: readonly RevisionChanges[];
  readonly effects: Effects;
}

/** What becomes true in memory once a round is durable, whoever still waits for it. */
export type Effects = readonly (() => void)[];

export interface CommitterOptions {
  readonly store: Store;
  readonly state: State;
  readonly leases: LeaseRegister;
  readonly now: () => number;
  /** Called when a round has been evaluated: hands over the effects of what ran in it. */
  readonly effects: () => Effects;
  /** Called when a round is durable, before anything in it is answered. */
  readonly publish: (state: State, commits: readonly RevisionChanges[], effects: Effects) => void;
  /** Called once, when a round failed. */
  readonly failed: (error: HoldfastError) => void;
}

export class Committer {
  /** Told how many milliseconds each commit took, from its evaluation until it was durable. */
  onCommit: ((ms: number) => void) | undefined;
  readonly #options: CommitterOptions;
  /** As the last round evaluated leaves it behind, durable or not. */
  #state: State;
  #queue: Pending[] = [];
  /** A round that has not been evaluated yet, and will take what waits then. */
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();
  #refusal: HoldfastError | undefined;
  #failed = false;

  constructor(options: CommitterOptions) {
    this.#options = options;
    this.#state = options.state;
  }

  /**
   * Runs `work` in the next round and answers what it returned once that is durable. `work` may
   * throw a HoldfastError as long as it has changed nothing.
   */
  submit<T>(work: (writer: Writer) => T, signal?: AbortSignal): Promise<T> {
    if (this.#refusal) return Promise.reject(this.#refusal);
    if (signal?.aborted) return Promise.reject(abortError(signal, 'rejected'));
    let pending!: Pending;
    const answer = new Promise<T>((yes, reject) => {
      const resolve = yes as (value: unknown) => void;
      pending = {
        work,
        resolve,
        reject,
        taken: false,
        cancelled: false,
        value: undefined,
        error: undefined,
      };
    });
    this.#queue.push(pending);
    this.#begin();
    return signal ? this.#cancellable(pending, answer, signal) : answer;
  }

  /** Resolves when everything submitted so far has been answered; never rejects. */
  async settled(): Promise<void> {
    while (this.#next) await this.#next;
    await this.#last;
  }

  /** Refuses what is submitted from now on; what waits is still carried out. */
  refuse(error: HoldfastError): void {
    this.#refusal ??= error;
  }

  async #cancellable<T>(pending: Pending, answer: Promise<T>, signal: AbortSignal): Promise<T> {
    const onAbort = (): void => {
      pending.cancelled = true;
      pending.reject(abortError(signal, pending.taken ? 'unknown' : 'rejected'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await answer;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #begin(): void {
    this.#next ??= this.#last = this.#round();
  }

  async #round(): Promise<void> {
    // Let the caller's turn end first: what it submits together is committed together.
    await Promise.resolve();
    let taken: Pending[] = [];
    const { onCommit } = this;
    const sinceMs = onCommit ? this.#options.now() : 0;
    try {
      const round = await this.#options.store.commit((table) => {
        taken = this.#take();
        return this.#evaluate(table, taken);
      });
      this.#finish(round);
      onCommit?.(this.#options.now() - sinceMs);
    } catch (error) {
      this.#fail(error, taken);
    }
  }

  #take(): Pending[] {
    this.#next = undefined;
    const taken = this.#queue;
    this.#queue = taken.length > ROUND_REQUESTS_MAX ? taken.splice(ROUND_REQUESTS_MAX) : [];
    return taken;
  }

  #evaluate(table: Table, taken: Pending[]): Round {
    const { store, leases, effects } = this.#options;
    const writer = new Writer(table, this.#state, leases);
    for (let next = 0; next < taken.length; next++) {
      if (next > 0 && next % LOOK_REQUESTS === 0 && store.isPressed) {
        // The disk waits: what is left is another round.
        this.#queue = taken.splice(next).concat(this.#queue);
        break;
      }
      const pending = taken[next]!;
      pending.taken = !pending.cancelled;
      if (pending.taken) attempt(pending, writer);
    }
    if (this.#queue.length > 0) this.#begin();
    if (writer.state !== this.#state) table.put(STATE_KEY, encodeState(writer.state));
    this.#state = writer.state;
    return { taken, state: writer.state, commits: writer.committed, effects: effects() };
  }

  #finish({ taken, state, commits, effects }: Round): void {
    this.#options.publish(state, commits, effects);
    for (const { resolve, reject, error, value } of taken) {
      if (error) reject(error);
      else resolve(value);
    }
  }

  #fail(cause: unknown, taken: readonly Pending[]): void {
    const message = `the store stopped: ${cause instanceof Error ? cause.message : String(cause)}`;
    const code = HoldfastError.is(cause) ? cause.code : 'storage-failed';
    const refusal = new HoldfastError(code, message, { cause });
    const lost = new HoldfastError(code, message, { cause, outcome: 'unknown' });
    const waiting = this.#queue;
    this.#queue = [];
    this.#next = undefined;
    this.#refusal = refusal;
    for (const pending of taken) pending.reject(lost);
    for (const pending of waiting) pending.reject(refusal);
    if (this.#failed) return;
    this.#failed = true;
    this.#options.failed(refusal);
  }
}

/** A typed refusal is an answer; anything else is a fault in the software and stops the commit. */
function attempt(pending: Pending, writer: Writer): void {
  try {
    pending.value = pending.work(writer);
  } catch (error) {
    if (!HoldfastError.is(error) || error.code === 'corrupt') throw error;
    pending.error = error;
  }
}
