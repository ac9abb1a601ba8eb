/** LMDB's lock file as somebody leaves it who opens the data file at the wrong moment. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { LOCK_FILE } from '../src/base/lmdb-note.ts';

const NOTE_AT = 8;
const MAGIC_BYTES = 4;

export class LockFile {
  readonly #fd: number;
  readonly #magic = Buffer.alloc(MAGIC_BYTES);

  constructor(directory: string) {
    this.#fd = openSync(join(directory, LOCK_FILE), 'r+');
    readSync(this.#fd, this.#magic, 0, MAGIC_BYTES, 0);
  }

  /** Which commit LMDB takes for the newest. */
  note(): number {
    const bytes = Buffer.alloc(8);
    readSync(this.#fd, bytes, 0, 8, NOTE_AT);
    return Number(bytes.readBigUInt64LE());
  }

  setBack(by = 1): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(this.note() - by));
    writeSync(this.#fd, bytes, 0, 8, NOTE_AT);
  }

  /** No lock file that we know: nothing is changed in it. */
  disguise(): void {
    writeSync(this.#fd, Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0);
  }

  reveal(): void {
    writeSync(this.#fd, this.#magic, 0, MAGIC_BYTES, 0);
  }

  /** Not while the store is open: it would end the file's locks. */
  close(): void {
    closeSync(this.#fd);
  }
}
