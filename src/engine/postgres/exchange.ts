/**
 * One question to the database and its answer, with the watch over time running backwards.
 *
 * Every message says what this client has already seen, and the database checks it in the same
 * statement, before anything else: a store that was restored, failed over with a loss, or replaced
 * answers `regressed` and has done nothing. From then on the client asks for a higher era than it
 * knew, so it stays refused until somebody lifts the era, however far the revision has come again.
 */
import type { Clock } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { Header } from '../../model/transaction.ts';
import type { Driver } from './driver.ts';
import { type Json, literal } from './encode.ts';
import { ExchangeError, faultOf } from './faults.ts';

/** The head of every answer. */
export interface Answer {
  readonly h: number;
  readonly era: number;
  /** Identity of the history. */
  readonly c: string;
  readonly compacted: number;
  /** Milliseconds until the next lease ends; null when there is none. */
  readonly due: number | null;
  /** One per item of a batch. */
  readonly a: readonly unknown[];
}

export interface Verdict {
  readonly standby?: true;
  readonly superseded?: true;
  readonly large?: true;
  readonly regressed?: readonly [cluster: string, era: number, revision: number];
}

export type Procedure = 'apply' | 'read' | 'poll' | 'outcome';

/** What the store must show at least. */
interface Seen {
  readonly cluster: string;
  readonly era: number;
  readonly revision: number;
}

export interface ExchangeOptions {
  readonly driver: Driver;
  readonly schema: string;
  readonly clock: Clock;
  /** One attempt; a call may make several. */
  readonly attemptMs: number;
}

export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #preamble: string;
  #seen: Seen | undefined;
  #onAnswer: (answer: Answer) => void = () => {};
  #regressed = false;

  constructor(options: ExchangeOptions) {
    this.#options = options;
    const limit = Math.max(50, Math.round(options.attemptMs * 0.9));
    // Plans must not depend on how empty a table was when a connection first saw it.
    this.#preamble =
      'set transaction isolation level read committed; ' +
      `select set_config('statement_timeout', '${limit}', true), ` +
      "set_config('plan_cache_mode', 'force_generic_plan', true), " +
      "set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true); ";
  }

  /** Hears of every answer, so that wake-ups can be planned. */
  onAnswer(listener: (answer: Answer) => void): void {
    this.#onAnswer = listener;
  }

  get header(): Header {
    return { revision: this.#seen?.revision ?? 0, era: this.#seen?.era ?? 0 };
  }

  get regressed(): boolean {
    return this.#regressed;
  }

  /** The era a lift must reach to be believed again. */
  get eraWanted(): number {
    return this.#regressed ? (this.#seen?.era ?? 0) : 0;
  }

  /** Asks one of the functions. `blind`: without saying what was seen. */
  async ask(
    procedure: Procedure,
    body: Json,
    options: { readonly blind?: boolean; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Answer & Verdict> {
    const seen = this.#seen;
    const claim = seen && !options.blind && { seen: [seen.cluster, seen.era, seen.revision] };
    const argument = literal({ ...body, ...claim });
    const call = `select ${this.#options.schema}.${procedure}_v1(${argument}::jsonb) as result`;
    const text = await this.run(this.#preamble + call, options.signal);
    const answer = JSON.parse(text ?? 'null') as (Answer & Verdict) | null;
    if (answer === null) throw new HoldfastError('internal', 'the database answered nothing');
    this.#judge(answer);
    return answer;
  }

  /** Runs one message under the time limit of an attempt. */
  async run(
    sql: string,
    signal?: AbortSignal,
    attemptMs: number = this.#options.attemptMs,
  ): Promise<string | null> {
    const { driver, clock } = this.#options;
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    const cancel = clock.wakeAt(clock.now() + attemptMs, abort);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    try {
      return await driver.run(sql, controller.signal);
    } catch (error) {
      throw new ExchangeError(faultOf(error));
    } finally {
      cancel();
      signal?.removeEventListener('abort', abort);
    }
  }

  /** After a lift of the era this is the history to believe in. */
  believe(answer: Answer): void {
    this.#seen = { cluster: answer.c, era: answer.era, revision: answer.h };
    this.#regressed = false;
  }

  #judge(answer: Answer & Verdict): void {
    if (answer.standby) {
      const message = 'the database is a standby and cannot answer';
      throw new ExchangeError({
        ...{ code: 'unavailable', message, maybe: false, retry: true, cause: undefined },
      });
    }
    if (answer.regressed) throw this.#regress(answer.regressed);
    if (answer.large || answer.superseded || answer.c === undefined) return;
    this.#observe(answer);
    this.#onAnswer(answer);
  }

  #observe({ c, era, h }: Answer): void {
    const seen = this.#seen;
    if (seen && (era < seen.era || (era === seen.era && h <= seen.revision))) return;
    this.#seen = { cluster: c, era, revision: h };
    this.#regressed = false;
  }

  #regress([cluster, era, revision]: readonly [string, number, number]): ExchangeError {
    const seen = this.#seen!;
    if (!this.#regressed) {
      this.#regressed = true;
      this.#seen = { cluster, era: seen.era + 1, revision: 0 };
    }
    const what =
      cluster === seen.cluster
        ? `stands at era ${era}, revision ${revision}, before what this client has seen`
        : 'is another one than before';
    const message = `the store ${what}; lift the era to go on (liftEra)`;
    return new ExchangeError({
      ...{ code: 'era-regressed', message, maybe: false, retry: false, cause: undefined },
    });
  }
}
