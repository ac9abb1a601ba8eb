/** A count-down latch: opens when it has been counted down to zero, and stays open. */
import { type Bytes, binaryString, text } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Authority } from './authority.ts';
import { changeNumber } from './counter.ts';
import { checkName, ownKey } from './keys.ts';
import type { SessionSource } from './lock.ts';
import { until, type WaitOptions } from './until.ts';

export class Latch {
  readonly #authority: Authority;
  readonly #sessions: SessionSource;
  readonly #key: Bytes;

  constructor(name: string, authority: Authority, sessions: SessionSource) {
    this.#authority = authority;
    this.#sessions = sessions;
    this.#key = ownKey(authority.namespace, 'latch', checkName(name));
  }

  /** Sets what is to be counted down; also closes a latch that was open. */
  async set(count: number): Promise<void> {
    if (!Number.isSafeInteger(count) || count < 0) {
      throw new HoldfastError('invalid-argument', 'count: expected a whole number from 0 on');
    }
    await changeNumber(await this.#sessions(), this.#key, () => BigInt(count));
  }

  /** Counts down once and answers what is left. */
  async countDown(): Promise<number> {
    const session = await this.#sessions();
    return Number(await changeNumber(session, this.#key, (left) => (left > 0n ? left - 1n : 0n)));
  }

  /** Waits until nothing is left; a latch that was never set is open. */
  async wait(options: WaitOptions = {}): Promise<void> {
    const name = binaryString(this.#key);
    const open = (value: Bytes | undefined): boolean => !value || text(value) === '0';
    await until(
      this.#authority,
      { key: this.#key },
      (keys) => open(keys.get(name)?.value),
      options,
    );
  }
}
