/**
 * `lmdb:` for several processes of one machine, without a server to run.
 *
 * The first process owns the directory, the others are served by it without being told; when it
 * ends or stands still, one of them takes over and the rest follow. Callers see at most a short
 * wait: what was surely not carried out, and every read, is tried again on the next owner; a write
 * whose answer was lost is reported as unknown, as on any engine. Watches go on where they were.
 */
import { abortable } from '../base/abort.ts';
import { systemClock } from '../base/system.ts';
import type {
  AtOnce,
  CallOptions,
  Capabilities,
  Engine,
  Figures,
  Operator,
} from '../engine/contract.ts';
import type { LmdbOptions } from '../engine/lmdb/engine.ts';
import { abortError, HoldfastError } from '../model/errors.ts';
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
import { mayWrite } from '../mvcc/check.ts';
import { type JoinOptions, joinDirectory, type Loss, type Membership } from './membership.ts';
import { ResumingWatch } from './resuming-watch.ts';

export interface SharedOptions extends LmdbOptions {
  /** How long a call waits for a directory that changes hands. @default 10,000 */
  readonly takeoverMs?: number;
  /**
   * An owner that says nothing for so long stands still and is replaced. Longer than any pause of a
   * process that goes on, such as a collection of garbage or a slow sync. @default 1,000
   */
  readonly standstillMs?: number;
}

const TAKEOVER_MS = 10_000;
const STANDSTILL_MS = 1_000;
/** Less is what a busy machine takes to give a process its turn. */
const STANDSTILL_MS_MIN = 100;

type Effect = 'read' | 'write';
type Run<T> = (engine: Engine) => Promise<T>;

interface Failed {
  readonly member: Membership;
  readonly error: unknown;
}

export class SharedEngine implements Engine {
  readonly capabilities: Capabilities;
  readonly #path: string;
  readonly #options: SharedOptions;
  readonly #left = new WeakSet<Membership>();
  /** Undefined: none could be had, and the next call looks again. */
  #current: Promise<Membership> | undefined;
  /** The membership of the moment, where it is known without waiting. */
  #standing: Membership | undefined;
  #closing: Promise<void> | undefined;

  static async open(path: string, options: SharedOptions = {}): Promise<SharedEngine> {
    const first = await joinDirectory(path, joining(options));
    return new SharedEngine(path, options, first);
  }

  private constructor(path: string, options: SharedOptions, first: Membership) {
    this.#path = path;
    this.#options = options;
    this.#current = this.#joined(Promise.resolve(first));
    this.capabilities = {
      ...first.engine.capabilities,
      name: 'lmdb',
      durable: true,
      shared: true,
      // A guest speaks the wire's whole seconds, and any process may be one tomorrow.
      leaseTtlMsMin: 1_000,
      leaseTtlMsStep: 1_000,
    };
  }

