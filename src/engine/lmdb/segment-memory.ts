/**
 * Reads segments into memory that is used again for those of the next fold: the first touch of each
 * page of new memory takes longer than reading what is to stand there.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Bytes } from '../../base/bytes.ts';

/** What is kept: the segments of a usual fold. */
const ROOMS_MAX = 10;

export class SegmentMemory {
  readonly #rooms: Bytes[] = [];
  #used = 0;

  /** What was read before is needed no more. */
  begin(): void {
    this.#used = 0;
  }

  /** Undefined: there is no such file. */
  read(path: string): Bytes | undefined {
    const fd = openIfThere(path);
    if (fd === undefined) return undefined;
    try {
      const { size } = fstatSync(fd);
      const room = this.#room(size);
      let length = 0;
      for (let more = 1; more > 0 && length < size; length += more) {
        more = readSync(fd, room, length, size - length, length);
      }
      return room.subarray(0, length);
    } finally {
      closeSync(fd);
    }
  }

  #room(size: number): Bytes {
    const at = this.#used++;
    const present = this.#rooms[at];
    if (present && present.length >= size) return present;
    const room = new Uint8Array(size);
    if (at < ROOMS_MAX) this.#rooms[at] = room;
    return room;
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOENT') return undefined;
    throw error;
  }
}
