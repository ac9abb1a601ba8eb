/**
 * The life of leases on a store: granted, renewed, ended by time or by hand, and the keys that go
 * with them. Keeps the one timer that time needs.
 */
import type { Clock } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import { HoldfastError } from '../model/errors.ts';
import { LEASE_ID_MAX, LEASE_TTL_MS_MAX } from '../model/lease.ts';
import type { LeaseId, Revision } from '../model/transaction.ts';
import type { Committer, Effects } from './committer.ts';
import {
  decodeLease,
  encodeLease,
  LEASES_END,
  LEASES_START,
  leaseKey,
  leaseOfKey,
} from './layout.ts';
import { type Lease, Lessor } from './lessor.ts';
import type { TableReader } from './table.ts';
import { leaseNotFound, type Writer } from './writer.ts';

/** Leases ended in one go; the rest follows after the loop had a turn. */
const SWEEP_LEASES = 1_000;
/** Who looks at leases later than this has stood still, and renewals may wait unread. */
const LATE_MS = 20;
/** They are read for as long as the timer was late, within these bounds, before leases end. */
const GRACE_MS_MIN = 100;
const GRACE_MS_MAX = 1_000;
const NONE: Effects = [];

export interface LeaseKeeperOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly ttlMsMin: number;
}

export class LeaseKeeper {
  readonly lessor: Lessor = new Lessor();
  /** Leases that ended by time. */
  expired = 0;
  readonly #options: LeaseKeeperOptions;
  readonly #committer: () => Committer;
  #armed: { readonly atMs: number; readonly cancel: () => void } | undefined;
  #sweeping: Promise<void> | undefined;
  #closed = false;
  /** Of the round under evaluation. */
  #effects: (() => void)[] = [];

  constructor(options: LeaseKeeperOptions, committer: () => Committer) {
    this.#options = options;
    this.#committer = committer;
  }

  /** Takes over the leases a former life of the store left, each with what was stored for it. */
  load(table: TableReader): void {
    const now = this.#options.clock.now();
    table.scan(LEASES_START, LEASES_END, (stored, record) => {
      const { ttlMs, remainingMs } = decodeLease(record);
      const lease = this.lessor.add(leaseOfKey(stored), ttlMs, remainingMs, now, true);
      lease.storedMs = remainingMs;
      return true;
    });
    this.#arm();
  }

