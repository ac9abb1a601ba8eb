/**
 * How a server leaves: calls that would never end by themselves are told first, and all at once.
 *
 * A watch, a stream of renewals, a place in a line or an observer ends only when its client or
 * somebody else does something. Left alone they would use up the time to finish, and be cut off at
 * its end without a word. Told at the start, with a status that says "again, elsewhere", their
 * clients go on on another server while what is short is finished here. Nothing is lost by it: a
 * watch resumes behind the last revision that it was told, a waiter finds its place by its lease.
 */
import { abortable, type LinkedAbort, linkAbort } from '../base/abort.ts';
import type { HoldfastError } from '../model/errors.ts';
import { rpcError } from '../wire/messages/status.ts';

export class Departure {
  /** A set and no signal: each of many thousand streams joins and leaves it in one step. */
  readonly #staying = new Set<(reason: HoldfastError) => void>();
  #reason: HoldfastError | undefined;

  get begun(): boolean {
    return this.#reason !== undefined;
  }

  /** Tells everybody; who comes later is told on arrival. */
  begin(): void {
    if (this.#reason) return;
    this.#reason = rpcError('stopped');
    const staying = [...this.#staying];
    this.#staying.clear();
    for (const leave of staying) leave(this.#reason);
  }

  /** Runs once when the server leaves; at once if it does already. Answers how to take it back. */
  onLeave(leave: (reason: HoldfastError) => void): () => void {
    if (this.#reason) {
      leave(this.#reason);
      return () => {};
    }
    this.#staying.add(leave);
    return () => this.#staying.delete(leave);
  }

  /** For what waits: aborts with the call, or when the server leaves. Unlink it in `finally`. */
  link(signal: AbortSignal): LinkedAbort {
    const linked = linkAbort(signal);
    const forget = this.onLeave((reason) => linked.controller.abort(reason));
    return {
      ...linked,
      unlink: () => {
        forget();
        linked.unlink();
      },
    };
  }

  /** Settles as the work does, but rejects as soon as the call is over or the server leaves. */
  async during<T>(signal: AbortSignal, work: (over: AbortSignal) => Promise<T>): Promise<T> {
    const over = this.link(signal);
    try {
      return await abortable(work(over.signal), over.signal);
    } finally {
      over.unlink();
    }
  }

  /** Requests as they come; throws when the call is over or the server leaves. */
  async *whileHere<T>(requests: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
    const coming = requests[Symbol.asyncIterator]();
    try {
      for (;;) {
        const step = await this.during(signal, () => coming.next());
        if (step.done) return;
        yield step.value;
      }
    } finally {
      // Who waits for a request that never comes cannot be waited for.
      coming.return?.().catch(() => {});
    }
  }
}
