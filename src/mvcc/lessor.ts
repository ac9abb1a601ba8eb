/**
 * Leases in memory: when each ends, and which are due. Deterministic; the time is an argument.
 *
 * A renewal only moves a number; nothing is written. A restart gives each lease what was last
 * stored as left, at most one full TTL. A lease that nobody renews has its remainder stored each
 * time half of it is gone, so that restarts cannot prolong it again and again; the renewal of such
 * a lease must be stored before it is answered (`needsStoring`), or a restart would end it early.
 */
import type { LeaseId } from '../model/transaction.ts';

export interface Lease {
  readonly id: LeaseId;
  readonly ttlMs: number;
  /** The lease ends when the clock reaches this. */
  deadlineMs: number;
  /** What a restart would give it. */
  storedMs: number;
  /** Granted in a commit that is durable; only then may anybody hear of it. */
  durable: boolean;
  /** Its revocation is on its way; no renewal succeeds any more. */
  ending: boolean;
  /** Renewals that are being stored: a remainder stored behind them would undo them. */
  renewing: number;
}

/** When to look at a lease: at its end, or when its remainder should be stored. */
interface Appointment {
  readonly atMs: number;
  readonly lease: Lease;
}

/** Below this a remainder is not worth storing. */
const REMAINDER_MS_MIN = 1_000;

export class Lessor {
  readonly #leases = new Map<LeaseId, Lease>();
  readonly #appointments: Appointment[] = [];

  get size(): number {
    return this.#leases.size;
  }

  has(id: LeaseId): boolean {
    const lease = this.#leases.get(id);
    return lease !== undefined && !lease.ending;
  }

  /** Whether the id is in use, if only by a lease that is about to end. */
  taken(id: LeaseId): boolean {
    return this.#leases.has(id);
  }

  get(id: LeaseId): Lease | undefined {
    return this.#leases.get(id);
  }

  add(id: LeaseId, ttlMs: number, remainingMs: number, nowMs: number, durable: boolean): Lease {
    const lease: Lease = {
      id,
      ttlMs,
      deadlineMs: nowMs + remainingMs,
      storedMs: remainingMs,
      durable,
      ending: false,
      renewing: 0,
    };
    this.#leases.set(id, lease);
    this.#watch(lease, nowMs);
    return lease;
  }

  remove(id: LeaseId): void {
    this.#leases.delete(id);
  }

  /** Renewals that came when less than a third of the lease was left. */
  renewedLate = 0;

  renew(lease: Lease, nowMs: number): void {
    if (lease.deadlineMs - nowMs < lease.ttlMs / 3) this.renewedLate++;
    lease.deadlineMs = nowMs + lease.ttlMs;
  }

  needsStoring(lease: Lease): boolean {
    return lease.storedMs < lease.ttlMs;
  }

  /** When to call `due` next, if ever. */
  nextAtMs(): number | undefined {
    return this.#appointments[0]?.atMs;
  }

  /**
   * Leases whose time has come: `ended` are to be revoked, `fading` have lost half of what is
   * stored for them. At most `limit` in all; call again for more.
   */
  due(nowMs: number, limit: number): { ended: Lease[]; fading: Lease[] } {
    const ended: Lease[] = [];
    const fading: Lease[] = [];
    while (ended.length + fading.length < limit) {
      const next = this.#appointments[0];
      if (!next || next.atMs > nowMs) break;
      this.#pop();
      const { lease } = next;
      if (this.#leases.get(lease.id) !== lease || lease.ending) continue;
      if (nowMs >= lease.deadlineMs) {
        lease.ending = true;
        ended.push(lease);
        continue;
      }
      const remainingMs = lease.deadlineMs - nowMs;
      const isNews = lease.renewing === 0 && remainingMs <= lease.storedMs / 2;
      if (isNews && remainingMs >= REMAINDER_MS_MIN) {
        lease.storedMs = Math.ceil(remainingMs);
        fading.push(lease);
      }
      this.#watch(lease, nowMs);
    }
    return { ended, fading };
  }

  /** All ids, soonest end first. */
  ids(): LeaseId[] {
    return [...this.#leases.values()]
      .sort((a, b) => a.deadlineMs - b.deadlineMs || (a.id < b.id ? -1 : 1))
      .map((lease) => lease.id);
  }

  /** One appointment per lease is enough: a renewal is noticed when it comes up. */
  #watch(lease: Lease, nowMs: number): void {
    const halfMs = lease.deadlineMs - lease.storedMs / 2;
    const worthStoring = lease.storedMs / 2 >= REMAINDER_MS_MIN && halfMs > nowMs;
    this.#push({ atMs: worthStoring ? halfMs : lease.deadlineMs, lease });
  }

  #push(item: Appointment): void {
    const heap = this.#appointments;
    let at = heap.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.atMs <= item.atMs) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = item;
  }

  #pop(): void {
    const heap = this.#appointments;
    const item = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.atMs < heap[child]!.atMs) child++;
      if (heap[child]!.atMs >= item.atMs) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = item;
  }
}
