/**
 * A unique claim that stays: a user name, an invoice number. Whoever asks first has it until he
 * gives it up; asking again under the same name answers the same token.
 */
import { type Bytes, text, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { makeToken, type Token } from '../model/token.ts';
import type { KeyValue } from '../model/transaction.ts';
import type { Authority } from './authority.ts';
import { checkName, ownKey } from './keys.ts';
import type { SessionSource } from './lock.ts';

export interface UniqueClaim {
  readonly by: string;
  readonly token: Token;
}

export class Once {
  readonly name: string;
  readonly #sessions: SessionSource;
  readonly #authority: Authority;
  readonly #key: Bytes;

  constructor(name: string, authority: Authority, sessions: SessionSource) {
    this.name = checkName(name);
    this.#authority = authority;
    this.#sessions = sessions;
    this.#key = ownKey(authority.namespace, 'once', name);
  }

  /** Claims the name for `by`, who is known by this text alone. Throws `taken` if it is another's. */
  async claim(by: string): Promise<UniqueClaim> {
    const session = await this.#sessions();
    const { engine } = this.#authority;
    const key = this.#key;
    const answer = await session.call(() =>
      engine.txn({
        compare: [{ key, target: 'create', result: '=', value: 0 }],
        success: [{ type: 'put', key, value: utf8(by) }],
        failure: [{ type: 'range', key }],
      }),
    );
    if (answer.succeeded)
      return { by, token: makeToken(answer.header.era, answer.header.revision) };
    const [read] = answer.results;
    const present = read?.type === 'range' ? read.kvs[0] : undefined;
    if (!present) throw new Error('the key exists and was not answered');
    const claim = claimOf(present, answer.header.era);
    if (claim.by === by) return claim;
    throw new HoldfastError('taken', `"${this.name}" belongs to ${claim.by}`);
  }

  async owner(): Promise<UniqueClaim | undefined> {
    const { kvs, header } = await this.#authority.engine.range({ key: this.#key });
    return kvs[0] && claimOf(kvs[0], header.era);
  }

  /** Gives the name up. False: it was not this claimant's. */
  async release(by: string): Promise<boolean> {
    const session = await this.#sessions();
    const { engine } = this.#authority;
    const key = this.#key;
    let sent = 0;
    const answer = await session.call(() => {
      sent++;
      return engine.txn({
        compare: [{ key, target: 'value', result: '=', value: utf8(by) }],
        success: [{ type: 'delete', key }],
        failure: [{ type: 'range', key }],
      });
    });
    if (answer.succeeded) return true;
    const [read] = answer.results;
    // After a lost answer an absent key is our own deletion.
    return sent > 1 && read?.type === 'range' && read.kvs.length === 0;
  }
}

function claimOf(kv: KeyValue, era: number): UniqueClaim {
  return { by: text(kv.value), token: makeToken(era, kv.createRevision) };
}
