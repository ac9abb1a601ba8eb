/**
 * A session: one lease, its renewals, and everything held on it.
 *
 * The holder stops first. The deadline is the moment the last confirmed renewal was *sent*, plus
 * the TTL, minus a margin for clocks that run at different speeds; the authority counts from when
 * it handled that renewal, which is later, so its expiry always comes after the deadline. `alive`
 * reads the clock each time it is asked: a blocked event loop runs no timers. A session that was
 * lost stays lost, whatever answer arrives late.
 */
import { Bag, type Bagged } from '../base/bag.ts';
import { type Bytes, equalBytes } from '../base/bytes.ts';
import { HoldfastError, type LossReason } from '../model/errors.ts';
import { type LeaseGrant, leaseHex } from '../model/lease.ts';
import type { LeaseId } from '../model/transaction.ts';
import { type Authority, backOff, type Identity, mayPass } from './authority.ts';
import { type Duration, milliseconds } from './duration.ts';
import { Interruption } from './interruption.ts';
import type { ClaimKeys } from './keys.ts';
import { Losses } from './losses.ts';
import { Orphans } from './orphans.ts';
import { type Renewal, Renewals } from './renewals.ts';
import { Requests } from './requests.ts';
import { Slots, type TakenKey } from './slots.ts';

/** Renew only while this says that the process can do its work. */
export interface HealthGate {
  /** False, a rejection, or no answer: no renewal. */
  readonly healthy?: () => boolean | Promise<boolean>;
  /** No renewal while the event loop runs later than this. */
  readonly loopLag?: Duration;
}

/** What a watchdog offers a session; see `watchdog.ts`. */
export interface DeadlineGuard {
  /** Strike unless told otherwise within this time. */
  extend(remainingMs: number): void;
  disarm(): void;
  close(): Promise<void>;
}

export interface SessionOptions {
  /** Time the authority keeps claims of a holder that it hears nothing from. Default 10 s. */
  readonly ttl?: Duration | undefined;
  /**
   * Largest difference in speed between the clocks of holder and authority, as a fraction; the
   * deadline comes earlier by this part of the TTL. Default 0.05.
   */
  readonly drift?: number | undefined;
  readonly health?: HealthGate | undefined;
  readonly identity: Identity;
  readonly watchdog?: DeadlineGuard | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Something that ends with the session, such as a grant. */
export interface Holding extends Bagged {
  readonly key: Bytes;
  lose(reason: LossReason, message: string): void;
}

const TTL_MS_DEFAULT = 10_000;
const DRIFT_DEFAULT = 0.05;
/** A request without an answer is given up after this, and sent again. */
const ANSWER_MS_MAX = 5_000;
/** Renewals under way at once; more would not help an authority that does not answer. */
const RENEWALS_MAX = 4;

export class Session implements AsyncDisposable {
  readonly id: LeaseId;
  readonly leaseHex: string;
  readonly ttlMs: number;
  readonly authority: Authority;
  readonly identity: Identity;
  readonly #options: SessionOptions;
  readonly #drift: number;
  readonly #lagMsMax: number;
  readonly #controller = new AbortController();
  readonly #listeners = new Set<(error: HoldfastError) => void>();
  readonly #renewed = new Renewals();
  readonly #holdings = new Bag<Holding>();
  readonly #requests = new Requests();
  readonly #slots = new Slots();
  readonly #background = new Set<Promise<unknown>>();
  /** Further leases renewed just before this one; see `companion`. */
  readonly #companions = new Map<number, Promise<LeaseId>>();
  readonly #losses: Losses;
  readonly #orphans: Orphans;
  #deadlineMs = 0;
  #lost: HoldfastError | undefined;
  #renewals = 0;
  #tickAtMs = 0;
  #cancelTick = (): void => {};
  #cancelDeadline = (): void => {};
  #troubled: 'unhealthy' | 'unreachable' | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    authority: Authority,
    options: SessionOptions,
    grant: LeaseGrant,
    sentAtMs: number,
  ) {
    this.authority = authority;
    this.#options = options;
    this.identity = options.identity;
    this.id = grant.id;
    this.leaseHex = leaseHex(grant.id);
    this.ttlMs = grant.ttlMs;
    this.#drift = driftOf(options);
    this.#lagMsMax = milliseconds(options.health?.loopLag ?? Number.MAX_SAFE_INTEGER, 'loopLag');
    this.#losses = new Losses(authority, this);
    this.#orphans = new Orphans(this);
    this.#confirm(sentAtMs, grant.ttlMs);
    this.#planTick(sentAtMs + this.#renewEveryMs());
    this.#armDeadline();
  }

