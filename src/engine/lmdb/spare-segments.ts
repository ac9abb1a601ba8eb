/**
 * Segments that are done with, kept for those to come. A file that is there is made blank again in a
 * third of the time that a new one takes, and needs no room that a full disk may not have.
 *
 * Until all of it is blank and on the disk it has a name by which nobody reads it. A start, and a
 * close, remove what is left of them.
 */
import { rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { segmentOfName } from './journal-format.ts';

/** The segments of a usual fold. */
const SPARES_MAX = 8;
const SPARE = 'spare-';

export class SpareSegments {
  readonly #directory: string;
  readonly #bytes: number;
  readonly #paths: string[] = [];

  /** Of segments that have `bytes`, others are not kept. */
  constructor(directory: string, bytes: number) {
    this.#directory = directory;
    this.#bytes = bytes;
  }

  /** Takes the segment out of the journal: to be used again, or to be gone. */
  async retire(name: string): Promise<void> {
    const path = join(this.#directory, name);
    const { size } = await stat(path);
    if (size !== this.#bytes || this.#paths.length >= SPARES_MAX) {
      await rm(path);
      return;
    }
    const spare = join(this.#directory, SPARE + name);
    await rename(path, spare);
    this.#paths.push(spare);
  }

  /** Where one of this size stands that nobody else has; there may be anything in it. */
  take(bytes: number): string | undefined {
    return bytes === this.#bytes ? this.#paths.pop() : undefined;
  }

  get bytes(): number {
    return this.#paths.length * this.#bytes;
  }

  /** Gives their room back. */
  async drop(): Promise<void> {
    for (const path of this.#paths.splice(0)) await rm(path, { force: true });
  }
}

/** Of which segment this is what is left; undefined: it is no spare one. */
export function segmentOfSpare(name: string): ReturnType<typeof segmentOfName> {
  return name.startsWith(SPARE) ? segmentOfName(name.slice(SPARE.length)) : undefined;
}
