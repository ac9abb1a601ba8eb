/**
 * Things that come and go all the time, in no order.
 *
 * Not a Set: one that is filled and emptied makes itself anew again and again, and each table that
 * it has given up points to the next, with what was in it. Once such a table counts as old, all
 * that ever was in the ones after it survives the quick collections, dead or not.
 */
export interface Bagged {
  /** Where it lies in its bag; the bag's own business. */
  place?: number | undefined;
}

export class Bag<T extends Bagged> implements Iterable<T> {
  readonly #things: T[] = [];

  get size(): number {
    return this.#things.length;
  }

  has(thing: T): boolean {
    return thing.place !== undefined && this.#things[thing.place] === thing;
  }

  /** A thing is in one bag at most, and once. */
  add(thing: T): void {
    thing.place = this.#things.push(thing) - 1;
  }

  /** Removing what is not there is no error. */
  delete(thing: T): void {
    if (!this.has(thing)) return;
    const last = this.#things.pop()!;
    if (last !== thing) {
      last.place = thing.place;
      this.#things[thing.place!] = last;
    }
    thing.place = undefined;
  }

  /** Those that are there now, whatever happens to the bag meanwhile. */
  [Symbol.iterator](): Iterator<T> {
    return [...this.#things][Symbol.iterator]();
  }
}
