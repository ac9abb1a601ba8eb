/**
 * Follows the log for all watches of this process: one reader at the tail, and a catch-up for each
 * watch that is behind it. Wakes when told (a notification, a write of our own, a reader that wants
 * more) and otherwise by the clock.
 *
 * Invariant: a watch is handed every revision after its start exactly once, in order, whole. Each
 * poll answers "everything up to `upto`", and both the tail and a watch that is behind only ever
 * move by such answers.
 */
import { type Clock, sleep } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import { isEmptyInterval } from '../../model/range.ts';
import type { Header, KeyValue, Revision } from '../../model/transaction.ts';
import type { Event, WatchRequest } from '../../model/watch.ts';
import { decodeKv, hex, type Json, type KvJson, unhex } from './encode.ts';
import type { Answer, Exchange } from './exchange.ts';
import { ExchangeError } from './faults.ts';
import { BEYOND_KEYS } from './schema.ts';
import { Watcher, type WatchFeed } from './watcher.ts';

/** `[revision, deleted, key, value, created, version, lease, previous?]` */
type EventJson = readonly [number, 0 | 1, string, string, number, number, string, KvJson?];

interface PollAnswer extends Answer {
  readonly upto: number;
  /** What was asked for has been compacted. */
  readonly lost?: true;
}

export interface FollowerOptions {
  readonly exchange: Exchange;
  readonly clock: Clock;
  /** Between two looks while nothing wakes us. */
  readonly pollMs: number;
  /** The same while notifications come: only in case one was lost. */
  readonly calmMs: number;
}

/** With more ranges than this the whole log is fetched and sorted out here. */
const RANGES_MAX = 50;
const RETRY_MS = 100;
/** How long watches wait for a database that does not answer before they are told. */
const UNREACHABLE_MS = 30_000;

export class Follower implements WatchFeed {
  readonly #options: FollowerOptions;
  readonly #watchers = new Set<Watcher>();
  /** Everything up to here has been handed to the watches at the tail. */
  #position: Revision | undefined;
  #running = false;
  #woken = false;
  #notified = false;
  #cancelWait: (() => void) | undefined;
  #endWait: (() => void) | undefined;
  #failingSince: number | undefined;

  constructor(options: FollowerOptions) {
    this.#options = options;
  }

  /** A watch that cannot be is still a watch: one that tells why. */
  watch(request: WatchRequest, refusal?: HoldfastError): Watcher {
    const watcher = new Watcher(request, this);
    const empty = isEmptyInterval(watcher.range);
    const error =
      refusal ?? (empty && new HoldfastError('invalid-argument', 'the range to watch is empty'));
    if (error) {
      watcher.fail(error);
      return watcher;
    }
    this.#watchers.add(watcher);
    this.wake();
    return watcher;
  }

  get size(): number {
    return this.#watchers.size;
  }

  /** While notifications come there is no need to look often. */
  setNotified(notified: boolean): void {
    this.#notified = notified;
    this.wake();
  }