  static async open(authority: Authority, options: SessionOptions): Promise<Session> {
    const ttlMs = milliseconds(options.ttl ?? TTL_MS_DEFAULT, 'ttl');
    if (ttlMs <= 0) throw new HoldfastError('invalid-argument', 'ttl: must be more than 0');
    driftOf(options);
    const { grant, sentAtMs } = await grantLease(authority, ttlMs, options.signal);
    return new Session(authority, options, grant, sentAtMs);
  }

  /** Whether claims on this session still count, judged by the clock now. */
  get alive(): boolean {
    return this.#check() === undefined;
  }

  /** Milliseconds until the holder must have stopped, unless a renewal comes. */
  get remainingMs(): number {
    return this.alive ? this.#deadlineMs - this.authority.clock.now() : 0;
  }

  /** Aborts at the deadline at the latest, with a `session-lost` error that carries the reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get lossReason(): LossReason | undefined {
    return this.#lost?.details.reason;
  }

  /** How many grants and the like stand on this session. */
  get holdings(): number {
    return this.#holdings.size;
  }

  /** Throws `session-lost` if the session is over; synchronous, reads the clock. */
  ensureAlive(): void {
    this.#aliveAt();
  }

  /** Calls `tell` once when the session is lost or closed. The answer unsubscribes. */
  onLoss(tell: (error: HoldfastError) => void): () => void {
    if (this.#lost) tell(this.#lost);
    else this.#listeners.add(tell);
    return () => this.#listeners.delete(tell);
  }

  onRenewal(tell: (renewal: Renewal) => void): () => void {
    return this.#renewed.add(tell);
  }

  /**
   * Sends a request that is safe to send again until there is an answer or the session is over.
   * What the caller passes must find out by itself whether it happened before.
   */
  call<T>(send: () => Promise<T>, interruption?: Interruption): Promise<T> {
    return this.#call(send, interruption, 0);
  }

  /** Registers what must end with the session. */
  hold(holding: Holding): void {
    this.#holdings.add(holding);
    if (this.#holdings.size === 1) this.#options.watchdog?.extend(this.remainingMs);
    this.#losses.listen();
  }

  unhold(holding: Holding): void {
    this.#holdings.delete(holding);
    if (this.#holdings.size === 0) this.#options.watchdog?.disarm();
  }

  /** Every holding on this key loses it. */
  loseKey(key: Bytes, reason: LossReason, message: string): void {
    for (const holding of this.#holdings) {
      if (equalBytes(holding.key, key)) holding.lose(reason, message);
    }
  }

  /** A key of this session in a line that no other claim of it uses. */
  takeKey(keys: ClaimKeys): TakenKey {
    return this.#slots.take(keys, this.id);
  }

  /** Only when no request for the key can be under way: it would meet a new claim. */
  returnKey(taken: TakenKey): void {
    this.#slots.giveBack(taken);
  }

  /**
   * Deletes keys of which it is unknown whether they exist, or still will; see `orphans.ts`. The
   * key is never taken again, because the deletion, too, may arrive late.
   */
  abandon(key: Bytes, prefix?: Bytes): void {
    this.background(this.#orphans.sweep(key, prefix));
  }

  /** Work that goes on after its caller was answered; `close` waits for it. */
  background(work: Promise<unknown>): void {
    const settled = work.catch(() => {}).finally(() => this.#background.delete(settled));
    this.#background.add(settled);
  }

  /**
   * A lease that outlives this one by at least `delayMs`. It is renewed just before each renewal
   * of the session, and a third of the TTL longer, so that the gap is never shorter.
   */
  companion(delayMs: number): Promise<LeaseId> {
    let lease = this.#companions.get(delayMs);
    if (!lease) {
      const ttlMs = Math.ceil(this.ttlMs * (4 / 3) + delayMs);
      lease = grantLease(this.authority, ttlMs).then(({ grant }) => grant.id);
      lease.catch(() => this.#companions.delete(delayMs));
      this.#companions.set(delayMs, lease);
    }
    return lease;
  }

  /** Ends the lease and with it every claim, after what is being released. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    while (this.#background.size > 0 && !this.#lost) await Promise.all(this.#background);
    const revoke = !this.#lost;
    this.#lose('closed', 'the session was closed');
    await this.#losses.close();
    const leases = await Promise.allSettled(this.#companions.values());
    const ids = leases.flatMap((lease) => (lease.status === 'fulfilled' ? [lease.value] : []));
    if (revoke) ids.unshift(this.id);
    // Best effort: a lease that cannot be revoked now expires.
    const patience = new Interruption().onTime(
      this.authority.clock,
      this.authority.clock.now() + Math.min(ANSWER_MS_MAX, this.ttlMs),
      () => new HoldfastError('deadline-exceeded', 'no answer to the revocation'),
    );
    await Promise.allSettled(ids.map((id) => patience.race(this.authority.engine.revokeLease(id))));
    patience.dispose();
  }

  /** No more promises than it takes: every request of every recipe comes through here. */
  #call<T>(
    send: () => Promise<T>,
    interruption: Interruption | undefined,
    attempt: number,
  ): Promise<T> {
    try {
      const startedAtMs = this.#aliveAt();
      interruption?.throwIfInterrupted();
      const again = (error: unknown): Promise<T> =>
        this.#callAgain(error, send, interruption, attempt);
      if (!interruption) return this.#requests.send(send, startedAtMs, again);
      return interruption.race(this.#requests.send(send, startedAtMs)).catch(again);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #callAgain<T>(
    error: unknown,
    send: () => Promise<T>,
    interruption: Interruption | undefined,
    attempt: number,
  ): Promise<T> {
    this.#judge(error);
    if (interruption?.interrupted || !mayPass(error)) throw error;
    const pause = backOff(this.authority, attempt, this.ttlMs / 10);
    await (interruption ? interruption.race(pause) : pause);
    return await this.#call(send, interruption, attempt + 1);
  }

  #attempt<T>(send: () => Promise<T>): Promise<T> {
    return this.#requests.send(send, this.authority.clock.now());
  }

  /** A missing lease is the end of the session, whoever met it. */
  #judge(error: unknown): void {
    if (!HoldfastError.is(error, 'lease-not-found')) return;
    const lost = this.#check() ?? this.#lose('revoked', 'the lease is gone from the authority');
    throw lost;
  }

  #renewEveryMs(): number {
    return (this.ttlMs / 3) * (0.85 + this.authority.random.next() * 0.15);
  }

  #retryEveryMs(): number {
    return (this.ttlMs / 10) * (0.75 + this.authority.random.next() * 0.25);
  }

  #planTick(atMs: number): void {
    this.#cancelTick();
    if (this.#lost) return;
    this.#tickAtMs = atMs;
    this.#cancelTick = this.authority.clock.wakeAt(atMs, () => void this.#tick());
  }

  async #tick(): Promise<void> {
    const now = this.authority.clock.now();
    const lagMs = now - this.#tickAtMs;
    if (this.#check()) return;
    this.#planTick(now + this.#retryEveryMs());
    this.#requests.giveUp(now - Math.min(ANSWER_MS_MAX, this.ttlMs / 3), noAnswer);
    if (this.#renewals >= RENEWALS_MAX) return;
    this.#renewals++;
    try {
      if (lagMs > this.#lagMsMax || !(await this.#healthy())) this.#troubled = 'unhealthy';
      else await this.#renew();
    } finally {
      this.#renewals--;
    }
  }

  async #healthy(): Promise<boolean> {
    try {
      return (await this.#options.health?.healthy?.()) ?? true;
    } catch {
      return false;
    }
  }

  async #renew(): Promise<void> {
    try {
      await this.#renewCompanions();
      const sentAtMs = this.authority.clock.now();
      const { ttlMs } = await this.#attempt(() => this.authority.engine.keepAlive(this.id));
      // Too late is too late: the holder has been told.
      if (this.#check()) return;
      this.#troubled = undefined;
      this.#renewed.tell(this.remainingMs, this.ttlMs);
      this.#confirm(sentAtMs, Math.min(ttlMs, this.ttlMs));
      this.#planTick(sentAtMs + this.#renewEveryMs());
      this.#losses.audit(this.#holdings, () =>
        this.#attempt(() => this.authority.engine.leaseInfo(this.id, { keys: true })),
      );
      this.#orphans.again();
    } catch (error) {
      this.#troubled = 'unreachable';
      if (HoldfastError.is(error, 'lease-not-found') && !this.#check()) {
        this.#lose('revoked', 'the lease is gone from the authority');
      }
    }
  }

  async #renewCompanions(): Promise<void> {
    for (const [delayMs, lease] of this.#companions) {
      const id = await lease;
      try {
        await this.#attempt(() => this.authority.engine.keepAlive(id));
      } catch (error) {
        if (!HoldfastError.is(error, 'lease-not-found')) throw error;
        this.#companions.delete(delayMs);
      }
    }
  }

  #confirm(sentAtMs: number, ttlMs: number): void {
    const deadlineMs = sentAtMs + ttlMs * (1 - this.#drift);
    if (deadlineMs <= this.#deadlineMs) return;
    this.#deadlineMs = deadlineMs;
    if (this.#holdings.size > 0) {
      this.#options.watchdog?.extend(deadlineMs - this.authority.clock.now());
    }
  }

  #armDeadline(): void {
    this.#cancelDeadline = this.authority.clock.wakeAt(this.#deadlineMs, () => {
      if (!this.#check()) this.#armDeadline();
    });
  }

  /** The loss, if the session is lost; looks at the clock. */
  #check(now: number = this.authority.clock.now()): HoldfastError | undefined {
    if (this.#lost) return this.#lost;
    return now < this.#deadlineMs ? undefined : this.#loseLate(now);
  }

  /** The time, at which the session is alive; throws `session-lost` if it is not. */
  #aliveAt(): number {
    const now = this.authority.clock.now();
    const lost = this.#check(now);
    if (lost) throw lost;
    return now;
  }

  /** Why the deadline passed: the process did not run, did not want to, or got no answer. */
  #loseLate(now: number): HoldfastError {
    if (now - this.#tickAtMs > this.ttlMs / 4) {
      return this.#lose('suspended', 'the process or the machine stood still past the deadline');
    }
    if (this.#troubled === 'unhealthy') {
      return this.#lose('unhealthy', 'the process was not healthy and let its lease run out');
    }
    if (this.#troubled === 'unreachable' || this.#renewals > 0) {
      return this.#lose('unreachable', 'the authority did not confirm a renewal in time');
    }
    return this.#lose('expired', 'the lease ran out');
  }

