/** Counts connections in total and per address, before anything is spent on them. */
export class Gate {
  readonly #total: number;
  readonly #perAddress: number;
  readonly #open = new Map<string, number>();
  open = 0;

  constructor(total: number, perAddress: number) {
    this.#total = total;
    this.#perAddress = perAddress;
  }

  /** Undefined when full; else what to call, once, when the connection is gone. */
  enter(address: string): (() => void) | undefined {
    const here = this.#open.get(address) ?? 0;
    if (this.open >= this.#total || here >= this.#perAddress) return undefined;
    this.open++;
    this.#open.set(address, here + 1);
    return () => {
      this.open--;
      const left = (this.#open.get(address) ?? 1) - 1;
      if (left === 0) this.#open.delete(address);
      else this.#open.set(address, left);
    };
  }
}