  /** For people and tests: what this process is to the directory now. */
  async role(): Promise<Membership['role']> {
    return (await this.#member(undefined)).role;
  }

  range(request: RangeRequest, call: CallOptions = {}): Promise<RangeResult> {
    return this.#call('read', call.signal, (engine) => engine.range(request, call));
  }

  txn(request: TxnRequest, call: CallOptions = {}): Promise<TxnResult> {
    const effect = mayWrite(request) ? 'write' : 'read';
    return this.#call(effect, call.signal, (engine) => engine.txn(request, call));
  }

  watch(request: WatchRequest, { signal }: CallOptions = {}): Watch {
    let used: Membership | undefined;
    return new ResumingWatch(request, {
      open: async (from) => {
        used = undefined;
        used = await this.#member(signal);
        return used.engine.watch(from, { signal });
      },
      gone: (error) => {
        if (this.#closing || signal?.aborted || !isGone(error)) return false;
        // Who found nobody has looked for as long as a directory may change hands.
        if (!used) return error.code === 'unavailable';
        this.#replace(used);
        return true;
      },
    });
  }

  grantLease(request: LeaseGrantRequest, call: CallOptions = {}): Promise<LeaseGrant> {
    const { leaseTtlMsStep: step, leaseTtlMsMin: least } = this.capabilities;
    const ttlMs = Math.max(least, Math.ceil(request.ttlMs / step) * step);
    return this.#call('write', call.signal, (engine) =>
      engine.grantLease({ ...request, ttlMs }, call),
    );
  }

  /** Renewing twice is as good as once. */
  keepAlive(id: LeaseId, call: CallOptions = {}): Promise<LeaseRenewal> {
    return this.#call('read', call.signal, (engine) => engine.keepAlive(id, call));
  }

  revokeLease(id: LeaseId, call: CallOptions = {}): Promise<Header> {
    return this.#call('write', call.signal, (engine) => engine.revokeLease(id, call));
  }

  leaseInfo(id: LeaseId, call: CallOptions & { readonly keys?: boolean } = {}): Promise<LeaseInfo> {
    return this.#call('read', call.signal, (engine) => engine.leaseInfo(id, call));
  }

  compact(
    revision: Revision,
    call: CallOptions & { readonly physical?: boolean } = {},
  ): Promise<Header> {
    return this.#call('write', call.signal, (engine) => engine.compact(revision, call));
  }

  liftEra(era: number, call: CallOptions = {}): Promise<Header> {
    return this.#call('read', call.signal, (engine) => engine.liftEra(era, call));
  }

  status(call: CallOptions = {}): ReturnType<Engine['status']> {
    return this.#call('read', call.signal, (engine) => engine.status(call));
  }

  /** Only while this process is the owner; whatever goes wrong there is left to the slower way. */
  readonly atOnce: AtOnce = {
    range: (request) => this.#atOnce((owner) => owner.range(request)),
    keepAlive: (id) => this.#atOnce((owner) => owner.keepAlive(id)),
  };

  /** Of the store, while this process is its owner. */
  readonly figures: Figures = {
    read: () => this.#standing?.engine.figures?.read(),
    onCommit: (listener) => {
      this.#onCommit = listener;
      this.#standing?.engine.figures?.onCommit(listener);
    },
  };
  #onCommit: ((ms: number) => void) | undefined;

  #atOnce<T>(run: (owner: AtOnce) => T | undefined): T | undefined {
    const { atOnce } = this.#standing?.engine ?? {};
    if (!atOnce || this.#closing) return undefined;
    try {
      return run(atOnce);
    } catch (error) {
      if (isGone(HoldfastError.from(error))) return undefined;
      throw error;
    }
  }

  /** The operator's verbs are the owner's. */
  get operator(): Operator {
    const verb = <T>(run: (operator: Operator) => Promise<T>): Promise<T> =>
      this.#call('write', undefined, ({ operator }) =>
        operator ? run(operator) : Promise.reject(notOwner()),
      );
    const member = (): Promise<Membership> => this.#member(undefined);
    return {
      leases: () => verb((operator) => operator.leases()),
      arm: (alarm) => verb((operator) => operator.arm(alarm)),
      disarm: (alarm) => verb((operator) => operator.disarm(alarm)),
      hash: (revision) => verb((operator) => operator.hash(revision)),
      async *backup() {
        const { operator } = (await member()).engine;
        if (!operator) throw notOwner();
        yield* operator.backup();
      },
    };
  }

  close(): Promise<void> {
    this.#closing ??= Promise.resolve(this.#current).then(
      (member) => member?.close(),
      () => {},
    );
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Not `async`: on the way of every request each promise counts. */
  #call<T>(effect: Effect, signal: AbortSignal | undefined, run: Run<T>): Promise<T> {
    const member = this.#standing;
    if (!member || this.#closing || signal?.aborted) return this.#carryOut(effect, signal, run);
    return run(member.engine).catch((error) =>
      this.#carryOut(effect, signal, run, { member, error }),
    );
  }

