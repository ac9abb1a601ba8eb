/**
 * Deadlines of many calls behind one alarm. Adding and removing is a change of links: no allocation,
 * no timer per call. A deadline fires at most 1/64 of its distance (and at least 8 ms) late.
 */

/** What a deadline is kept for. The links belong to `Deadlines`. */
export interface Expiring {
  deadlineNext: Expiring | undefined;
  deadlinePrevious: Expiring | undefined;
  deadlineSlot: DeadlineSlot | undefined;
  onDeadline(): void;
}

/** All deadlines that fire together. */
export interface DeadlineSlot {
  readonly atMs: number;
  first: Expiring | undefined;
}

const FINEST_MS = 8;

export class Deadlines {
  readonly #slots = new Map<number, DeadlineSlot>();
  #earliest = Number.POSITIVE_INFINITY;

  /** When `expire` should be called next; infinity when there is nothing to wait for. */
  get nextAtMs(): number {
    return this.#earliest;
  }

  add(entry: Expiring, atMs: number, now: number): void {
    const distance = Math.max(0, atMs - now);
    const width = Math.max(FINEST_MS, 2 ** Math.floor(Math.log2(distance / 64 + 1)));
    const slotAt = Math.ceil(atMs / width) * width;
    let slot = this.#slots.get(slotAt);
    if (slot === undefined) {
      slot = { atMs: slotAt, first: undefined };
      this.#slots.set(slotAt, slot);
      if (slotAt < this.#earliest) this.#earliest = slotAt;
    }
    entry.deadlineSlot = slot;
    entry.deadlinePrevious = undefined;
    entry.deadlineNext = slot.first;
    if (slot.first) slot.first.deadlinePrevious = entry;
    slot.first = entry;
  }

  remove(entry: Expiring): void {
    const slot = entry.deadlineSlot;
    if (slot === undefined) return;
    const { deadlineNext: next, deadlinePrevious: previous } = entry;
    if (previous) previous.deadlineNext = next;
    else slot.first = next;
    if (next) next.deadlinePrevious = previous;
    entry.deadlineSlot = undefined;
    entry.deadlineNext = undefined;
    entry.deadlinePrevious = undefined;
  }

  /** Calls `onDeadline` of everything due. Entries added meanwhile are not looked at. */
  expire(now: number): void {
    const due: DeadlineSlot[] = [];
    this.#earliest = Number.POSITIVE_INFINITY;
    for (const slot of this.#slots.values()) {
      if (slot.atMs <= now) due.push(slot);
      else if (slot.first === undefined) this.#slots.delete(slot.atMs);
      else if (slot.atMs < this.#earliest) this.#earliest = slot.atMs;
    }
    for (const slot of due) this.#slots.delete(slot.atMs);
    for (const slot of due.sort((a, b) => a.atMs - b.atMs)) {
      for (let entry = slot.first; entry; entry = slot.first) {
        this.remove(entry);
        entry.onDeadline();
      }
    }
  }
}