  #lose(reason: LossReason, message: string): HoldfastError {
    if (this.#lost) return this.#lost;
    const lost = new HoldfastError('session-lost', `session ${this.leaseHex}: ${message}`, {
      reason,
    });
    this.#lost = lost;
    this.#cancelTick();
    this.#cancelDeadline();
    this.#options.watchdog?.disarm();
    for (const holding of this.#holdings) {
      this.#holdings.delete(holding);
      holding.lose(reason, message);
    }
    for (const tell of [...this.#listeners]) tell(lost);
    this.#listeners.clear();
    this.#requests.giveUp(Number.POSITIVE_INFINITY, () => lost);
    this.#controller.abort(lost);
    this.background(this.#losses.close());
    return lost;
  }
}

function noAnswer(): HoldfastError {
  return new HoldfastError('unavailable', 'no answer in time', { outcome: 'unknown' });
}

function driftOf(options: SessionOptions): number {
  const drift = options.drift ?? DRIFT_DEFAULT;
  if (drift >= 0 && drift < 0.5) return drift;
  throw new HoldfastError('invalid-argument', 'drift: expected a fraction from 0 to below 0.5');
}

/**
 * Grants a lease, each attempt under an id of its own. A request that was given up on may arrive
 * late: under the same id it could bring a lease back that was revoked meanwhile, and the session
 * would renew it without its keys. Under another id it makes a lease that nobody uses and that
 * expires.
 */
async function grantLease(
  authority: Authority,
  ttlMs: number,
  signal?: AbortSignal,
): Promise<{ readonly grant: LeaseGrant; readonly sentAtMs: number }> {
  const { clock, engine } = authority;
  const caller = new Interruption().onSignal(signal);
  try {
    for (let attempt = 0; ; attempt++) {
      caller.throwIfInterrupted();
      const id = randomLeaseId(authority);
      const sentAtMs = clock.now();
      const patience = new Interruption().onTime(
        clock,
        sentAtMs + Math.min(ANSWER_MS_MAX, ttlMs / 2),
        noAnswer,
      );
      try {
        const grant = await caller.race(patience.race(engine.grantLease({ id, ttlMs })));
        return { grant, sentAtMs };
      } catch (error) {
        const again = mayPass(error) || HoldfastError.is(error, 'lease-exists');
        if (caller.interrupted || !again) throw error;
      } finally {
        patience.dispose();
      }
      await caller.race(backOff(authority, attempt));
    }
  } finally {
    caller.dispose();
  }
}

function randomLeaseId(authority: Authority): LeaseId {
  let id = 0n;
  for (const byte of authority.random.bytes(8)) id = (id << 8n) | BigInt(byte);
  const positive = BigInt.asUintN(63, id);
  return positive === 0n ? 1n : positive;
}
