/**
 * The fair lock: first come, first served; one transaction to take it, one to give it back.
 *
 * Every acquire is a claim of its own, also within one session, so tasks of one process exclude
 * each other. A lock made with `reentrant` instead gives the same owner of the same session what
 * it already holds, and counts.
 */
import type { Bytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { makeToken } from '../model/token.ts';
import type { LeaseId, Operation } from '../model/transaction.ts';
import { type Claim, claimOf, describeClaim, encodeClaim } from './claim.ts';
import { watchForDeadlock } from './deadlock.ts';
import { type Duration, milliseconds } from './duration.ts';
import { Grant, type GrantParts } from './grant.ts';
import { type Breaking, breakClaim, inspectLine, type LineReport } from './inspect.ts';
import { Interruption } from './interruption.ts';
import { claimKey, linePrefix } from './keys.ts';
import {
  confirm,
  type Entry,
  enter,
  isOurs,
  type Line,
  lineOf,
  type Place,
  waitForTurn,
} from './line.ts';
import { reenter } from './reentrance.ts';
import type { Session } from './session.ts';
import type { TakenKey } from './slots.ts';

export interface LockOptions {
  /** The same owner on the same session gets what it already holds. Default false. */
  readonly reentrant?: boolean | undefined;
  /**
   * After a holder was lost without releasing, nobody gets the lock for this long. For resources
   * that cannot check a token. A clean release is not delayed.
   */
  readonly lockDelay?: Duration | undefined;
}

export interface AcquireOptions {
  /** Use a session with this TTL instead of the client's default. */
  readonly ttl?: Duration | undefined;
  /** Give up with `not-acquired` after this; absent: wait as long as it takes. */
  readonly wait?: Duration | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Who of this process waits; turns on the search for deadlocks among owners. */
  readonly owner?: string | undefined;
  /** Told when the wait begins and when the claim before changes. */
  readonly onWait?: ((report: WaitReport) => void) | undefined;
}

export interface WaitReport {
  /** Who holds, and since when. */
  readonly holder: Claim | undefined;
  /** Claims before this one, the holder included. */
  readonly ahead: number;
}

/** How a recipe gets a session; the client decides which. At once, where there is one already. */
export type SessionSource = (ttl?: Duration) => Session | Promise<Session>;

export class Lock {
  readonly name: string;
  readonly #sessions: SessionSource;
  readonly #options: LockOptions;
  readonly #delayMs: number;

  constructor(name: string, sessions: SessionSource, options: LockOptions = {}) {
    this.name = name;
    this.#sessions = sessions;
    this.#options = options;
    this.#delayMs = milliseconds(options.lockDelay ?? 0, 'lockDelay');
  }

  /** Waits for its turn. */
  acquire(options: AcquireOptions = {}): Promise<Grant> {
    return this.#take(options, true);
  }

  /** Answers `undefined` at once if the lock is not free. */
  tryAcquire(options: Omit<AcquireOptions, 'wait' | 'onWait'> = {}): Promise<Grant | undefined> {
    return this.#take(options, false);
  }

  /**
   * Runs `work` while holding the lock and releases it afterwards. Rejects with `grant-lost` if the
   * grant was lost before the work ended: it may have overlapped with a newer holder's.
   */
  async run<T>(work: (grant: Grant) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    return await runHolding(await this.acquire(options), work);
  }

  /** Who holds, who waits, in order. */
  async inspect(): Promise<LineReport> {
    const session = await this.#sessions();
    return await inspectLine(session, linePrefix(session.authority.namespace, this.name));
  }

  /** Takes the lock from its holder, whose signal aborts with `broken`. False: nobody holds. */
  async forceRelease(breaking: Breaking): Promise<boolean> {
    const session = await this.#sessions();
    return await breakClaim(session, linePrefix(session.authority.namespace, this.name), breaking);
  }

  /** A claim that joins the line ends in a grant or an error. */
  #take(options: AcquireOptions, join: true): Promise<Grant>;
  #take(options: AcquireOptions, join: boolean): Promise<Grant | undefined>;
  async #take(options: AcquireOptions, join: boolean): Promise<Grant | undefined> {
    const found = this.#sessions(options.ttl);
    const session = found instanceof Promise ? await found : found;
    if (this.#options.reentrant) {
      const owner = `${this.name}\0${options.owner ?? ''}`;
      return await reenter(session, owner, () => this.#claim(session, options, join));
    }
    const parts = await this.#claim(session, options, join);
    return parts && new Grant(parts);
  }

  #claim(
    session: Session,
    options: AcquireOptions,
    join: boolean,
  ): Promise<GrantParts | undefined> {
    const line = lineOfLock(session, this.name);
    const { owner } = options;
    if (this.#delayMs === 0) return new LockClaim(this.name, line, { owner }).take(options, join);
    return session
      .companion(this.#delayMs)
      .then((delayLease) => new LockClaim(this.name, line, { delayLease, owner }))
      .then((claim) => claim.take(options, join));
  }
}

/** Lines kept for the next acquire of the same name. */
const LINES_MAX = 1_000;
const LINES = new WeakMap<Session, Map<string, Line>>();

function lineOfLock(session: Session, name: string): Line {
  let lines = LINES.get(session);
  if (!lines) {
    lines = new Map();
    LINES.set(session, lines);
  }
  let line = lines.get(name);
  if (!line) {
    line = lineOf(session, linePrefix(session.authority.namespace, name));
    if (lines.size >= LINES_MAX) lines.clear();
    lines.set(name, line);
  }
  return line;
}

/** Runs `work`, releases, and lets neither a failed release nor a lost grant go unnoticed. */
export async function runHolding<G extends { ensureHeld(): void; release(): Promise<void> }, T>(
  grant: G,
  work: (grant: G) => T | Promise<T>,
): Promise<T> {
  let result: T;
  try {
    grant.ensureHeld();
    result = await work(grant);
    grant.ensureHeld();
  } catch (error) {
    // The work's own error counts; what goes wrong with the release is settled by the lease.
    await grant.release().catch(() => {});
    throw error;
  }
  await grant.release();
  return result;
}

export interface ClaimOptions {
  readonly delayLease?: LeaseId | undefined;
  readonly owner?: string | undefined;
}

const SHARED_REVISION = { shareRevision: true };

/** One claim from its first request to its grant; also for what is built like a lock. */
export class LockClaim {
  readonly #name: string;
  readonly #line: Line;
  readonly #taken: TakenKey;
  readonly #key: Bytes;
  readonly #delayKey: Bytes | undefined;
  readonly #delayLease: bigint | undefined;
  readonly #owner: string | undefined;
  readonly #sinceMs: number;
  #place: Place | undefined;

  constructor(name: string, line: Line, options: ClaimOptions = {}) {
    const { delayLease, owner } = options;
    this.#name = name;
    this.#line = line;
    this.#owner = owner;
    this.#sinceMs = line.session.authority.clock.wall();
    this.#taken = line.session.takeKey(line.keys);
    this.#key = this.#taken.key;
    this.#delayLease = delayLease;
    if (delayLease !== undefined) {
      this.#delayKey = claimKey(line.prefix, delayLease, this.#taken.slot);
    }
  }

  async take(options: AcquireOptions, join: boolean): Promise<GrantParts | undefined> {
    const { session } = this.#line;
    const interruption = this.#interruption(options);
    try {
      const place = await enter(this.#line, this.#entry(join), interruption);
      if ('taken' in place) {
        // An earlier request that is still on its way may find the line free.
        this.#forget(place.doubtful);
        return undefined;
      }
      this.#place = place;
      let { header } = place;
      if (!place.first) {
        if (place.before && !join) {
          await this.#giveBack();
          return undefined;
        }
        await this.#wait(place, options, interruption);
        const hold = this.#writes(session.authority.clock.wall());
        header = await confirm(session, place, hold, interruption);
      }
      interruption?.throwIfInterrupted();
      session.ensureAlive();
      return {
        name: this.#name,
        session,
        token: makeToken(header.era, place.createRevision),
        key: this.#key,
        createRevision: place.createRevision,
        giveBack: () => this.#giveBack(),
      };
    } catch (error) {
      this.#abandon();
      throw error;
    } finally {
      interruption?.dispose();
    }
  }

  async #wait(
    place: Place,
    options: AcquireOptions,
    given: Interruption | undefined,
  ): Promise<void> {
    const { session } = this.#line;
    const interruption = given ?? new Interruption();
    interruption.on((fail) => session.onLoss(fail));
    const stopSearch =
      this.#owner === undefined
        ? undefined
        : watchForDeadlock(session, this.#line.prefix, this.#key, interruption);
    try {
      await waitForTurn(this.#line, place, {
        interruption,
        onChange: (before) => {
          this.#before = claimOf(before);
          if (options.onWait) session.background(this.#report(place, options.onWait));
        },
      });
    } finally {
      stopSearch?.();
      if (!given) interruption.dispose();
    }
  }

  #before: Claim | undefined;

  async #report(place: Place, tell: (report: WaitReport) => void): Promise<void> {
    const { claims } = await inspectLine(this.#line.session, this.#line.prefix, false);
    const ahead = claims.filter((claim) => claim.createRevision < place.createRevision);
    tell({ holder: ahead[0], ahead: ahead.length });
  }

  #interruption(options: AcquireOptions): Interruption | undefined {
    const { signal, wait } = options;
    if (!signal && wait === undefined) return undefined;
    const { clock } = this.#line.session.authority;
    const interruption = new Interruption().onSignal(signal);
    if (wait !== undefined) {
      const waitMs = milliseconds(wait, 'wait');
      interruption.onTime(clock, clock.now() + waitMs, () => this.#notAcquired(waitMs));
    }
    return interruption;
  }

  #notAcquired(waitMs: number): HoldfastError {
    const behind = this.#before
      ? `; next in line before this one: ${describeClaim(this.#before)}`
      : '';
    return new HoldfastError(
      'not-acquired',
      `"${this.#name}" was not free within ${waitMs} ms${behind}`,
    );
  }

  #entry(join: boolean): Entry {
    return {
      key: this.#key,
      hold: this.#writes(this.#sinceMs),
      wait: this.#writes(),
      join,
      placedAmongAll: this.#owner !== undefined,
    };
  }

  #writes(heldMs?: number): Operation[] {
    const { session } = this.#line;
    const value = encodeClaim(session.identity, {
      sinceMs: this.#sinceMs,
      heldMs,
      owner: this.#owner,
      delayed: this.#delayKey !== undefined,
    });
    const writes: Operation[] = [{ type: 'put', key: this.#key, value, lease: session.id }];
    if (this.#delayKey && this.#delayLease !== undefined) {
      writes.push({ type: 'put', key: this.#delayKey, value, lease: this.#delayLease });
    }
    return writes;
  }

  #giveBack(): Promise<void> {
    const { session } = this.#line;
    const { createRevision, doubtful } = this.#place!;
    const success: Operation[] = [{ type: 'delete', key: this.#key }];
    if (this.#delayKey) success.push({ type: 'delete', key: this.#delayKey });
    const request = { compare: [isOurs(this.#key, createRevision)], success };
    return session
      .call(() => session.authority.engine.txn(request, SHARED_REVISION))
      .then(() => this.#forget(doubtful));
  }

  #abandon(): void {
    const { session } = this.#line;
    if (!session.alive) return;
    if (this.#place) session.background(this.#giveBack());
    else this.#forget(true);
  }

  /** The key is gone; with `doubtful` a late request may still bring it back. */
  #forget(doubtful: boolean): void {
    const { session } = this.#line;
    if (!doubtful) session.returnKey(this.#taken);
    else {
      session.abandon(this.#key);
      if (this.#delayKey) session.abandon(this.#delayKey);
    }
  }
}
