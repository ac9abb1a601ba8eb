/** A tenant's request rate: a bucket that fills at a steady pace. The time is an argument. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #burst: number;
  #level: number;
  #atMs: number;

  constructor(perSecond: number, burst: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#level = burst;
    this.#atMs = nowMs;
  }

  /** Takes one request's worth if it is there. */
  take(nowMs: number): boolean {
    const elapsedMs = Math.max(0, nowMs - this.#atMs);
    this.#atMs = nowMs;
    this.#level = Math.min(this.#burst, this.#level + (elapsedMs * this.#perSecond) / 1_000);
    if (this.#level < 1) return false;
    this.#level--;
    return true;
  }
}
