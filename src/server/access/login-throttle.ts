/**
 * Slows the guessing of passwords without locking anybody out.
 *
 * What is counted is wrong passwords of one user from one network. A few are free; after those each
 * wrong one doubles the pause before the next is even looked at, up to a minute. The right password
 * from elsewhere is not held up by it, and the right one from here ends it. How many are looked at
 * at once shrinks with the wrong ones, so that a burst of guesses gets no more than its free ones;
 * the others of the burst wait for their turn, or are refused when there is a pause by then.
 */
import { createHash } from 'node:crypto';
import { abortable } from '../../base/abort.ts';
import type { Clock } from '../../base/clock.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';

/** Wrong passwords that cost nothing: people mistype. */
export const FREE_FAILURES = 5;
const PAUSE_MS_MIN = 1_000;
const PAUSE_MS_MAX = 60_000;
/** The last wrong one was so long ago that it says nothing any more. */
const FORGET_MS = 900_000;
/** Who has been forgotten for want of room begins with the free ones again. */
const ENTRIES_MAX = 10_000;

interface Entry {
  failures: number;
  failedAtMs: number;
  pausedUntilMs: number;
  running: number;
  /** In the order they came. */
  readonly waiting: Set<Deferred<void>>;
}

export interface Attempt {
  readonly name: string;
  readonly address: string;
  /** Of the call. */
  readonly signal: AbortSignal;
}

export class LoginThrottle {
  readonly #clock: Clock;
  readonly #entriesMax: number;
  /** Oldest first. */
  readonly #entries = new Map<string, Entry>();

  constructor(clock: Clock, entriesMax: number = ENTRIES_MAX) {
    this.#clock = clock;
    this.#entriesMax = entriesMax;
  }

  /** How many are remembered. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Answers what `matches` does, when it may be asked. Who goes away before has nothing computed for
   * it: a storm of logins must not be kept up by callers that have given up. Errors:
   * `resource-exhausted` in a pause.
   */
  async attempt(
    { name, address, signal }: Attempt,
    matches: () => Promise<boolean>,
  ): Promise<boolean> {
    const key = keyOf(name, address);
    const entry = this.#enter(key);
    await this.#turn(entry, signal);
    try {
      const right = await matches();
      if (right) entry.failures = 0;
      else this.#failed(entry);
      return right;
    } finally {
      entry.running--;
      this.#left(key, entry);
    }
  }

  #enter(key: string): Entry {
    const now = this.#clock.now();
    let entry = this.#entries.get(key);
    if (entry && now - entry.failedAtMs > FORGET_MS) entry.failures = 0;
    entry ??= { failures: 0, failedAtMs: now, pausedUntilMs: 0, running: 0, waiting: new Set() };
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#entriesMax) break;
      this.#entries.delete(oldest);
    }
    return entry;
  }

  async #turn(entry: Entry, signal: AbortSignal): Promise<void> {
    for (;;) {
      const pausedMs = this.#pausedMs(entry);
      if (pausedMs > 0) throw tooMany(pausedMs);
      if (roomIn(entry) > 0) break;
      const turn = deferred<void>();
      entry.waiting.add(turn);
      try {
        await abortable(turn.promise, signal);
      } catch (error) {
        entry.waiting.delete(turn);
        // It may have been its turn just now: then it is somebody else's.
        this.#wake(entry);
        throw error;
      }
    }
    // In the same step: of many who found room at once, each takes some.
    entry.running++;
  }

  #failed(entry: Entry): void {
    entry.failures++;
    entry.failedAtMs = this.#clock.now();
    const doublings = entry.failures - FREE_FAILURES;
    if (doublings < 0) return;
    const pauseMs = Math.min(PAUSE_MS_MIN * 2 ** doublings, PAUSE_MS_MAX);
    entry.pausedUntilMs = entry.failedAtMs + pauseMs;
  }

  #pausedMs({ failures, pausedUntilMs }: Entry): number {
    return failures < FREE_FAILURES ? 0 : pausedUntilMs - this.#clock.now();
  }

  #left(key: string, entry: Entry): void {
    const idle = entry.running === 0 && entry.failures === 0 && entry.waiting.size === 0;
    if (idle && this.#entries.get(key) === entry) this.#entries.delete(key);
    this.#wake(entry);
  }

  /** As many as there is room for have their turn; a pause refuses all of them. */
  #wake(entry: Entry): void {
    let next = this.#pausedMs(entry) > 0 ? entry.waiting.size : roomIn(entry);
    for (const turn of entry.waiting) {
      if (next-- <= 0) return;
      entry.waiting.delete(turn);
      turn.resolve();
    }
  }
}

/** How many more may be looked at now. */
function roomIn({ failures, running }: Entry): number {
  return Math.max(1, FREE_FAILURES - failures) - running;
}

function tooMany(pausedMs: number): HoldfastError {
  return new HoldfastError(
    'resource-exhausted',
    `too many wrong passwords of this user from here; try again in ${Math.ceil(pausedMs / 1_000)} s`,
  );
}

/** Of fixed length, whatever a caller takes for a name. */
function keyOf(name: string, address: string): string {
  return createHash('sha256')
    .update(`${networkOf(address)} ${name}`)
    .digest('base64');
}

/** An IPv4 address, or the 64 bits of an IPv6 one that a single customer has to himself. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped) return mapped[1]!;
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.split('%')[0]!.split('::', 2);
  const before = head === '' ? [] : head.split(':');
  const after = tail ? tail.split(':') : [];
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array.from({ length: zeros }, () => '0'), ...after];
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}
