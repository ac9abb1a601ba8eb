/**
 * The servers that a request comes through, so that one that leads back to itself is noticed.
 *
 * A server whose engine is another server (a gateway) says with every request who it is, and who it
 * has seen come through it. Where two gateways name each other as their engine, directly or over
 * others, the first request to come round finds its own name among them.
 */
import type { Random } from '../base/random.ts';

/** Metadata of requests to the server behind. */
export const HOPS_HEADER = 'holdfast-hops';

export const LOOP_MESSAGE =
  'this server is, perhaps through others, its own engine: the gateways name each other; give one of them another --engine';

/** What goes with requests stays short, whatever callers invent; the eldest are forgotten. */
const HOPS_MAX = 32;
const NAME = /^[0-9a-f]{16}$/;

export class Hops {
  /** Of this process, and of no other before or after it. */
  readonly own: string;
  readonly #through = new Set<string>();
  #onChange: () => void = () => {};

  constructor(random: Random) {
    const half = (): string =>
      random
        .integer(0, 2 ** 32)
        .toString(16)
        .padStart(8, '0');
    this.own = half() + half();
  }

  /** Everybody known to come through here, and this server last. */
  get value(): string {
    return [...this.#through, this.own].join(',');
  }

  onChange(listener: () => void): void {
    this.#onChange = listener;
  }

  /** Takes note of a request's hops. False: it has been here before. */
  arrive(value: string): boolean {
    let changed = false;
    for (const name of value.split(',', HOPS_MAX + 1)) {
      if (name === this.own) return false;
      if (!NAME.test(name) || this.#through.has(name)) continue;
      this.#through.add(name);
      changed = true;
    }
    for (const eldest of this.#through) {
      if (this.#through.size <= HOPS_MAX) break;
      this.#through.delete(eldest);
    }
    if (changed) this.#onChange();
    return true;
  }
}
