/**
 * Where the services hand in what they did: who it was is filled in here, and what strangers can
 * cause without end is throttled. Without a log every way through it does the work and nothing else.
 */
import type { Clock } from '../../base/clock.ts';
import { type AuditActor, NOBODY } from '../../model/audit.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { LeaseId } from '../../model/transaction.ts';
import type { Gate } from '../access/gate.ts';
import { networkOf } from '../access/login-throttle.ts';
import type { Call, Connection } from '../backend.ts';
import type { Act } from './acts.ts';
import { type MakeAlong, NOTHING_ALONG } from './along.ts';
import type { AroundOptions, AuditLog, Told } from './log.ts';
import { AuditThrottle } from './throttle.ts';

export interface AuditDeskOptions {
  /** Undefined: nothing is recorded. */
  readonly log: AuditLog | undefined;
  readonly gate: Gate;
  readonly clock: Clock;
}

/** Leases that are remembered for one connection. */
const OWN_LEASES_MAX = 10_000;

export class AuditDesk {
  readonly log: AuditLog | undefined;
  readonly #gate: Gate;
  readonly #clock: Clock;
  /** Apart, so that a flood of refusals cannot hide a release. */
  readonly #throttles: Readonly<Record<'refusals' | 'releases', AuditThrottle>>;
  readonly #ownLeases = new WeakMap<Connection, Set<LeaseId>>();
  #cancelWake = (): void => {};
  #closed = false;

  constructor({ log, gate, clock }: AuditDeskOptions) {
    this.log = log;
    this.#gate = gate;
    this.#clock = clock;
    const now = clock.now();
    this.#throttles = { refusals: new AuditThrottle(now), releases: new AuditThrottle(now) };
  }

  /** For an act that is a transaction; see `AuditLog`. */
  alongside<T>(
    call: Call,
    { act, subject }: Pick<Act, 'act' | 'subject'>,
    work: (along: MakeAlong) => Promise<T>,
  ): Promise<T> {
    if (!this.log) return work(NOTHING_ALONG);
    return this.log.alongside({ ...this.actor(call), act, subject }, work);
  }

  /** For an act that is none. */
  around<T>(
    call: Call,
    { act, subject, reason = '' }: Pick<Act, 'act' | 'subject'> & { readonly reason?: string },
    work: () => Promise<T>,
    options?: AroundOptions<T>,
  ): Promise<T> {
    if (!this.log) return work();
    return this.log.around({ ...this.actor(call), act, subject, reason }, work, options);
  }

  /** The caller was not allowed to; other failures are no acts. */
  refused(call: Call, { act, subject }: Pick<Act, 'act' | 'subject'>, error: unknown): void {
    const nobody = !this.#gate.open && call.identity.user === undefined;
    if (!nobody && !HoldfastError.is(error, 'permission-denied')) return;
    const { message: reason } = HoldfastError.from(error);
    this.#throttled('refusals', act, {
      ...{ ...this.actor(call), act, subject: subject.slice(0, REFUSED_SUBJECT_LENGTH) },
      ...{ outcome: 'refused', reason },
    });
  }

  /**
   * A login was refused. `user` only if there is such a user: people type passwords where a name is
   * asked for.
   */
  loginRefused(call: Pick<Call, 'address'>, user: string | undefined, reason: string): void {
    const subject = user ?? 'no such user';
    const { address } = call;
    const told = { ...NOBODY, address, act: 'login', subject, outcome: 'refused', reason } as const;
    this.#throttled('refusals', `login ${subject}`, told);
  }

  /** Somebody who is no operator released what is another's, as his rights allow. */
  released(call: Call, act: Pick<Act, 'act' | 'subject'> & { readonly reason: string }): void {
    const { subject, reason } = act;
    const told = { ...this.actor(call), act: act.act, subject, reason };
    this.#throttled('releases', `${act.act} ${subject}`, told);
  }

  /** What the server itself does. */
  async server(told: Told): Promise<void> {
    await this.log?.note(told);
  }

  async started(told: Told): Promise<void> {
    await this.log?.begin(told);
  }

  /** The server begins to leave; nothing if nothing has been written. */
  async ending(told: Told): Promise<void> {
    await this.log?.end(told);
  }

  /** Writes what is counted and not told. */
  async stopped(told: Told): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelWake();
    const { refusals, releases } = this.#throttles;
    for (const rest of [...refusals.rest(), ...releases.rest()]) await this.log?.note(rest);
    await this.log?.end(told);
  }

  /** An operator got this lease itself: to end it takes nothing from anybody. */
  owns(call: Call, lease: LeaseId): void {
    if (!this.log || !this.#gate.operator(call.identity)) return;
    const { connection } = call;
    const own = this.#ownLeases.get(connection) ?? new Set();
    this.#ownLeases.set(connection, own.add(lease));
    const [oldest] = own;
    if (own.size > OWN_LEASES_MAX) own.delete(oldest!);
  }

  isOwn(call: Call, lease: LeaseId): boolean {
    return this.#ownLeases.get(call.connection)?.has(lease) ?? false;
  }

  actor({ identity, address, certificate = '' }: Call): AuditActor {
    const tenant = this.#gate.tenantOf(identity) ?? '';
    return { user: identity.user ?? '', tenant, certificate, address };
  }

  #throttled(which: 'refusals' | 'releases', kind: string, told: Told): void {
    if (!this.log) return;
    const who = `${told.user ?? ''} ${networkOf(told.address ?? '')} ${kind}`;
    this.#write(this.#throttles[which].add(who, told, this.#clock.now()));
  }

  #write(due: readonly Told[]): void {
    for (const told of due) void this.log?.note(told);
    this.#cancelWake();
    const { refusals, releases } = this.#throttles;
    const wakes = [refusals.wakeMs, releases.wakeMs].filter((wake) => wake !== undefined);
    if (this.#closed || wakes.length === 0) return;
    this.#cancelWake = this.#clock.wakeAt(Math.min(...wakes), () => {
      const now = this.#clock.now();
      this.#write([...refusals.due(now), ...releases.due(now)]);
    });
  }
}

const REFUSED_SUBJECT_LENGTH = 100;
