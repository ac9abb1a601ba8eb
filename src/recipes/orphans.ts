/**
 * Claims given up while a request for them may still be on its way. A claim that nobody knows of
 * would block its line for as long as the session renews, so it is deleted, and deleted again
 * with each renewal until no request can be under way any more.
 */
import type { Bytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import type { DeleteOperation } from '../model/transaction.ts';
import type { Session } from './session.ts';

interface Orphan {
  readonly deletes: readonly DeleteOperation[];
  readonly untilMs: number;
}

/** A request older than this will not arrive. */
const UNDER_WAY_MS_MAX = 60_000;

export class Orphans {
  readonly #session: Session;
  readonly #orphans = new Set<Orphan>();

  constructor(session: Session) {
    this.#session = session;
  }

  async sweep(key: Bytes, prefix?: Bytes): Promise<void> {
    const untilMs = this.#session.authority.clock.now() + UNDER_WAY_MS_MAX;
    const deletes: DeleteOperation[] = [{ type: 'delete', key }];
    if (prefix) deletes.push({ type: 'delete', ...prefixRange(prefix) });
    const orphan: Orphan = { deletes, untilMs };
    this.#orphans.add(orphan);
    await this.#delete(orphan);
  }

  again(): void {
    for (const orphan of this.#orphans) this.#session.background(this.#delete(orphan));
  }

  async #delete(orphan: Orphan): Promise<void> {
    const { engine, clock } = this.#session.authority;
    try {
      await this.#session.call(() => engine.txn({ success: orphan.deletes }));
      if (clock.now() >= orphan.untilMs) this.#orphans.delete(orphan);
    } catch (error) {
      // With the session its keys are gone.
      if (!HoldfastError.is(error, 'session-lost')) throw error;
      this.#orphans.delete(orphan);
    }
  }
}