  /** Tries on one owner after the other, for as long as a directory may take to change hands. */
  async #carryOut<T>(
    effect: Effect,
    signal: AbortSignal | undefined,
    run: Run<T>,
    former?: Failed,
  ): Promise<T> {
    const giveUpAt = until(this.#options);
    for (let failed = former; ; ) {
      if (failed) this.#leave(failed, effect, signal, giveUpAt);
      const member = await this.#member(signal);
      try {
        return await run(member.engine);
      } catch (error) {
        failed = { member, error };
      }
    }
  }

  /** Throws what is no reason to try again. */
  #leave(
    { member, error }: Failed,
    effect: Effect,
    signal: AbortSignal | undefined,
    giveUpAt: number,
  ): void {
    const failure = HoldfastError.from(error);
    if (this.#closing || signal?.aborted || !isGone(failure)) throw failure;
    this.#replace(member);
    const again = effect === 'read' || failure.outcome === 'rejected';
    if (!again || systemClock.now() >= giveUpAt) throw lostOn(failure);
  }

  async #member(signal: AbortSignal | undefined): Promise<Membership> {
    if (this.#closing) throw new HoldfastError('closed', 'the engine has been closed');
    if (signal?.aborted) throw abortError(signal, 'rejected');
    this.#current ??= this.#joined(this.#join());
    try {
      return await abortable(this.#current, signal);
    } catch (error) {
      throw signal?.aborted ? abortError(signal, 'rejected') : error;
    }
  }

  /** Leaves a membership that is of no use any more, once, and looks for the next. */
  #replace(member: Membership, { standing }: Loss = {}): void {
    if (this.#left.has(member) || this.#closing) return;
    this.#left.add(member);
    if (this.#standing === member) this.#standing = undefined;
    const left = member.close().catch(() => {});
    this.#current = this.#joined(left.then(() => this.#join(standing)));
  }

  #join(standing?: string): Promise<Membership> {
    return joinDirectory(this.#path, joining(this.#options, standing));
  }

  /** A process that only watches asks its owner nothing, and must hear of its end all the same. */
  #joined(joining: Promise<Membership>): Promise<Membership> {
    joining.then(
      (member) => {
        if (!this.#left.has(member)) this.#standing = member;
        if (this.#onCommit) member.engine.figures?.onCommit(this.#onCommit);
        return member.lost.then((loss) => this.#replace(member, loss));
      },
      () => {
        if (this.#current === joining) this.#current = undefined;
      },
    );
    return joining;
  }
}

function until(options: SharedOptions): number {
  return systemClock.now() + (options.takeoverMs ?? TAKEOVER_MS);
}

function joining(options: SharedOptions, standing?: string): JoinOptions {
  const { standstillMs = STANDSTILL_MS } = options;
  if (!(standstillMs >= STANDSTILL_MS_MIN && Number.isFinite(standstillMs))) {
    throw new HoldfastError(
      'invalid-argument',
      `standstillMs is ${standstillMs}; it must be ${STANDSTILL_MS_MIN} or more`,
    );
  }
  return { store: options, standstillMs, untilMs: until(options), standing };
}

/** What a caller hears of a membership that ended under his call: the engine itself goes on. */
function lostOn(failure: HoldfastError): HoldfastError {
  const { outcome, message } = failure;
  return new HoldfastError('unavailable', `the directory changes hands: ${message}`, {
    outcome,
    cause: failure,
  });
}

/** The engine is gone, by its owner's end or by its own replacement; not: the request is wrong. */
function isGone({ code }: HoldfastError): boolean {
  return (
    code === 'unavailable' ||
    code === 'deadline-exceeded' ||
    code === 'closed' ||
    code === 'storage-failed'
  );
}

function notOwner(): HoldfastError {
  return new HoldfastError('unsupported', 'only the process that owns the directory can do this');
}