  /** An answer has shown this revision: if it is news, look. */
  headAt(revision: Revision): void {
    if (this.#position !== undefined && revision > this.#position) this.wake();
  }

  /** Something has happened, perhaps: look soon. */
  wake(): void {
    this.#woken = true;
    this.#endWait?.();
    if (!this.#running && this.#watchers.size > 0) {
      this.#running = true;
      void this.#run();
    }
  }

  leave(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    if (this.#watchers.size === 0) this.#endWait?.();
  }

  /** Settles when the tail has come to `revision`, or nobody watches, or after `limitMs`. */
  async reach(revision: Revision, limitMs: number): Promise<void> {
    const { clock } = this.#options;
    const endMs = clock.now() + limitMs;
    while (this.#watchers.size > 0 && (this.#position ?? 0) < revision && clock.now() < endMs) {
      this.wake();
      await sleep(clock, 2);
    }
  }

  failAll(error: HoldfastError): void {
    for (const watcher of [...this.#watchers]) watcher.fail(error);
  }

  /** Progress for the quiet watches that asked for it from time to time. */
  tick(): void {
    for (const watcher of this.#watchers) {
      if (watcher.request.progressNotify && watcher.quiet && watcher.empty) {
        watcher.progressWanted = true;
      }
      watcher.quiet = true;
    }
    this.wake();
  }

  async #run(): Promise<void> {
    while (this.#watchers.size > 0) {
      this.#woken = false;
      try {
        await this.#round();
        this.#failingSince = undefined;
        if (!this.#woken)
          await this.#wait(this.#notified ? this.#options.calmMs : this.#options.pollMs);
      } catch (error) {
        this.#failed(error);
        await this.#wait(RETRY_MS);
      }
    }
    this.#position = undefined;
    this.#running = false;
  }

  /** One look: new watches are placed, the tail moves to the head, the others catch up a step. */
  async #round(): Promise<void> {
    const newcomers = [...this.#watchers].filter((watcher) => watcher.next === undefined);
    const asked = [...this.#watchers].filter((watcher) => watcher.progressWanted);
    for (let atHead = false; !atHead; ) {
      const answer = await this.#poll(this.#position, [...this.#watchers]);
      for (const watcher of newcomers.splice(0)) this.#place(watcher, answer);
      this.#tell(answer);
      atHead = (this.#position ?? 0) >= answer.h;
    }
    for (const watcher of [...this.#watchers]) await this.#catchUp(watcher);
    for (const watcher of asked) this.#progress(watcher);
  }

  /** A new watch stands at the revision that an answer to a later question shows. */
  #place(watcher: Watcher, answer: Answer): void {
    if (watcher.ended) return;
    const { startRevision = 0 } = watcher.request;
    if (startRevision < 0) {
      watcher.fail(compacted(startRevision, answer));
      return;
    }
    watcher.stand(headerOf(answer), startRevision > 0 ? startRevision : answer.h + 1);
    if (startRevision > 0 && startRevision < answer.compacted) {
      watcher.fail(compacted(startRevision, answer));
    }
  }

  #tell(answer: PollAnswer): void {
    const position = this.#position ?? answer.h;
    const standing = [...this.#watchers].filter((watcher) => watcher.next !== undefined);
    if (answer.lost) {
      // Everybody at the tail is behind now, and finds on the way back that it is gone.
      this.#position = answer.h;
      return;
    }
    const upto = this.#position === undefined ? answer.h : Math.max(answer.upto, position);
    const events = decodeEvents(answer);
    const header = { revision: upto, era: answer.era };
    for (const watcher of standing) {
      if (watcher.next! <= position || watcher.next! > upto) continue;
      watcher.offer(header, events);
    }
    this.#position = upto;
  }

  async #catchUp(watcher: Watcher): Promise<void> {
    while (!watcher.ended && !watcher.full && watcher.next !== undefined) {
      const { next } = watcher;
      if (next > this.#position!) return;
      const answer = await this.#poll(next - 1, [watcher], this.#position);
      if (answer.lost) {
        watcher.fail(compacted(next, answer));
        return;
      }
      watcher.offer({ revision: answer.upto, era: answer.era }, decodeEvents(answer));
      // Others are not made to wait for a long way back.
      if (answer.upto < this.#position!) {
        this.#woken = true;
        return;
      }
    }
  }

  #progress(watcher: Watcher): void {
    const position = this.#position!;
    const { next } = watcher;
    // A promise only once everything was told, and never about a time before the start.
    if (watcher.ended || !watcher.progressWanted || next === undefined) return;
    if (next !== position + 1) return;
    const { era } = this.#options.exchange.header;
    watcher.deliver({ header: { revision: position, era }, events: [] });
  }

  async #poll(
    after: Revision | undefined,
    watchers: readonly Watcher[],
    upto?: Revision,
  ): Promise<PollAnswer> {
    const body: Json = {
      // Without a place to start from only the head is wanted.
      after: after ?? 2 ** 53,
      ...(upto !== undefined && { upto }),
      ...(watchers.some(({ request }) => request.prevKv) && { pk: 1 }),
      ...rangesOf(watchers),
    };
    return (await this.#options.exchange.ask('poll', body)) as PollAnswer;
  }

  #failed(error: unknown): void {
    const { clock } = this.#options;
    const fault = error instanceof ExchangeError ? error.fault : undefined;
    if (fault?.retry) {
      this.#failingSince ??= clock.now();
      if (clock.now() - this.#failingSince < UNREACHABLE_MS) return;
    }
    const told =
      error instanceof ExchangeError ? error.told(false) : HoldfastError.from(error, 'rejected');
    this.#failingSince = undefined;
    this.failAll(told);
  }

  #wait(ms: number): Promise<void> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      const end = (): void => {
        this.#cancelWait?.();
        this.#cancelWait = undefined;
        this.#endWait = undefined;
        resolve();
      };
      this.#endWait = end;
      this.#cancelWait = clock.wakeAt(clock.now() + ms, end);
    });
  }
}

function rangesOf(watchers: readonly Watcher[]): Json {
  const ranges = new Map<string, readonly [string, string]>();
  for (const { range } of watchers) {
    const low = hex(range.start);
    const high = range.end === undefined ? BEYOND_KEYS : hex(range.end);
    ranges.set(`${low}-${high}`, [low, high]);
    if (ranges.size > RANGES_MAX) return {};
  }
  if (ranges.size === 0) return {};
  const pairs = [...ranges.values()];
  return { low: pairs.map(([low]) => low), high: pairs.map(([, high]) => high) };
}

function headerOf(answer: Answer): Header {
  return { revision: answer.h, era: answer.era };
}

function compacted(revision: Revision, answer: Answer): HoldfastError {
  const compactRevision = answer.compacted;
  const message = `revision ${revision} has been compacted; the oldest readable is ${compactRevision}`;
  return new HoldfastError('compacted', message, { compactRevision });
}

function decodeEvents(answer: PollAnswer): Event[] {
  return ((answer.a ?? []) as readonly EventJson[]).map(
    ([modRevision, deleted, key, value, createRevision, version, lease, previous]) => {
      const kv: KeyValue = {
        ...{ key: unhex(key), value: unhex(value) },
        ...{ createRevision, modRevision, version },
        lease: BigInt(lease),
      };
      const type = deleted ? 'delete' : 'put';
      return previous ? { type, kv, prevKv: decodeKv(previous) } : { type, kv };
    },
  );
}
