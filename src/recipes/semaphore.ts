/**
 * Semaphore: a number of permits, each a slot with a token of its own that only rises.
 *
 * Who finds no permit stands in a line like that of a lock; only the first in it watches the
 * permits, so a permit that comes free wakes one waiter.
 */
import { type Bytes, text, utf8 } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import { makeToken } from '../model/token.ts';
import type { Compare, KeyValue } from '../model/transaction.ts';
import { parseRecord } from './authority.ts';
import { milliseconds } from './duration.ts';
import { follow } from './follow.ts';
import { Grant, type GrantParts } from './grant.ts';
import { Interruption } from './interruption.ts';
import { checkName, ownKey } from './keys.ts';
import { emptyLine, isOurs, lineOf } from './line.ts';
import { type AcquireOptions, LockClaim, runHolding, type SessionSource } from './lock.ts';
import type { Session } from './session.ts';

export class Permit extends Grant {
  /** Which of the permits, from 0; the token rises per slot. */
  readonly slot: number;

  constructor(parts: GrantParts, slot: number) {
    super(parts);
    this.slot = slot;
  }
}

interface Places {
  readonly session: Session;
  readonly permits: Bytes;
  readonly line: Bytes;
}

export class Semaphore {
  readonly name: string;
  readonly permits: number;
  readonly #sessions: SessionSource;

  /** Everyone must name the same number of permits; another one is refused while any is held. */
  constructor(name: string, permits: number, sessions: SessionSource) {
    this.name = checkName(name);
    if (!Number.isSafeInteger(permits) || permits < 1) {
      throw new HoldfastError('invalid-argument', 'permits: expected a whole number from 1 on');
    }
    this.permits = permits;
    this.#sessions = sessions;
  }

  async acquire(options: AcquireOptions = {}): Promise<Permit> {
    const places = await this.#places(options);
    return (
      (await this.#takeFree(places, options.signal)) ?? (await this.#waitInLine(places, options))
    );
  }

  /** Answers `undefined` at once if no permit is free or others wait. */
  async tryAcquire(
    options: Omit<AcquireOptions, 'wait' | 'onWait'> = {},
  ): Promise<Permit | undefined> {
    return await this.#takeFree(await this.#places(options), options.signal);
  }

  async run<T>(work: (permit: Permit) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    return await runHolding(await this.acquire(options), work);
  }

  async #places(options: AcquireOptions): Promise<Places> {
    const session = await this.#sessions(options.ttl);
    const { namespace } = session.authority;
    return {
      session,
      permits: ownKey(namespace, 'semaphore', this.name, 'permit/'),
      line: ownKey(namespace, 'semaphore', this.name, 'line/'),
    };
  }

