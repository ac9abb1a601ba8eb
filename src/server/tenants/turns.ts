/**
 * Turns: how tenants who ask for much are kept from delaying those who ask for little.
 *
 * Each has a share of the server's time that it may use whenever it likes, so that who is modest
 * never waits. Who has used it up waits for its turn, as long as others are there: turns come at a
 * steady beat, each takes about a millisecond of work, one request of every tenant that waits after
 * another. So the work of all of them together never holds up the loop for long, and what they write
 * is one sync of the disk in each beat, with the disk free in between.
 *
 * A request cannot be cut in pieces. One that holds the loop for longer than a beat's work delays
 * everybody who comes meanwhile, by the longer the longer it takes: so its tenant rests by the square.
 */
import type { Clock } from '../../base/clock.ts';
import { abortError, HoldfastError } from '../../model/errors.ts';

/** Of the server's time, for each tenant, without waiting … */
const SHARE = 0.1;
/** … and what it may save up of it. */
const SAVED_MS = 5;
/** What it may owe: who was alone and did much is modest again a second after it becomes so. */
const OWED_MS_MAX = 100;
const BEAT_MS = 50;
/** What one beat carries. What went beyond is taken off the next ones. */
const BEAT_WORK_MS = 1;
/** A tenant that renews its leases now and then is there all the time. */
const PRESENT_MS = 60_000;
/** Requests of one tenant that wait; more are refused. */
const WAITING_MAX = 1_024;

/** However long it took, its tenant does not rest for longer. */
const REST_MS_MAX = 2_000;

interface Waiting {
  readonly signal: AbortSignal | undefined;
  readonly costMs: number;
  readonly begin: () => void;
  readonly refuse: (error: HoldfastError) => void;
}

export class Turns {
  readonly #clock: Clock;
  /** Seats where somebody waits, the next one first. */
  readonly #line: Seat[] = [];
  #workLeftMs = 0;
  #beatAtMs = Number.NEGATIVE_INFINITY;
  #cancelBeat: (() => void) | undefined;
  #last: Seat | undefined;
  #lastAtMs = Number.NEGATIVE_INFINITY;
  /** When one asked who is not the last. */
  #otherAtMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  seat(): Seat {
    return new Seat(this);
  }

  now(): number {
    return this.#clock.now();
  }

  /** Somebody is there who may be held up. */
  seen(seat: Seat): void {
    if (seat !== this.#last) {
      this.#otherAtMs = this.#lastAtMs;
      this.#last = seat;
    }
    this.#lastAtMs = this.#clock.now();
  }

  isAlone(seat: Seat): boolean {
    const otherAtMs = seat === this.#last ? this.#otherAtMs : this.#lastAtMs;
    return this.#clock.now() - otherAtMs > PRESENT_MS;
  }

  queue(seat: Seat, waiting: Waiting): void {
    if (this.#closed) waiting.refuse(stopping());
    else if (seat.waiting.length >= WAITING_MAX) waiting.refuse(tooMany());
    else {
      seat.waiting.push(waiting);
      if (seat.waiting.length === 1) this.#line.push(seat);
      this.#cancelBeat ??= this.#nextBeat();
    }
  }

  /** What a turn turned out to cost beyond what was reckoned, or below it. */
  charge(ms: number): void {
    this.#workLeftMs -= ms;
  }

  /** Whoever waits is told that its turn will not come. */
  close(): void {
    this.#closed = true;
    this.#cancelBeat?.();
    for (const seat of this.#line.splice(0)) {
      for (const { refuse } of seat.waiting.splice(0)) refuse(stopping());
    }
  }

  #nextBeat(): () => void {
    return this.#clock.wakeAt(this.#clock.now() + BEAT_MS, () => this.#beat());
  }

  #beat(): void {
    const now = this.#clock.now();
    const beats = (now - this.#beatAtMs) / BEAT_MS;
    this.#beatAtMs = now;
    this.#workLeftMs = Math.min(BEAT_WORK_MS, this.#workLeftMs + beats * BEAT_WORK_MS);
    for (let seat = this.#next(now); seat; seat = this.#next(now)) {
      const { costMs, begin, signal } = seat.waiting.shift()!;
      if (seat.waiting.length > 0) this.#line.push(seat);
      // Nobody waits for its answer any more: it costs nothing, and says so itself.
      if (!signal?.aborted) this.charge(costMs);
      begin();
    }
    this.#cancelBeat = this.#line.length > 0 ? this.#nextBeat() : undefined;
  }

  /** Takes the first out of the line that may go on now. */
  #next(nowMs: number): Seat | undefined {
    const mayGo = (seat: Seat): boolean =>
      (this.#workLeftMs > 0 && seat.restsUntilMs <= nowMs) || this.isAlone(seat);
    const at = this.#line.findIndex(mayGo);
    return at < 0 ? undefined : this.#line.splice(at, 1)[0];
  }
}

/** One tenant's place. */
export class Seat {
  readonly waiting: Waiting[] = [];
  restsUntilMs: number = Number.NEGATIVE_INFINITY;
  readonly #turns: Turns;
  /** Below zero: saved up. */
  #owedMs = 0;
  #atMs = Number.NEGATIVE_INFINITY;

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  /** Runs it at once, or when it is this tenant's turn. */
  run<T>(costMs: number, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const turns = this.#turns;
    turns.seen(this);
    const modest = this.waiting.length === 0 && this.#owed() <= 0;
    this.#owedMs += costMs;
    if (modest || turns.isAlone(this)) return work();
    return new Promise((resolve, reject) => {
      const begin = (): void =>
        signal?.aborted ? reject(abortError(signal, 'rejected')) : resolve(work());
      turns.queue(this, { costMs, begin, refuse: reject, signal });
    });
  }

  /** It turned out to cost more, or less. */
  charge(ms: number): void {
    this.#owedMs += ms;
    if (this.waiting.length > 0) this.#turns.charge(ms);
  }

  /** It held up the loop for so long, at one go. */
  held(ms: number): void {
    if (ms <= BEAT_WORK_MS || this.#owed() <= 0) return;
    const restMs = Math.min(REST_MS_MAX, ((ms * ms) / BEAT_WORK_MS) * (BEAT_MS / BEAT_WORK_MS));
    this.restsUntilMs = this.#turns.now() + restMs;
  }

  #owed(): number {
    const now = this.#turns.now();
    const owedMs = Math.min(OWED_MS_MAX, this.#owedMs) - (now - this.#atMs) * SHARE;
    this.#owedMs = Math.max(-SAVED_MS, owedMs);
    this.#atMs = now;
    return this.#owedMs;
  }
}

function stopping(): HoldfastError {
  return new HoldfastError('unavailable', 'the server stops; the request was refused');
}

function tooMany(): HoldfastError {
  return new HoldfastError(
    'resource-exhausted',
    `${WAITING_MAX} requests of this tenant wait for their turn already; the request was refused`,
  );
}
