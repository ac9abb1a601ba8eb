/**
 * The open streams of a connection, by their numbers.
 *
 * Most calls come and go alone, or within one turn. A `Map` is made anew by the platform whenever it
 * grows from nothing or shrinks to it, which for such calls is every time; so the stream that was
 * opened last has a place of its own.
 */
import type { Stream } from './stream.ts';

export class StreamTable {
  #latest: Stream | undefined;
  readonly #others = new Map<number, Stream>();

  get size(): number {
    return this.#others.size + (this.#latest ? 1 : 0);
  }

  get(id: number): Stream | undefined {
    return this.#latest?.id === id ? this.#latest : this.#others.get(id);
  }

  /** Numbers only rise. */
  add(stream: Stream): void {
    if (this.#latest) this.#others.set(this.#latest.id, this.#latest);
    this.#latest = stream;
  }

  delete(id: number): void {
    if (this.#latest?.id === id) this.#latest = undefined;
    else this.#others.delete(id);
  }

  clear(): void {
    this.#latest = undefined;
    this.#others.clear();
  }

  /** Those open now, in the order in which they were opened. */
  all(): Stream[] {
    const all = [...this.#others.values()];
    if (this.#latest) all.push(this.#latest);
    return all;
  }
}