  async #takeFree(places: Places, signal?: AbortSignal): Promise<Permit | undefined> {
    const interruption = new Interruption().onSignal(signal);
    try {
      return await this.#take(places, emptyLine(places.line), interruption);
    } finally {
      interruption.dispose();
    }
  }

  async #waitInLine(places: Places, options: AcquireOptions): Promise<Permit> {
    const { session, line } = places;
    const { clock } = session.authority;
    const startedAtMs = clock.now();
    const claim = new LockClaim(this.name, lineOf(session, line), { owner: options.owner });
    const parts = await claim.take(options, true);
    if (!parts) throw new Error('a claim that joins the line ends in a grant or an error');
    const first = new Grant(parts);
    const interruption = new Interruption()
      .onSignal(options.signal)
      .on((fail) => session.onLoss(fail));
    if (options.wait !== undefined) {
      const waitMs = milliseconds(options.wait, 'wait');
      interruption.onTime(
        clock,
        startedAtMs + waitMs,
        () =>
          new HoldfastError(
            'not-acquired',
            `"${this.name}": none of ${this.permits} permits was free within ${waitMs} ms`,
          ),
      );
    }
    try {
      return await this.#takeAsFirst(places, first, interruption);
    } finally {
      interruption.dispose();
      session.background(first.release());
    }
  }

  async #takeAsFirst(places: Places, first: Grant, interruption: Interruption): Promise<Permit> {
    const controller = new AbortController();
    const { authority } = places.session;
    const changes = follow(authority, prefixRange(places.permits), controller.signal);
    try {
      for (;;) {
        first.ensureHeld();
        const permit = await this.#take(places, first.ownership(), interruption);
        if (permit) return permit;
        first.ensureHeld();
        const change = await interruption.race(changes.next());
        if (change.done) throw new HoldfastError('closed', 'the watch ended');
      }
    } finally {
      controller.abort();
      await changes.return().catch(() => {});
    }
  }

  /** Takes any free slot while `may` holds. */
  async #take(
    places: Places,
    may: Compare,
    interruption: Interruption,
  ): Promise<Permit | undefined> {
    const { session, permits } = places;
    const { engine, random } = session.authority;
    const mark = Array.from(random.bytes(8), (byte) => byte.toString(16)).join('');
    for (;;) {
      const { kvs, header } = await session.call(
        () => engine.range(prefixRange(permits)),
        interruption,
      );
      this.#checkLimit(kvs);
      const own = kvs.find((kv) => parseRecord(kv.value)?.mark === mark);
      const slot = own ? slotOf(permits, own) : this.#freeSlot(permits, kvs);
      if (slot === undefined) return undefined;
      const key = slotKey(permits, slot);
      if (own) return this.#permit(session, key, slot, own.createRevision, header.era);
      const value = utf8(JSON.stringify({ ...session.identity, mark, permits: this.permits }));
      const answer = await this.#sweeping(session, key, mark, () =>
        session.call(
          () =>
            engine.txn({
              compare: [may, { key, target: 'create', result: '=', value: 0 }],
              success: [{ type: 'put', key, value, lease: session.id }],
              failure: [
                { type: 'txn', compare: [may] },
                { type: 'range', key },
              ],
            }),
          interruption,
        ),
      );
      const { revision, era } = answer.header;
      if (answer.succeeded) return this.#permit(session, key, slot, revision, era);
      const [allowed, there] = answer.results;
      const kept = there?.type === 'range' ? there.kvs[0] : undefined;
      if (kept && parseRecord(kept.value)?.mark === mark) {
        return this.#permit(session, key, slot, kept.createRevision, era);
      }
      if (allowed?.type === 'txn' && !allowed.succeeded) return undefined;
    }
  }

  /** If the wait ends while the request is under way, what it may still write is removed. */
  async #sweeping<T>(
    session: Session,
    key: Bytes,
    mark: string,
    send: () => Promise<T>,
  ): Promise<T> {
    try {
      return await send();
    } catch (error) {
      if (session.alive) session.background(this.#remove(session, key, mark));
      throw error;
    }
  }

  async #remove(session: Session, key: Bytes, mark: string): Promise<void> {
    const { engine } = session.authority;
    const kv = (await session.call(() => engine.range({ key }))).kvs[0];
    if (!kv || parseRecord(kv.value)?.mark !== mark) return;
    await session.call(() =>
      engine.txn({
        compare: [isOurs(key, kv.createRevision)],
        success: [{ type: 'delete', key }],
      }),
    );
  }

  #permit(session: Session, key: Bytes, slot: number, createRevision: number, era: number): Permit {
    session.ensureAlive();
    const { engine } = session.authority;
    const giveBack = async (): Promise<void> => {
      await session.call(() =>
        engine.txn({
          compare: [isOurs(key, createRevision)],
          success: [{ type: 'delete', key }],
        }),
      );
    };
    const token = makeToken(era, createRevision);
    return new Permit({ name: this.name, session, token, key, createRevision, giveBack }, slot);
  }

  #freeSlot(permits: Bytes, kvs: readonly KeyValue[]): number | undefined {
    const taken = new Set(kvs.map((kv) => slotOf(permits, kv)));
    for (let slot = 0; slot < this.permits; slot++) if (!taken.has(slot)) return slot;
    return undefined;
  }

  #checkLimit(kvs: readonly KeyValue[]): void {
    for (const kv of kvs) {
      const limit = parseRecord(kv.value)?.permits;
      if (typeof limit !== 'number' || limit === this.permits) continue;
      throw new HoldfastError(
        'invalid-argument',
        `"${this.name}" is used with ${limit} permits elsewhere, here with ${this.permits}`,
      );
    }
  }
}

function slotKey(permits: Bytes, slot: number): Bytes {
  return Uint8Array.of(...permits, ...utf8(String(slot)));
}

function slotOf(permits: Bytes, kv: KeyValue): number {
  return Number(text(kv.key.subarray(permits.length)));
}
