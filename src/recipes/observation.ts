/**
 * What recipes tell of themselves: spans for a tracer, events for whoever counts.
 *
 * Nothing here is on the way of a client that asked for neither: such a client makes the recipes
 * themselves, this one the observed ones of `observed.ts`.
 */
import type { Clock } from '../base/clock.ts';
import type { Span, Tracer } from '../base/tracer.ts';
import { type ErrorCode, HoldfastError, type LossReason } from '../model/errors.ts';
import { formatToken, type Token } from '../model/token.ts';
import type { Grant } from './grant.ts';
import type { Renewal } from './renewals.ts';

export type RecipeKind = 'lock' | 'read-write-lock' | 'semaphore' | 'multi-lock' | 'election';

export interface Asked {
  readonly recipe: RecipeKind;
  /** May be anything: no label for a metric. */
  readonly name: string;
}

export interface Answered extends Asked {
  /** `busy`: it was only tried, and not free. */
  readonly result: 'acquired' | 'busy' | ErrorCode;
  readonly waitMs: number;
  /** Of what was acquired. */
  readonly token?: Token;
}

export interface Ended extends Asked {
  readonly token: Token;
  /** `released`, or why it was lost. */
  readonly reason: LossReason;
  readonly heldMs: number;
}

/** Hooks to count by. What they throw is ignored; they must not block. */
export interface Observer {
  /** Somebody begins to wait, if only for an answer. */
  onAsk?(event: Asked): void;
  /** The wait is over, one way or another. */
  onAnswer?(event: Answered): void;
  onEnd?(event: Ended): void;
  /** The session of something held was renewed. */
  onRenewal?(event: Asked & Renewal): void;
}

export interface ObservationOptions {
  readonly clock: Clock;
  /** Of the engine, for people. */
  readonly backend: string;
  readonly tracer?: Tracer | undefined;
  readonly observer?: Observer | undefined;
}

export class Observation {
  readonly #options: ObservationOptions;
  readonly #holds = new WeakMap<Grant, Span>();

  constructor(options: ObservationOptions) {
    this.#options = options;
  }

  /** Asks, and tells what came of it. */
  async take<G extends Grant | undefined>(asked: Asked, ask: () => Promise<G>): Promise<G> {
    const { clock, tracer, observer, backend } = this.#options;
    const attributes = { ...about(asked), 'holdfast.backend': backend };
    const span = tracer?.start('holdfast.acquire', { attributes });
    const sinceMs = clock.now();
    tell(() => observer?.onAsk?.(asked));
    try {
      const grant = await (span && tracer ? tracer.within(span, ask) : ask());
      const waitMs = clock.now() - sinceMs;
      this.#answer(span, { ...asked, waitMs, ...resultOf(grant) });
      if (grant) this.#hold(asked, grant);
      return grant;
    } catch (error) {
      const result = HoldfastError.from(error).code;
      this.#answer(span, { ...asked, waitMs: clock.now() - sinceMs, result }, error);
      throw error;
    }
  }

  /** Runs the work of whoever holds `grant` as part of its hold. */
  within<T>(grant: Grant, work: () => T): T {
    const hold = this.#holds.get(grant);
    const { tracer } = this.#options;
    return hold && tracer ? tracer.within(hold, work) : work();
  }

  #answer(span: Span | undefined, answered: Answered, error?: unknown): void {
    const { result, waitMs, token } = answered;
    span?.set({ 'holdfast.result': result, 'holdfast.wait_ms': waitMs, ...tokenOf(token) });
    if (error !== undefined) span?.fail(error);
    span?.end();
    tell(() => this.#options.observer?.onAnswer?.(answered));
  }

  /** From the grant to its end, which its signal tells. */
  #hold(asked: Asked, grant: Grant): void {
    const { clock, tracer, observer } = this.#options;
    const sinceMs = clock.now();
    const { token, session, signal } = grant;
    const span = tracer?.start('holdfast.hold', {
      attributes: { ...about(asked), ...tokenOf(token) },
    });
    if (span) this.#holds.set(grant, span);
    const forget = session.onRenewal((renewal) => {
      span?.event('holdfast.renew', {
        'holdfast.remaining_ms': renewal.leftMs,
        'holdfast.late': renewal.late,
      });
      tell(() => observer?.onRenewal?.({ ...asked, ...renewal }));
    });
    const end = (): void => {
      forget();
      const reason = grant.lossReason ?? 'released';
      span?.set({ 'holdfast.reason': reason });
      if (reason !== 'released' && reason !== 'closed') span?.fail(signal.reason);
      span?.end();
      tell(() => observer?.onEnd?.({ ...asked, token, reason, heldMs: clock.now() - sinceMs }));
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  }
}

function about({ recipe, name }: Asked): Record<string, string> {
  return { 'holdfast.resource': name, 'holdfast.recipe': recipe };
}

function tokenOf(token: Token | undefined): Record<string, string> {
  return token === undefined ? {} : { 'holdfast.token': formatToken(token) };
}

function resultOf(grant: Grant | undefined): Pick<Answered, 'result' | 'token'> {
  return grant ? { result: 'acquired', token: grant.token } : { result: 'busy' };
}

/** A hook observes; it must not turn a grant into a failure. */
function tell(hook: () => void): void {
  try {
    hook();
  } catch {
    // Whose hook it is learns of it by its own means.
  }
}