  async grant(
    request: { readonly id?: LeaseId; readonly ttlMs: number },
    admit: (writer: Writer) => void,
    signal?: AbortSignal,
  ): Promise<Lease> {
    const ttlMs = this.#ttl(request.ttlMs);
    checkId(request.id ?? 0n);
    return this.#committer().submit((writer) => {
      admit(writer);
      const id = request.id || this.#freeId();
      if (this.lessor.taken(id)) {
        throw new HoldfastError('lease-exists', `lease ${id.toString(16)} already exists`);
      }
      writer.table.put(leaseKey(id), encodeLease({ ttlMs, remainingMs: ttlMs }));
      const granted = this.lessor.add(id, ttlMs, ttlMs, this.#options.clock.now(), false);
      this.#effects.push(() => {
        granted.durable = true;
      });
      return granted;
    }, signal);
  }

  /** What a round that has been evaluated will have done to the leases once it is durable. */
  effects(): Effects {
    if (this.#effects.length === 0) return NONE;
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** Called when a round is durable, before its answers go out. */
  published(effects: Effects): void {
    if (effects.length === 0) return;
    for (const effect of effects) effect();
    this.#arm();
  }

  /** Renews to the full TTL and answers it. */
  async keepAlive(id: LeaseId, signal?: AbortSignal): Promise<Lease> {
    const lease = await this.living(id);
    if (this.lessor.needsStoring(lease)) {
      lease.renewing++;
      try {
        await this.#store(lease, lease.ttlMs, signal);
      } finally {
        lease.renewing--;
      }
      await this.living(id);
    }
    this.lessor.renew(lease, this.#options.clock.now());
    return lease;
  }

  /** The same where neither the store nor another commit has to be waited for. */
  renewAtOnce(id: LeaseId): Lease | undefined {
    const lease = this.lessor.get(id);
    if (!lease || !lives(lease) || this.lessor.needsStoring(lease)) return undefined;
    this.lessor.renew(lease, this.#options.clock.now());
    return lease;
  }

  async revoke(id: LeaseId, signal?: AbortSignal): Promise<Revision> {
    let begun: Lease | undefined;
    try {
      const { revision, done } = await this.#committer().submit((writer) => {
        const lease = this.lessor.get(id);
        if (!lease || lease.ending) throw leaseNotFound(id);
        lease.ending = true;
        begun = lease;
        return this.#end(writer, lease);
      }, signal);
      return done || !begun ? revision : await this.#endAll(begun);
    } catch (error) {
      // Who gave up waiting has begun it all the same.
      if (begun) this.#endAll(begun).catch(() => {});
      throw error;
    }
  }

  /** In as many revisions as it takes. */
  async #endAll(lease: Lease): Promise<Revision> {
    for (;;) {
      const ended = await this.#committer().submit((writer) => this.#end(writer, lease));
      if (ended.done) return ended.revision;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#armed?.cancel();
    await this.#sweeping;
  }

  /**
   * The lease, if it lives. One whose end has begun is answered as gone only when that is durable:
   * until then a power cut could bring it back, and its id is not free.
   */
  async living(id: LeaseId): Promise<Lease> {
    let lease = this.lessor.get(id);
    if (lease && lives(lease)) return lease;
    // Commits are in order: after one more, whatever had begun before is durable.
    if (lease) await this.#committer().submit(() => {});
    lease = this.lessor.get(id);
    if (!lease || !lives(lease)) throw leaseNotFound(id);
    return lease;
  }

  #ttl(ttlMs: number): number {
    if (!Number.isFinite(ttlMs)) {
      throw new HoldfastError('invalid-argument', `a lease cannot live ${ttlMs} ms`);
    }
    if (ttlMs > LEASE_TTL_MS_MAX) {
      throw new HoldfastError(
        'lease-ttl-too-large',
        `a lease cannot live longer than ${LEASE_TTL_MS_MAX} ms`,
      );
    }
    return Math.max(Math.ceil(ttlMs), this.#options.ttlMsMin);
  }

  #freeId(): LeaseId {
    for (;;) {
      const { random } = this.#options;
      const high = BigInt(random.integer(0, 2 ** 31));
      const id = (high << 32n) + BigInt(random.integer(0, 2 ** 32));
      if (id !== 0n && !this.lessor.taken(id)) return id;
    }
  }

  async #store(lease: Lease, remainingMs: number, signal?: AbortSignal): Promise<void> {
    await this.#committer().submit((writer) => {
      if (lease.ending) return;
      writer.table.put(leaseKey(lease.id), encodeLease({ ttlMs: lease.ttlMs, remainingMs }));
    }, signal);
    lease.storedMs = remainingMs;
  }

  #arm(): void {
    const atMs = this.lessor.nextAtMs();
    if (atMs === undefined || this.#closed || this.#sweeping) return;
    if (this.#armed && this.#armed.atMs <= atMs) return;
    this.#armed?.cancel();
    const { clock } = this.#options;
    const wakeMs = Math.max(atMs, clock.now());
    const cancel = clock.wakeAt(wakeMs, () => {
      const lateMs = clock.now() - wakeMs;
      if (lateMs > LATE_MS) this.#sweepLater(atMs, lateMs);
      else this.#wake();
    });
    this.#armed = { atMs, cancel };
  }

  /** A pause of ours is not the holders' fault. Once: who is always late must end leases, too. */
  #sweepLater(atMs: number, lateMs: number): void {
    const { clock } = this.#options;
    const graceMs = Math.min(Math.max(lateMs, GRACE_MS_MIN), GRACE_MS_MAX);
    const cancel = clock.wakeAt(clock.now() + graceMs, () => this.#wake());
    this.#armed = { atMs, cancel };
  }

  #wake(): void {
    this.#armed = undefined;
    this.#sweep();
  }

  #sweep(): void {
    if (this.#sweeping) return;
    const { ended, fading } = this.lessor.due(this.#options.clock.now(), SWEEP_LEASES);
    this.expired += ended.length;
    // A store that fails meanwhile tells everybody itself.
    for (const lease of fading) this.#store(lease, lease.storedMs).catch(() => {});
    if (ended.length === 0) {
      this.#arm();
      return;
    }
    this.#sweeping = Promise.allSettled(ended.map((lease) => this.#endAll(lease))).then(() => {
      this.#sweeping = undefined;
      this.#arm();
    });
  }

  /** A lease of the same id may have been granted since: that one is left alone. */
  #end(writer: Writer, lease: Lease): ReturnType<Writer['revoke']> {
    const isThere = (): boolean => this.lessor.get(lease.id) === lease;
    if (!isThere()) return { revision: writer.state.revision, done: true };
    const ended = writer.revoke(lease.id);
    if (ended.done) {
      this.#effects.push(() => {
        if (isThere()) this.lessor.remove(lease.id);
      });
    }
    return ended;
  }
}

/** Time alone ends nothing: until it is looked at, a lease past its end can be renewed. */
function lives({ durable, ending }: Lease): boolean {
  return durable && !ending;
}

function checkId(id: LeaseId): void {
  if (id < 0n || id > LEASE_ID_MAX) {
    throw new HoldfastError(
      'invalid-argument',
      `${id} is not a lease id: 1 to 2^63-1, or 0 for any`,
    );
  }
}
