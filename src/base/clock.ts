/**
 * Time as an argument. Deterministic; the real clock lives in `system.ts`.
 *
 * Two readings exist because they answer different questions: `now` never goes back and counts
 * the time a machine sleeps, so every deadline is judged by it; `wall` is for people.
 */
export interface Clock {
  /** Milliseconds since an arbitrary start. Never goes back; counts machine sleep. */
  now(): number;
  /** Milliseconds since 1970, as the machine believes. May jump; never decides anything. */
  wall(): number;
  /** Calls `wake` once, when `now() >= atMs`. The answer cancels it. */
  wakeAt(atMs: number, wake: () => void): () => void;
}

/** Resolves when the clock reaches `atMs`; rejects with the signal's reason when aborted first. */
export function waitUntil(clock: Clock, atMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = (): void => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = clock.wakeAt(atMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Resolves after `ms` of the clock's time. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return waitUntil(clock, clock.now() + ms, signal);
}

interface Alarm {
  readonly atMs: number;
  readonly order: number;
  readonly wake: () => void;
}

/**
 * A clock that moves only when told to. Alarms fire in order of time, then of registration,
 * and `now()` reads the alarm's own time while it fires, as with a real timer that is never late.
 */
export class ManualClock implements Clock {
  #nowMs: number;
  #wallOffsetMs: number;
  #order = 0;
  readonly #alarms = new Set<Alarm>();

  constructor(options: { readonly nowMs?: number; readonly wallMs?: number } = {}) {
    this.#nowMs = options.nowMs ?? 0;
    this.#wallOffsetMs = (options.wallMs ?? 1_750_000_000_000) - this.#nowMs;
  }

  now(): number {
    return this.#nowMs;
  }

  wall(): number {
    return this.#nowMs + this.#wallOffsetMs;
  }

  wakeAt(atMs: number, wake: () => void): () => void {
    const alarm: Alarm = { atMs, order: this.#order++, wake };
    this.#alarms.add(alarm);
    return () => this.#alarms.delete(alarm);
  }

  /** The time of the next alarm, if there is one. */
  nextAlarmAt(): number | undefined {
    return this.#next()?.atMs;
  }

  /** How many alarms are set; a test uses it to prove that nothing was left behind. */
  get pending(): number {
    return this.#alarms.size;
  }

  /** Moves time forward by `ms`, firing what falls due. Callbacks run synchronously. */
  advance(ms: number): void {
    this.advanceTo(this.#nowMs + ms);
  }

  advanceTo(targetMs: number): void {
    for (let alarm = this.#next(); alarm && alarm.atMs <= targetMs; alarm = this.#next()) {
      this.#alarms.delete(alarm);
      this.#nowMs = Math.max(this.#nowMs, alarm.atMs);
      alarm.wake();
    }
    this.#nowMs = Math.max(this.#nowMs, targetMs);
  }

  /**
   * Moves time without firing anything, as a process sees it that was stopped: when it wakes, the
   * time is gone and its timers are all late. They fire at the next `advance`.
   */
  skip(ms: number): void {
    this.#nowMs += ms;
  }

  /** Sets the wall clock, as an operator or NTP would; deadlines must not care. */
  setWall(wallMs: number): void {
    this.#wallOffsetMs = wallMs - this.#nowMs;
  }

  #next(): Alarm | undefined {
    let next: Alarm | undefined;
    for (const alarm of this.#alarms) {
      if (
        !next ||
        alarm.atMs < next.atMs ||
        (alarm.atMs === next.atMs && alarm.order < next.order)
      ) {
        next = alarm;
      }
    }
    return next;
  }
}

/** Raw readings from which a sleep-aware clock is made; `system.ts` supplies the machine's. */
export interface TimeSources {
  /** A fast monotonic reading that may stand still while the machine sleeps. */
  monotonicMs(): number;
  /** Time since boot, sleep included. Slow and coarse (about 10 ms) is fine. */
  uptimeMs(): number;
  wallMs(): number;
  setTimer(delayMs: number, fire: () => void): () => void;
}

/** Reading the uptime costs a system call or a file, so it is consulted only this often … */
const UPTIME_EVERY_MS = 1_000;
/** … or as soon as the wall clock moved against the monotonic one by more than this. */
const WALL_SUSPICION_MS = 20;
/** The uptime's coarseness; smaller differences are noise, not sleep. */
const UPTIME_NOISE_MS = 50;
/** A timer of the platform cannot be longer than this; longer waits are cut into pieces. */
const TIMER_MS_MAX = 60_000;

/**
 * A clock that counts sleep. On Linux the monotonic clock stops while a machine is suspended and
 * the uptime does not; `now` is the larger elapsed time of the two.
 */
export function sleepAwareClock(sources: TimeSources): Clock {
  const monotonicStart = sources.monotonicMs();
  const uptimeStart = sources.uptimeMs();
  let sleptMs = 0;
  let checkedAt = monotonicStart;
  let wallOffset = sources.wallMs() - monotonicStart;

  const now = (): number => {
    const monotonic = sources.monotonicMs();
    const offset = sources.wallMs() - monotonic;
    if (
      monotonic - checkedAt > UPTIME_EVERY_MS ||
      Math.abs(offset - wallOffset) > WALL_SUSPICION_MS
    ) {
      checkedAt = monotonic;
      wallOffset = offset;
      const ahead = sources.uptimeMs() - uptimeStart - (monotonic - monotonicStart);
      if (ahead > sleptMs + UPTIME_NOISE_MS) sleptMs = ahead;
    }
    return monotonic - monotonicStart + sleptMs;
  };

  const wakeAt = (atMs: number, wake: () => void): (() => void) => {
    let cancel = (): void => {};
    const arm = (): void => {
      const delay = Math.min(Math.max(0, Math.ceil(atMs - now())), TIMER_MS_MAX);
      cancel = sources.setTimer(delay, () => (now() >= atMs ? wake() : arm()));
    };
    arm();
    return () => cancel();
  };

  return { now, wall: () => sources.wallMs(), wakeAt };
}
