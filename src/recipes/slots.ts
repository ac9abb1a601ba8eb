/** Which keys a session uses in which line, so that no two claims of it meet under one. */
import type { Bytes } from '../base/bytes.ts';
import type { LeaseId } from '../model/transaction.ts';
import { type ClaimKeys, claimKey } from './keys.ts';

/** A key that no other claim of the session uses. */
export interface TakenKey {
  readonly key: Bytes;
  readonly slot: number;
  /** Of the line, among those of the session. */
  readonly line: string;
}

/** Lines of which nothing is taken are kept up to this many in all: they come again. */
const LINES_MAX = 1_000;

/** The numbers of one line; `taken` includes those never given back. */
interface Numbers {
  readonly free: number[];
  next: number;
  taken: number;
}

export class Slots {
  readonly #lines = new Map<string, Numbers>();

  take({ line, prefix, first }: ClaimKeys, lease: LeaseId): TakenKey {
    let numbers = this.#lines.get(line);
    if (!numbers) {
      if (this.#lines.size >= LINES_MAX) this.#forgetFree();
      numbers = { free: [], next: 0, taken: 0 };
      this.#lines.set(line, numbers);
    }
    const slot = numbers.free.pop() ?? numbers.next++;
    numbers.taken++;
    return { key: slot === 0 ? first : claimKey(prefix, lease, slot), slot, line };
  }

  giveBack({ line, slot }: TakenKey): void {
    const numbers = this.#lines.get(line);
    if (!numbers) return;
    numbers.free.push(slot);
    numbers.taken--;
  }

  #forgetFree(): void {
    for (const [line, { taken }] of this.#lines) if (taken === 0) this.#lines.delete(line);
  }
}
