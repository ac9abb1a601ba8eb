/**
 * An engine on a bad day, for tests of code that stands on one.
 *
 * Every call is judged by rules; the first verdict that is not `pass` is carried out. The faults
 * are those of a network and of the machines at its ends: requests and answers that are lost, late
 * or doubled, partitions, broken watches, leases that end too soon, a holder that is stopped. A
 * caller never learns more than it could in reality: a lost answer is `unavailable` with the
 * outcome unknown, and so is a lost request.
 */
import { abortable, linkAbort } from '../base/abort.ts';
import { type Clock, sleep } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import { systemClock, systemRandom } from '../base/system.ts';
import type { CallOptions, Engine, Status } from '../engine/contract.ts';
import { abortError, HoldfastError, type Outcome } from '../model/errors.ts';
import type { LeaseGrant, LeaseGrantRequest, LeaseInfo, LeaseRenewal } from '../model/lease.ts';
import type {
  Header,
  LeaseId,
  RangeRequest,
  RangeResult,
  Revision,
  TxnRequest,
  TxnResult,
} from '../model/transaction.ts';
import type { Watch, WatchRequest } from '../model/watch.ts';
import { EngineWrapper } from './engine-wrapper.ts';
import { FaultyWatch, refusedWatch } from './faulty-watch.ts';
import type { PausableClock } from './pausable-clock.ts';
import type { Verb, Verdict } from './verdicts.ts';
import { type Call, dropAnswer, dropRequest, type Requests, type Rule } from './verdicts.ts';

export interface FaultOptions {
  /** The clock by which delays pass. @default the machine's */
  readonly clock?: Clock;
  /** Chance for the rules. @default the machine's; give a seeded one to see a run again */
  readonly random?: Random;
  /** Rules that stand from the start. */
  readonly rules?: readonly Rule[];
  /** The clock of the one holder behind this engine: while it is paused, nothing is sent or heard. */
  readonly holder?: PausableClock;
}

export interface PartitionOptions {
  /** What is lost: requests (nothing arrives) or answers (everything is carried out). */
  readonly lose?: 'requests' | 'answers';
}

/** A rule that stands until it is uninstalled, by hand or by `using`. */
export class FaultGuard implements Disposable {
  readonly #uninstall: () => void;
  #hits = 0;

  constructor(uninstall: () => void) {
    this.#uninstall = uninstall;
  }

  /** How many calls it struck. */
  get hits(): number {
    return this.#hits;
  }

  /** Counts a call that was struck. */
  hit(): void {
    this.#hits++;
  }

  /** Idempotent. */
  uninstall(): void {
    this.#uninstall();
  }

  [Symbol.dispose](): void {
    this.uninstall();
  }
}

interface Installed {
  readonly rule: Rule;
  readonly guard: FaultGuard;
}

export function faultyEngine(engine: Engine, options: FaultOptions = {}): FaultyEngine {
  return new FaultyEngine(engine, options);
}

export class FaultyEngine extends EngineWrapper {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #holder: PausableClock | undefined;
  readonly #rules: Installed[] = [];
  readonly #partitions = new Set<FaultGuard>();
  readonly #watches = new Set<FaultyWatch>();
  readonly #leases = new Set<LeaseId>();
  readonly #counts = new Map<Verb, number>();
  readonly #closing = new AbortController();
  #calls = 0;

  constructor(engine: Engine, options: FaultOptions = {}) {
    super(engine);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#holder = options.holder;
    for (const rule of options.rules ?? []) this.inject(rule);
  }

  // What a test does to it

  /** Installs a rule after those that stand. */
  inject(rule: Rule): FaultGuard {
    const guard: FaultGuard = new FaultGuard(() => {
      const at = this.#rules.findIndex((installed) => installed.guard === guard);
      if (at >= 0) this.#rules.splice(at, 1);
    });
    this.#rules.push({ rule, guard });
    return guard;
  }

  /** Parts the caller from the engine until the guard is uninstalled; running watches break. */
  partition(options: PartitionOptions = {}): FaultGuard {
    const verdict = options.lose === 'answers' ? dropAnswer() : dropRequest();
    const inner = this.inject(() => verdict);
    // A partition comes before every other rule: nothing else can happen to what never arrives.
    this.#rules.unshift(this.#rules.pop()!);
    const guard: FaultGuard = new FaultGuard(() => {
      inner.uninstall();
      this.#partitions.delete(guard);
    });
    this.#partitions.add(guard);
    this.cutWatches();
    return guard;
  }

  /** Breaks every running watch, as a lost connection does. */
  cutWatches(error: HoldfastError = lost('the connection broke')): void {
    for (const watch of [...this.#watches]) watch.cut(error);
  }

  /** Ends a lease as if its time were over. */
  async expireLease(id: LeaseId): Promise<void> {
    this.#leases.delete(id);
    await this.inner.revokeLease(id).catch(ignoreGone);
  }

  /** Ends every lease that was granted through this engine. */
  async expireLeases(): Promise<void> {
    for (const id of [...this.#leases]) await this.expireLease(id);
  }

  /** How many calls were made so far, of one verb or of all. */
  calls(verb?: Verb): number {
    return verb === undefined ? this.#calls : (this.#counts.get(verb) ?? 0);
  }

  // What the code under test does with it

  override range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    return this.#call('range', request, options, () => this.inner.range(request, options));
  }

  override txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    return this.#call('txn', request, options, () => this.inner.txn(request, options));
  }

  override async grantLease(
    request: LeaseGrantRequest,
    options?: CallOptions,
  ): Promise<LeaseGrant> {
    return this.#call('grantLease', request, options, async () => {
      const grant = await this.inner.grantLease(request, options);
      this.#leases.add(grant.id);
      return grant;
    });
  }

