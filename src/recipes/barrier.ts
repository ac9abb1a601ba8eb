/**
 * Barriers: a gate that one process closes and opens for all, and a double barrier at which a
 * known number of processes enter together and leave together.
 */
import { type Bytes, binaryString, EMPTY, utf8 } from '../base/bytes.ts';
import { prefixRange } from '../model/range.ts';
import type { Operation } from '../model/transaction.ts';
import type { Authority } from './authority.ts';
import { checkName, claimKeys, ownKey } from './keys.ts';
import { emptyLine } from './line.ts';
import type { SessionSource } from './lock.ts';
import type { Session } from './session.ts';
import type { TakenKey } from './slots.ts';
import { until, type WaitOptions } from './until.ts';

export class Barrier {
  readonly #authority: Authority;
  readonly #sessions: SessionSource;
  readonly #key: Bytes;

  constructor(name: string, authority: Authority, sessions: SessionSource) {
    this.#authority = authority;
    this.#sessions = sessions;
    this.#key = ownKey(authority.namespace, 'barrier', checkName(name));
  }

  /** Closes the gate. It stays closed, whatever becomes of this process, until `release`. */
  async hold(): Promise<void> {
    await this.#write({ type: 'put', key: this.#key, value: EMPTY });
  }

  /** Opens the gate for everybody who waits. */
  async release(): Promise<void> {
    await this.#write({ type: 'delete', key: this.#key });
  }

  /** Waits while the gate is closed. */
  async wait(options: WaitOptions = {}): Promise<void> {
    await until(this.#authority, { key: this.#key }, (keys) => keys.size === 0, options);
  }

  async #write(operation: Operation): Promise<void> {
    const session = await this.#sessions();
    await session.call(() => this.#authority.engine.txn({ success: [operation] }));
  }
}

/** One participant's stay; from `enter` to `leave`. */
export class DoubleBarrier {
  readonly #authority: Authority;
  readonly #sessions: SessionSource;
  readonly #count: number;
  readonly #members: Bytes;
  readonly #ready: Bytes;
  #stay: { readonly session: Session; readonly taken: TakenKey } | undefined;

  constructor(name: string, count: number, authority: Authority, sessions: SessionSource) {
    this.#authority = authority;
    this.#sessions = sessions;
    this.#count = count;
    this.#members = ownKey(authority.namespace, 'double-barrier', checkName(name), 'member/');
    this.#ready = ownKey(authority.namespace, 'double-barrier', name, 'ready');
  }

  /** Waits until `count` participants have entered. */
  async enter(options: WaitOptions = {}): Promise<void> {
    const session = await this.#sessions();
    const taken = session.takeKey(claimKeys(this.#members, session.id));
    this.#stay = { session, taken };
    await this.#come(session, taken.key);
    try {
      await until(
        this.#authority,
        prefixRange(this.#place),
        (keys) => {
          session.ensureAlive();
          return keys.has(binaryString(this.#ready));
        },
        options,
      );
    } catch (error) {
      await this.#go().catch(() => {});
      throw error;
    }
  }

  /** Waits until everybody has left; a participant whose session ended has left, too. */
  async leave(options: WaitOptions = {}): Promise<void> {
    await this.#go();
    await until(this.#authority, prefixRange(this.#members), (keys) => keys.size === 0, options);
    const session = await this.#sessions();
    await session.call(() =>
      this.#authority.engine.txn({
        compare: [emptyLine(this.#members)],
        success: [{ type: 'delete', key: this.#ready }],
      }),
    );
  }

  /** The prefix of members and the ready mark. */
  get #place(): Bytes {
    return this.#ready.subarray(0, this.#ready.length - utf8('ready').length);
  }

  /** The first to come clears what a crashed round left; the last sets the ready mark. */
  async #come(session: Session, key: Bytes): Promise<void> {
    const { engine } = this.#authority;
    const put: Operation = { type: 'put', key, value: EMPTY, lease: session.id };
    const members = { ...prefixRange(this.#members), type: 'range', countOnly: true } as const;
    const answer = await session.call(() =>
      engine.txn({
        compare: [emptyLine(this.#members)],
        success: [{ type: 'delete', key: this.#ready }, put, members],
        failure: [put, members],
      }),
    );
    const counted = answer.results.at(-1);
    if (counted?.type !== 'range' || counted.count < this.#count) return;
    await session.call(() =>
      engine.txn({
        compare: [{ key, target: 'create', result: '>', value: 0 }],
        success: [{ type: 'put', key: this.#ready, value: EMPTY }],
      }),
    );
  }

  async #go(): Promise<void> {
    const stay = this.#stay;
    if (!stay) return;
    this.#stay = undefined;
    const { session, taken } = stay;
    if (!session.alive) return;
    const del: Operation = { type: 'delete', key: taken.key };
    let sent = 0;
    await session.call(() => {
      sent++;
      return this.#authority.engine.txn({ success: [del] });
    });
    // A deletion that arrives late must not meet the next stay.
    if (sent === 1) session.returnKey(taken);
  }
}
