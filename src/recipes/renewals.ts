/** Who hears that a session was renewed, and how close it was. */
export interface Renewal {
  /** What was left until the holder would have had to stop. */
  readonly leftMs: number;
  /** Less than a third of the TTL: attempts before this one failed, or the event loop stood still. */
  readonly late: boolean;
}

export class Renewals {
  readonly #listeners = new Set<(renewal: Renewal) => void>();

  add(tell: (renewal: Renewal) => void): () => void {
    this.#listeners.add(tell);
    return () => this.#listeners.delete(tell);
  }

  tell(leftMs: number, ttlMs: number): void {
    for (const listener of this.#listeners) listener({ leftMs, late: leftMs < ttlMs / 3 });
  }
}
