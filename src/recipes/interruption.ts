/**
 * What may end one caller's wait early: its own signal, its time, the loss of its session.
 *
 * Not an AbortSignal: a thousand waiters of one session would hang a thousand listeners on one
 * signal. `race` leaves nothing behind when the work settles first.
 */
import type { Clock } from '../base/clock.ts';
import { abortError } from '../model/errors.ts';

export class Interruption {
  #error: unknown;
  #interrupted = false;
  readonly #rejects = new Set<(error: unknown) => void>();
  readonly #undo: (() => void)[] = [];

  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Interrupts when the caller's signal aborts. */
  onSignal(signal: AbortSignal | undefined): this {
    if (!signal) return this;
    const onAbort = (): void => this.interrupt(abortError(signal, 'rejected'));
    if (signal.aborted) onAbort();
    else {
      signal.addEventListener('abort', onAbort, { once: true });
      this.#undo.push(() => signal.removeEventListener('abort', onAbort));
    }
    return this;
  }

  /** Interrupts when the clock reaches `atMs`, with what `error` makes then. */
  onTime(clock: Clock, atMs: number, error: () => unknown): this {
    this.#undo.push(clock.wakeAt(atMs, () => this.interrupt(error())));
    return this;
  }

  /** Interrupts when `subscribe` calls back; it answers how to unsubscribe. */
  on(subscribe: (fail: (error: unknown) => void) => () => void): this {
    this.#undo.push(subscribe((error) => this.interrupt(error)));
    return this;
  }

  interrupt(error: unknown): void {
    if (this.#interrupted) return;
    this.#interrupted = true;
    this.#error = error;
    for (const reject of this.#rejects) reject(error);
    this.#rejects.clear();
  }

  throwIfInterrupted(): void {
    if (this.#interrupted) throw this.#error;
  }

  /** Settles as `work` does, or rejects as soon as the interruption comes. */
  race<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#interrupted) {
        work.catch(() => {});
        reject(this.#error);
        return;
      }
      this.#rejects.add(reject);
      work.then(
        (value) => {
          this.#rejects.delete(reject);
          resolve(value);
        },
        (error: unknown) => {
          this.#rejects.delete(reject);
          reject(error);
        },
      );
    });
  }

  dispose(): void {
    for (const step of this.#undo.splice(0)) step();
    this.#rejects.clear();
  }
}