  override keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal> {
    return this.#call('keepAlive', id, options, () => this.inner.keepAlive(id, options));
  }

  override revokeLease(id: LeaseId, options?: CallOptions): Promise<Header> {
    return this.#call('revokeLease', id, options, async () => {
      const header = await this.inner.revokeLease(id, options);
      this.#leases.delete(id);
      return header;
    });
  }

  override leaseInfo(
    id: LeaseId,
    options?: CallOptions & { readonly keys?: boolean },
  ): Promise<LeaseInfo> {
    return this.#call('leaseInfo', id, options, () => this.inner.leaseInfo(id, options));
  }

  override compact(
    revision: Revision,
    options?: CallOptions & { readonly physical?: boolean },
  ): Promise<Header> {
    return this.#call('compact', revision, options, () => this.inner.compact(revision, options));
  }

  override liftEra(era: number, options?: CallOptions): Promise<Header> {
    return this.#call('liftEra', era, options, () => this.inner.liftEra(era, options));
  }

  override status(options?: CallOptions): Promise<Status> {
    return this.#call('status', undefined, options, () => this.inner.status(options));
  }

  override watch(request: WatchRequest, options?: CallOptions): Watch {
    const verdict = this.#judge(this.#enter('watch', request));
    if (verdict.kind === 'fail') return refusedWatch(verdict.error);
    if (verdict.kind === 'drop-request' || verdict.kind === 'drop-answer') {
      return refusedWatch(lost('the watch could not be made'));
    }
    const lateMs = verdict.kind === 'delay' || verdict.kind === 'delay-answer' ? verdict.ms : 0;
    const hold = async (): Promise<void> => {
      await this.#sleep(lateMs, undefined, 'rejected');
      await this.#holderRuns();
    };
    const inner = this.inner.watch(request, options);
    const watch = new FaultyWatch(inner, hold, (ended) => this.#watches.delete(ended));
    this.#watches.add(watch);
    return watch;
  }

  override async close(): Promise<void> {
    this.#closing.abort(closedError());
    await this.inner.close();
  }

  async #call<V extends Verb, T>(
    verb: V,
    request: Requests[V],
    options: CallOptions | undefined,
    send: () => Promise<T>,
  ): Promise<T> {
    const signal = options?.signal;
    if (signal?.aborted) throw abortError(signal, 'rejected');
    const call = this.#enter(verb, request);
    await this.#holderRuns();
    const verdict = this.#judge(call);
    try {
      return await this.#carryOut(verdict, send, signal);
    } finally {
      await this.#holderRuns();
    }
  }

  async #carryOut<T>(
    verdict: Verdict,
    send: () => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    switch (verdict.kind) {
      case 'pass':
        return this.#answer(await settle(send));
      case 'fail':
        throw verdict.error;
      case 'delay':
        await this.#sleep(verdict.ms, signal, 'rejected');
        return this.#carryOut(verdict.next, send, signal);
      case 'delay-answer': {
        const end = await settle(send);
        await this.#sleep(verdict.ms, signal, 'unknown');
        return this.#answer(end);
      }
      case 'drop-request':
        await this.#sleep(verdict.noticedAfterMs, signal, 'unknown');
        throw lost('no answer came: the request was lost');
      case 'drop-answer':
        await settle(send);
        await this.#sleep(verdict.noticedAfterMs, signal, 'unknown');
        throw lost('no answer came: it was lost');
      case 'duplicate': {
        const first = await settle(send);
        const second = await settle(send);
        return this.#answer(verdict.answer === 'first' ? first : second);
      }
    }
  }

  /** What comes back, good or bad; if the way is closed by then it is lost. */
  #answer<T>(end: PromiseSettledResult<T>): T {
    if (this.#partitions.size > 0) throw lost('no answer came: the network parted');
    if (end.status === 'rejected') throw end.reason;
    return end.value;
  }

  #enter<V extends Verb>(verb: V, request: Requests[V]): Call {
    const nth = (this.#counts.get(verb) ?? 0) + 1;
    this.#counts.set(verb, nth);
    return { verb, request, number: ++this.#calls, nth } as Call;
  }

  #judge(call: Call): Verdict {
    for (const { rule, guard } of this.#rules) {
      const verdict = rule(call, this.#random);
      if (!verdict || verdict.kind === 'pass') continue;
      guard.hit();
      return verdict;
    }
    return { kind: 'pass' };
  }

  async #sleep(ms: number, signal: AbortSignal | undefined, outcome: Outcome): Promise<void> {
    if (ms <= 0) return;
    const link = linkAbort(signal, this.#closing.signal);
    try {
      await sleep(this.#clock, ms, link.signal);
    } catch {
      throw signal?.aborted ? abortError(signal, outcome) : closedError();
    } finally {
      link.unlink();
    }
  }

  /** Nobody waits for ever on an engine that has been closed. */
  async #holderRuns(): Promise<void> {
    while (this.#holder?.paused) {
      await abortable(this.#holder.whenRunning(), this.#closing.signal);
    }
  }
}

async function settle<T>(send: () => Promise<T>): Promise<PromiseSettledResult<T>> {
  const [end] = await Promise.allSettled([send()]);
  return end;
}

function closedError(): HoldfastError {
  return new HoldfastError('closed', 'the engine has been closed', { outcome: 'unknown' });
}

function lost(message: string): HoldfastError {
  return new HoldfastError('unavailable', message, { outcome: 'unknown' });
}

function ignoreGone(error: unknown): void {
  if (!HoldfastError.is(error, 'lease-not-found')) throw error;
}
