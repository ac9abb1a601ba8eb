/**
 * Several locks at once, all or nothing.
 *
 * The claim joins every line in one transaction, so it has one and the same place in the order of
 * all claims. It waits only for claims made before it; claims that wait for each other in a circle
 * cannot come about among multi-locks, and nobody is overtaken. It queues with single locks of the
 * same names.
 */
import type { Bytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import type { SealedToken } from '../model/seal.ts';
import { makeToken, type Token } from '../model/token.ts';
import type { Compare, Header, KeyValue, Operation, Revision } from '../model/transaction.ts';
import { decodeClaim, encodeClaim } from './claim.ts';
import { milliseconds } from './duration.ts';
import { Grant, type GrantParts } from './grant.ts';
import { Interruption } from './interruption.ts';
import { checkName, linePrefix } from './keys.ts';
import { confirm, findBefore, isOurs, type Line, lineOf, waitForTurn } from './line.ts';
import { type AcquireOptions, runHolding, type SessionSource } from './lock.ts';
import { type SealOptions, Seals } from './seals.ts';
import type { Session } from './session.ts';
import type { TakenKey } from './slots.ts';

/** Operations per line are few, and engines bound them per transaction. */
const NAMES_MAX = 32;

export class MultiGrant extends Grant {
  /** By name. All claims were made in one revision, so the number is the same. */
  readonly tokens: ReadonlyMap<string, Token>;
  readonly #compares: readonly Compare[];
  #seals: ReadonlyMap<string, Seals> | undefined;

  constructor(parts: GrantParts, names: readonly string[], compares: readonly Compare[]) {
    super(parts);
    this.tokens = new Map(names.map((name) => [name, parts.token]));
    this.#compares = compares;
  }

  /** By name, as `sealedToken` of a single lock: each guard wants the seal of its own resource. */
  async sealedTokens(options?: SealOptions): Promise<ReadonlyMap<string, SealedToken>> {
    this.ensureHeld();
    const { token, session } = this;
    this.#seals ??= new Map(
      [...this.tokens.keys()].map((name, at) => {
        const { key } = this.#compares[at]!;
        return [name, new Seals({ name, key, token, session })];
      }),
    );
    const sealed = [...this.#seals].map(
      async ([name, seals]) => [name, await seals.get(options)] as const,
    );
    const all = new Map(await Promise.all(sealed));
    this.ensureHeld();
    return all;
  }

  /** One comparison per lock. */
  ownerships(): readonly Compare[] {
    return this.#compares;
  }
}

export class MultiLock {
  readonly names: readonly string[];
  readonly #sessions: SessionSource;

  constructor(names: readonly string[], sessions: SessionSource) {
    this.names = [...new Set(names.map(checkName))].sort();
    if (this.names.length === 0 || this.names.length > NAMES_MAX) {
      throw new HoldfastError('invalid-argument', `expected 1 to ${NAMES_MAX} names`);
    }
    this.#sessions = sessions;
  }

  async acquire(options: AcquireOptions = {}): Promise<MultiGrant> {
    const grant = await this.#take(options, true);
    if (!grant) throw new Error('a claim that joins the lines ends in a grant or an error');
    return grant;
  }

  /** Answers `undefined` at once unless all are free. */
  tryAcquire(
    options: Omit<AcquireOptions, 'wait' | 'onWait'> = {},
  ): Promise<MultiGrant | undefined> {
    return this.#take(options, false);
  }

  async run<T>(
    work: (grant: MultiGrant) => T | Promise<T>,
    options: AcquireOptions = {},
  ): Promise<T> {
    return await runHolding(await this.acquire(options), work);
  }

  async #take(options: AcquireOptions, join: boolean): Promise<MultiGrant | undefined> {
    const session = await this.#sessions(options.ttl);
    return await new MultiClaim(this.names, session, options).take(join);
  }
}

interface Part {
  readonly line: Line;
  readonly taken: TakenKey;
  readonly key: Bytes;
}

interface MultiPlace {
  readonly createRevision: Revision;
  readonly header: Header;
  readonly first: boolean;
  /** What the joining transaction read of each line. */
  readonly newest: readonly (readonly KeyValue[])[];
}

class MultiClaim {
  readonly #names: readonly string[];
  readonly #session: Session;
  readonly #options: AcquireOptions;
  readonly #parts: readonly Part[];
  readonly #sinceMs: number;
  #place: MultiPlace | undefined;
  #doubtful = false;

