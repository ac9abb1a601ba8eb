/**
 * Read-write lock: many readers or one writer, in order of arrival, so that neither starves.
 *
 * Tokens are create revisions for both. At the resource a writer passes the `reign` rule as ever;
 * a reader with token r passes while no writer with a token above r has acted (`mark <= r`), and
 * must not raise the mark: readers that came before it still read.
 */
import { Grant } from './grant.ts';
import { checkName, ownKey } from './keys.ts';
import { lineOf } from './line.ts';
import type { AcquireOptions, SessionSource } from './lock.ts';
import { LockClaim, runHolding } from './lock.ts';

export type Mode = 'read' | 'write';

export class ReadWriteLock {
  readonly name: string;
  readonly #sessions: SessionSource;

  constructor(name: string, sessions: SessionSource) {
    this.name = checkName(name);
    this.#sessions = sessions;
  }

  async acquire(mode: Mode, options: AcquireOptions = {}): Promise<Grant> {
    const grant = await this.#take(mode, options, true);
    if (!grant) throw new Error('a claim that joins the line ends in a grant or an error');
    return grant;
  }

  /** Answers `undefined` at once if the lock is not free in this mode. */
  tryAcquire(
    mode: Mode,
    options: Omit<AcquireOptions, 'wait' | 'onWait'> = {},
  ): Promise<Grant | undefined> {
    return this.#take(mode, options, false);
  }

  async read<T>(work: (grant: Grant) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    return await runHolding(await this.acquire('read', options), work);
  }

  async write<T>(work: (grant: Grant) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    return await runHolding(await this.acquire('write', options), work);
  }

  async #take(mode: Mode, options: AcquireOptions, join: boolean): Promise<Grant | undefined> {
    const session = await this.#sessions(options.ttl);
    const { namespace } = session.authority;
    const all = ownKey(namespace, 'read-write', this.name, '');
    const writers = ownKey(namespace, 'read-write', this.name, 'w/');
    const readers = ownKey(namespace, 'read-write', this.name, 'r/');
    const blocks = (): boolean => true;
    const line =
      mode === 'write'
        ? // Behind readers one that is gone says nothing of the others: the line is read again.
          lineOf(session, all, { blocks, keyPrefix: writers, marked: false })
        : lineOf(session, writers, { blocks, keyPrefix: readers });
    const parts = await new LockClaim(this.name, line).take(options, join);
    return parts && new Grant(parts);
  }
}
