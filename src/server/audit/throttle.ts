/**
 * Keeps what strangers can cause without end from filling the store: of what is alike, one entry in
 * a minute, and in the next one how often it happened meanwhile; of all together, a few at once and
 * then one in a minute. What goes beyond is counted in one entry for all. Nothing is lost but detail.
 *
 * A machine: what is due comes out of it, the caller writes it and asks again when it says so.
 */
import type { Told } from './log.ts';

const PAUSE_MS = 60_000;
/** Entries at once; a spent one comes back after the pause. */
const BURST = 64;
/** Kinds that are told apart; more share the entry for all. */
const KINDS_MAX = 1_000;

/** The entry for what is not told apart. */
export const OTHERS_ACT = 'audit.others';

interface Kind {
  readonly told: Told;
  /** Not told yet. */
  count: number;
  untilMs: number;
}

export class AuditThrottle {
  readonly #kinds = new Map<string, Kind>();
  #budget = BURST;
  #refilledMs: number;
  #others = 0;

  constructor(nowMs: number) {
    this.#refilledMs = nowMs;
  }

  /** What is to be written now that one more of `kind` has happened. */
  add(kind: string, told: Told, nowMs: number): Told[] {
    const due = this.due(nowMs);
    const known = this.#kinds.get(kind);
    if (known) known.count++;
    else if (this.#kinds.size < KINDS_MAX && this.#spend()) {
      this.#kinds.set(kind, { told, count: 0, untilMs: nowMs + PAUSE_MS });
      due.push(told);
    } else this.#others++;
    return due;
  }

  /** What pauses have ended. */
  due(nowMs: number): Told[] {
    this.#refill(nowMs);
    const due: Told[] = [];
    for (const [name, kind] of this.#kinds) {
      if (kind.untilMs > nowMs) continue;
      if (kind.count === 0) this.#kinds.delete(name);
      else if (this.#spend()) {
        due.push({ ...kind.told, times: kind.count });
        kind.count = 0;
        kind.untilMs = nowMs + PAUSE_MS;
      }
    }
    if (this.#others > 0 && this.#spend()) due.push(this.#takeOthers());
    return due;
  }

  /** Everything that is counted and not told; for the end. */
  rest(): Told[] {
    const counted = [...this.#kinds.values()].filter(({ count }) => count > 0);
    const due = counted.map(({ told, count }): Told => ({ ...told, times: count }));
    this.#kinds.clear();
    return this.#others > 0 ? [...due, this.#takeOthers()] : due;
  }

  /** When to ask again; undefined: nothing is waiting. */
  get wakeMs(): number | undefined {
    const waiting = [...this.#kinds.values()].filter(({ count }) => count > 0);
    const untils = waiting.map(({ untilMs }) => untilMs);
    if (this.#others > 0) untils.push(this.#refilledMs + PAUSE_MS);
    if (untils.length === 0) return undefined;
    return Math.max(Math.min(...untils), this.#budget > 0 ? 0 : this.#refilledMs + PAUSE_MS);
  }

  #takeOthers(): Told {
    const times = this.#others;
    this.#others = 0;
    const subject = 'refusals or releases of many kinds';
    return { act: OTHERS_ACT, subject, outcome: 'refused', times };
  }

  #refill(nowMs: number): void {
    const back = Math.floor((nowMs - this.#refilledMs) / PAUSE_MS);
    if (back <= 0) return;
    this.#budget = Math.min(BURST, this.#budget + back);
    this.#refilledMs += back * PAUSE_MS;
  }

  #spend(): boolean {
    if (this.#budget === 0) return false;
    this.#budget--;
    return true;
  }
}