  constructor(names: readonly string[], session: Session, options: AcquireOptions) {
    this.#names = names;
    this.#session = session;
    this.#options = options;
    this.#sinceMs = session.authority.clock.wall();
    this.#parts = names.map((name) => {
      const line = lineOf(session, linePrefix(session.authority.namespace, name));
      const taken = session.takeKey(line.keys);
      return { line, taken, key: taken.key };
    });
  }

  async take(join: boolean): Promise<MultiGrant | undefined> {
    const session = this.#session;
    const interruption = this.#interruption();
    try {
      const place = await this.#enter(join, interruption);
      if (!place) {
        // An earlier request that is still on its way may find the lines free.
        this.#forget(this.#doubtful);
        return undefined;
      }
      this.#place = place;
      const header = place.first ? place.header : await this.#wait(place, interruption);
      interruption.throwIfInterrupted();
      session.ensureAlive();
      return this.#grant(place, header);
    } catch (error) {
      this.#abandon();
      throw error;
    } finally {
      interruption.dispose();
    }
  }

  async #enter(join: boolean, interruption: Interruption): Promise<MultiPlace | undefined> {
    const { engine } = this.#session.authority;
    const reads: Operation[] = this.#parts.map(({ line }) => line.newest);
    const first = this.#parts[0]!.key;
    const nested: Operation = {
      type: 'txn',
      compare: [{ key: first, target: 'create', result: '=', value: 0 }],
      success: join ? [...this.#puts(false), ...reads] : reads,
      failure: [{ type: 'range', key: first }, ...reads],
    };
    const request = {
      compare: this.#parts.map(({ line }) => line.empty),
      success: this.#puts(true),
      failure: [nested],
    };
    let sent = 0;
    const answer = await this.#session.call(() => {
      sent++;
      return engine.txn(request);
    }, interruption);
    this.#doubtful ||= sent > 1;
    const { header } = answer;
    if (answer.succeeded) {
      return { createRevision: header.revision, header, first: true, newest: [] };
    }
    const inner = answer.results[0];
    if (inner?.type !== 'txn') throw new Error('a nested transaction was asked for');
    const ranges = inner.results.flatMap((one) => (one.type === 'range' ? [one.kvs] : []));
    if (inner.succeeded && !join) return await this.#enterIfFree(ranges, header, interruption);
    if (inner.succeeded) {
      return { createRevision: header.revision, header, first: false, newest: ranges };
    }
    const own = ranges[0]?.[0];
    if (!own) throw new Error('the key exists and was not answered');
    const held = decodeClaim(own.value).heldMs !== undefined;
    return { createRevision: own.createRevision, header, first: held, newest: ranges.slice(1) };
  }

  /** Only claims of lines below these stand under the prefixes: join, nobody is before us. */
  async #enterIfFree(
    newest: readonly (readonly KeyValue[])[],
    header: Header,
    interruption: Interruption,
  ): Promise<MultiPlace | undefined> {
    for (const [i, { line }] of this.#parts.entries()) {
      const blocked = await findBefore(line, header.revision + 1, newest[i], interruption);
      if (blocked) return undefined;
    }
    const place = await this.#enter(true, interruption);
    if (!place || place.first) return place;
    this.#place = place;
    for (const [i, { line }] of this.#parts.entries()) {
      const before = await findBefore(line, place.createRevision, place.newest[i], interruption);
      if (before) {
        await this.#giveBack();
        return undefined;
      }
    }
    return place;
  }

  async #wait(place: MultiPlace, interruption: Interruption): Promise<Header> {
    const session = this.#session;
    interruption.on((fail) => session.onLoss(fail));
    const { createRevision, header } = place;
    for (const [i, { line, key }] of this.#parts.entries()) {
      const before = await findBefore(line, createRevision, place.newest[i], interruption);
      const here = { key, createRevision, header, first: false, before, doubtful: false };
      if (before) await waitForTurn(line, here, { interruption });
    }
    // The keys were made and are marked together: the first one tells whether they are marked.
    const [first, ...others] = this.#parts.map((part) => part.key);
    const alsoOurs = others.map((key) => isOurs(key, createRevision));
    const own = { key: first!, createRevision };
    return await confirm(session, own, this.#puts(true), interruption, alsoOurs);
  }

  #grant(place: MultiPlace, header: Header): MultiGrant {
    const { createRevision } = place;
    const [key, ...moreKeys] = this.#parts.map((part) => part.key);
    return new MultiGrant(
      {
        name: this.#names.join('", "'),
        session: this.#session,
        token: makeToken(header.era, createRevision),
        key: key!,
        moreKeys,
        createRevision,
        giveBack: () => this.#giveBack(),
      },
      this.#names,
      this.#compares(createRevision),
    );
  }

  #compares(createRevision: Revision): Compare[] {
    return this.#parts.map(({ key }) => isOurs(key, createRevision));
  }

  #puts(held: boolean): Operation[] {
    const { clock } = this.#session.authority;
    const value = encodeClaim(this.#session.identity, {
      sinceMs: this.#sinceMs,
      heldMs: held ? clock.wall() : undefined,
      owner: this.#options.owner,
    });
    const lease = this.#session.id;
    return this.#parts.map(({ key }): Operation => ({ type: 'put', key, value, lease }));
  }

  /** Each key by itself: one that an operator broke must not keep the others. */
  async #giveBack(): Promise<void> {
    const { engine } = this.#session.authority;
    const { createRevision } = this.#place!;
    const success = this.#parts.map(
      ({ key }): Operation => ({
        type: 'txn',
        compare: [isOurs(key, createRevision)],
        success: [{ type: 'delete', key }],
      }),
    );
    await this.#session.call(() => engine.txn({ success }));
    this.#forget(this.#doubtful);
  }

  #abandon(): void {
    if (!this.#session.alive) return;
    if (this.#place) this.#session.background(this.#giveBack());
    else this.#forget(true);
  }

  #forget(doubtful: boolean): void {
    for (const { taken, key } of this.#parts) {
      if (doubtful) this.#session.abandon(key);
      else this.#session.returnKey(taken);
    }
  }

  #interruption(): Interruption {
    const { signal, wait } = this.#options;
    const { clock } = this.#session.authority;
    const interruption = new Interruption().onSignal(signal);
    if (wait === undefined) return interruption;
    const waitMs = milliseconds(wait, 'wait');
    const names = this.#names.map((name) => `"${name}"`).join(', ');
    return interruption.onTime(
      clock,
      clock.now() + waitMs,
      () => new HoldfastError('not-acquired', `${names}: not all free within ${waitMs} ms`),
    );
  }
}
