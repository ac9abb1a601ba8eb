/**
 * Group commit: requests queue up, one commit at a time takes all that wait.
 *
 * The order of events is the promise of the store: evaluate, make durable, publish, answer. A
 * request that is refused during evaluation is answered with the commit too, since the state it was
 * refused on may not be durable before. When a commit fails nothing can be said about what was in
 * it; the committer is finished, and whoever waits is told so.
 */
import { type Deferred, deferred } from '../base/deferred.ts';
import { abortError, HoldfastError } from '../model/errors.ts';
import { encodeState, STATE_KEY, type State } from './layout.ts';
import type { Store, Table } from './table.ts';
import { type LeaseRegister, type RevisionChanges, Writer } from './writer.ts';

/** Requests evaluated in one commit at most, so that one commit cannot hold up the loop for long. */
const COMMIT_REQUESTS_MAX = 4_096;

interface Pending {
  readonly work: (writer: Writer) => unknown;
  readonly answer: Deferred<unknown>;
  taken: boolean;
  cancelled: boolean;
  /** What it comes to when the commit is durable: a value, or why it was refused. */
  value: unknown;
  error: HoldfastError | undefined;
}

interface Round {
  readonly state: State;
  readonly commits: readonly RevisionChanges[];
}

export interface CommitterOptions {
  readonly store: Store;
  readonly state: State;
  readonly leases: LeaseRegister;
  readonly now: () => number;
  /** Called when a commit is durable, before anything in it is answered. */
  readonly publish: (state: State, commits: readonly RevisionChanges[]) => void;
  /** Called once, when a commit failed. */
  readonly failed: (error: HoldfastError) => void;
}

export class Committer {
  /** Told how many milliseconds each commit took, from its evaluation until it was durable. */
  onCommit: ((ms: number) => void) | undefined;
  readonly #options: CommitterOptions;
  #state: State;
  #queue: Pending[] = [];
  #inFlight: Pending[] = [];
  #running: Promise<void> | undefined;
  #refusal: HoldfastError | undefined;

  constructor(options: CommitterOptions) {
    this.#options = options;
    this.#state = options.state;
  }

  /**
   * Runs `work` in the next commit and answers what it returned once that is durable. `work` may
   * throw a HoldfastError as long as it has changed nothing.
   */
  submit<T>(work: (writer: Writer) => T, signal?: AbortSignal): Promise<T> {
    if (this.#refusal) return Promise.reject(this.#refusal);
    if (signal?.aborted) return Promise.reject(abortError(signal, 'rejected'));
    const pending: Pending = {
      work,
      answer: deferred(),
      taken: false,
      cancelled: false,
      value: undefined,
      error: undefined,
    };
    this.#queue.push(pending);
    this.#running ??= this.#run();
    const answer = pending.answer.promise as Promise<T>;
    return signal ? this.#cancellable(pending, answer, signal) : answer;
  }

  /** Resolves when everything submitted so far has been answered; never rejects. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running;
  }

  /** Refuses what is submitted from now on; what waits is still carried out. */
  refuse(error: HoldfastError): void {
    this.#refusal ??= error;
  }

  async #cancellable<T>(pending: Pending, answer: Promise<T>, signal: AbortSignal): Promise<T> {
    const onAbort = (): void => {
      pending.cancelled = true;
      pending.answer.reject(abortError(signal, pending.taken ? 'unknown' : 'rejected'));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await answer;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async #run(): Promise<void> {
    // Let the caller's turn end first: what it submits together is committed together.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      try {
        const { onCommit } = this;
        const sinceMs = onCommit ? this.#options.now() : 0;
        const round = await this.#options.store.commit((table) => this.#evaluate(table));
        this.#finish(round);
        onCommit?.(this.#options.now() - sinceMs);
      } catch (error) {
        this.#fail(error);
      }
    }
    this.#running = undefined;
  }

  #evaluate(table: Table): Round {
    this.#inFlight = this.#takeQueue();
    const writer = new Writer(table, this.#state, this.#options.leases);
    for (const pending of this.#inFlight) {
      pending.taken = !pending.cancelled;
      if (pending.taken) attempt(pending, writer);
    }
    if (writer.state !== this.#state) table.put(STATE_KEY, encodeState(writer.state));
    return { state: writer.state, commits: writer.committed };
  }

  #takeQueue(): Pending[] {
    const queue = this.#queue;
    if (queue.length > COMMIT_REQUESTS_MAX) return queue.splice(0, COMMIT_REQUESTS_MAX);
    this.#queue = [];
    return queue;
  }

  #finish(round: Round): void {
    const finished = this.#inFlight;
    this.#inFlight = [];
    this.#state = round.state;
    this.#options.publish(round.state, round.commits);
    for (const { answer, error, value } of finished) {
      if (error) answer.reject(error);
      else answer.resolve(value);
    }
  }

  #fail(cause: unknown): void {
    const message = `the store stopped: ${cause instanceof Error ? cause.message : String(cause)}`;
    const code = HoldfastError.is(cause) ? cause.code : 'storage-failed';
    this.#refusal = new HoldfastError(code, message, { cause });
    const lost = new HoldfastError(code, message, { cause, outcome: 'unknown' });
    for (const pending of this.#inFlight) pending.answer.reject(lost);
    for (const pending of this.#queue) pending.answer.reject(this.#refusal);
    this.#inFlight = [];
    this.#queue = [];
    this.#options.failed(this.#refusal);
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
