/**
 * How a session learns that something it holds was taken away while its lease lives on: an
 * operator broke the lock, or somebody deleted the key.
 *
 * One watch per session, on notes that `breakClaim` leaves under the lease; and with each renewal
 * a look at which keys the lease still owns, for those who delete without leaving a note.
 */

import { linkAbort } from '../base/abort.ts';
import type { Bag } from '../base/bag.ts';
import { binaryString, fromBinaryString } from '../base/bytes.ts';
import type { LeaseInfo } from '../model/lease.ts';
import { prefixRange } from '../model/range.ts';
import type { KeyValue } from '../model/transaction.ts';
import { type Authority, parseRecord } from './authority.ts';
import { follow } from './follow.ts';
import { ownKey } from './keys.ts';
import type { Holding, Session } from './session.ts';

export class Losses {
  readonly #authority: Authority;
  readonly #session: Session;
  readonly #stop = linkAbort();
  #listening: Promise<void> | undefined;
  #auditing = false;

  constructor(authority: Authority, session: Session) {
    this.#authority = authority;
    this.#session = session;
  }

  /** Starts with the first thing held. */
  listen(): void {
    if (this.#listening || this.#stop.signal.aborted) return;
    this.#listening = this.#listen();
  }

  /** Compares what is held with what the lease owns; claims made meanwhile are not judged. */
  audit(holdings: Bag<Holding>, ask: () => Promise<LeaseInfo>): void {
    if (this.#auditing || holdings.size === 0) return;
    this.#auditing = true;
    const judged = [...holdings];
    ask()
      .then(({ keys }) => {
        const present = new Set(keys?.map(binaryString));
        for (const holding of judged) {
          if (holdings.has(holding) && !present.has(binaryString(holding.key))) {
            holding.lose('broken', 'its key was deleted');
          }
        }
      })
      // The renewals notice whatever ails the lease or the connection.
      .catch(() => {})
      .finally(() => {
        this.#auditing = false;
      });
  }

  async close(): Promise<void> {
    this.#stop.controller.abort();
    await this.#listening;
  }

  async #listen(): Promise<void> {
    const { namespace } = this.#authority;
    const range = prefixRange(ownKey(namespace, 'broken', this.#session.leaseHex, ''));
    try {
      for await (const told of follow(this.#authority, range, this.#stop.signal)) {
        const notes =
          told.type === 'state'
            ? told.kvs
            : told.events.filter(({ type }) => type === 'put').map(({ kv }) => kv);
        for (const note of notes) this.#tell(note);
      }
    } catch {
      // Not allowed to watch: the audit at each renewal remains.
    }
  }

  #tell(note: KeyValue): void {
    const record = parseRecord(note.value);
    if (typeof record?.key !== 'string') return;
    const by = typeof record.by === 'string' ? ` by ${record.by}` : '';
    const why = typeof record.reason === 'string' ? `: ${record.reason}` : '';
    this.#session.loseKey(fromBinaryString(record.key), 'broken', `broken${by}${why}`);
  }
}
