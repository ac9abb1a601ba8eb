/**
 * What all guards share besides the rule: reading what a caller presents, demanding a seal where
 * one is required, refusing with one typed error, and telling whoever counts or repairs.
 */
import type { Clock } from '../base/clock.ts';
import { systemClock } from '../base/system.ts';
import type { Attributes, Span, Tracer } from '../base/tracer.ts';
import { HoldfastError } from '../model/errors.ts';
import { isSealed, RESOURCE_LENGTH_MAX, SEAL_LIFE_MS_MAX } from '../model/seal.ts';
import { formatToken, parseToken, type Token } from '../model/token.ts';
import { refusalText } from './fence.ts';
import { type SealKeySet, verifySeal } from './seal.ts';

const HOLDER_LENGTH_MAX = 200;

/**
 * What a caller shows to a guard: a token, its decimal or sealed text, or an object that has one;
 * a grant is such an object.
 */
export type Presented =
  | Token
  | string
  | {
      readonly token: Token | string;
      /** The sealed form, where the authority hands out seals. */
      readonly seal?: string | undefined;
      /** Who acts, for messages. */
      readonly holder?: string | undefined;
      /** The caller has just confirmed at the authority that it holds this grant. */
      readonly fresh?: boolean | undefined;
    };

/** A presented token after reading and verification. */
export interface Claim {
  readonly resource: string;
  readonly token: Token;
  readonly holder: string | undefined;
  readonly fresh: boolean;
}

/** The mark as stored, with whose it is and since when, so that a refusal can say so. */
export interface Mark {
  readonly token: Token;
  readonly holder?: string | undefined;
  readonly atMs?: number | undefined;
}

export interface Admitted extends Claim {
  readonly guard: string;
}

export interface Refused extends Omit<Claim, 'token'> {
  readonly guard: string;
  readonly error: HoldfastError;
  /** Absent when what was presented is no token. */
  readonly token?: Token;
  /** Absent when the seal or the token itself was at fault. */
  readonly mark?: Token;
}

export interface SealRule {
  /** Keys that are there, or ones that are fetched from their authority (`fetchSealKeys`). */
  readonly keys: SealKeySet & { ready?(sealed: string): Promise<void> };
  readonly required?: boolean;
  /** Whose seals count. Absent: those of no tenant, for a tenant may name a resource as it likes. */
  readonly tenant?: string;
  /** How far the clocks of guard and authority may be apart. @default 0 */
  readonly skewMs?: number;
  /** Seals with more time left are refused: the clocks do not agree. @default 10 minutes */
  readonly lifeMsMax?: number;
}

export interface GuardOptions {
  /** For metrics. A hook that throws is ignored: the verdict has been given. */
  readonly onAdmit?: (event: Admitted) => void;
  readonly onRefuse?: (event: Refused) => void;
  /**
   * A token that its holder has just confirmed is below the mark: the authority has gone back in
   * time (a restore). Whoever listens lifts the authority's era past the mark.
   */
  readonly onFreshRefused?: (event: Refused & { readonly mark: Token }) => void;
  /** `required`: only sealed tokens pass. Otherwise a seal is verified when there is one. */
  readonly seal?: SealRule;
  readonly clock?: Clock;
  /** Makes a span of each check, from what is presented to the verdict. */
  readonly tracer?: Tracer;
}

export class Gate {
  readonly clock: Clock;
  readonly #guard: string;
  readonly #options: GuardOptions;
  readonly #checks: WeakMap<Claim, Span> | undefined;

  constructor(guard: string, options: GuardOptions) {
    this.#guard = guard;
    this.#options = options;
    this.clock = options.clock ?? systemClock;
    if (options.tracer) this.#checks = new WeakMap();
  }

  /**
   * Gets what `read` needs and is not here yet: the key of a seal. Errors: `unavailable` when there
   * is no way to get it.
   */
  async ready(presented: Presented): Promise<void> {
    const { keys } = this.#options.seal ?? {};
    const sealed = keys?.ready && sealIn(presented);
    if (sealed !== undefined) await keys?.ready?.(sealed);
  }

  /** Errors: `token-invalid`, `token-unsealed`, `invalid-argument`. */
  read(presented: Presented, resource: string): Claim {
    return this.#checks ? this.#traced(presented, resource) : this.#read(presented, resource);
  }

  /** The span ends with the verdict; a claim on which none comes leaves no span. */
  #traced(presented: Presented, resource: string): Claim {
    const attributes = { 'holdfast.guard': this.#guard, 'holdfast.resource': resource };
    const span = this.#options.tracer!.start('holdfast.guard.check', { attributes });
    try {
      const claim = this.#read(presented, resource);
      span.set({ 'holdfast.token': formatToken(claim.token) });
      this.#checks?.set(claim, span);
      return claim;
    } catch (error) {
      span.set({ 'holdfast.result': HoldfastError.from(error).code });
      span.fail(error);
      span.end();
      throw error;
    }
  }

  /** Once: a claim may be judged again on its way. */
  #end(claim: Claim, span: Span, verdict: Attributes): void {
    this.#checks?.delete(claim);
    span.set(verdict);
    span.end();
  }

  #read(presented: Presented, resource: string): Claim {
    checkResource(resource);
    const shown = typeof presented === 'object' ? presented : { token: presented };
    const fresh = shown.fresh === true;
    const holder = shown.holder?.slice(0, HOLDER_LENGTH_MAX);
    try {
      return { resource, holder, fresh, ...this.#verified(shown, resource) };
    } catch (error) {
      if (HoldfastError.is(error)) {
        call(this.#options.onRefuse, { guard: this.#guard, resource, holder, fresh, error });
      }
      throw error;
    }
  }

  admitted(claim: Claim): void {
    const span = this.#checks?.get(claim);
    if (span) this.#end(claim, span, { 'holdfast.result': 'admitted' });
    call(this.#options.onAdmit, { guard: this.#guard, ...claim });
  }

  /** Tells the hooks and makes the error; the caller throws it. */
  refused(claim: Claim, mark: Mark): HoldfastError {
    const error = new HoldfastError('stale', `${refusalText(claim.token, mark.token)}${by(mark)}`, {
      token: claim.token,
      mark: mark.token,
    });
    const span = this.#checks?.get(claim);
    if (span) {
      span.fail(error);
      const verdict = { 'holdfast.result': 'stale', 'holdfast.mark': formatToken(mark.token) };
      this.#end(claim, span, verdict);
    }
    const event = { guard: this.#guard, ...claim, error, mark: mark.token };
    call(this.#options.onRefuse, event);
    if (claim.fresh) call(this.#options.onFreshRefused, event);
    return error;
  }

  #verified(
    { token, seal }: { readonly token: Token | string; readonly seal?: string | undefined },
    resource: string,
  ): { readonly token: Token } | { readonly token: Token; readonly holder: string } {
    const sealed = sealIn({ token, seal });
    const number = sealed === token ? undefined : parseToken(token);
    const rule = this.#options.seal;
    if (sealed === undefined) {
      if (rule?.required) {
        throw new HoldfastError('token-unsealed', 'this guard admits only sealed tokens', {
          seal: 'missing',
        });
      }
      return { token: number! };
    }
    if (!rule) {
      // Nothing to verify with. The number beside it may pass; a number inside it may not.
      if (number !== undefined) return { token: number };
      throw new HoldfastError('token-unsealed', 'this guard has no keys to verify a seal with', {
        seal: 'unknown-key',
      });
    }
    const { tenant = '', skewMs, lifeMsMax = SEAL_LIFE_MS_MAX } = rule;
    const expected = { resource, tenant, token: number, skewMs, lifeMsMax };
    const claims = verifySeal(rule.keys, sealed, expected, this.clock.wall());
    return { token: claims.token, holder: claims.holder };
  }
}

function sealIn(presented: Presented): string | undefined {
  const { token, seal } =
    typeof presented === 'object' ? presented : { token: presented, seal: undefined };
  return seal ?? (typeof token === 'string' && isSealed(token) ? token : undefined);
}

function checkResource(resource: string): void {
  if (resource.length > 0 && resource.length <= RESOURCE_LENGTH_MAX) return;
  throw new HoldfastError(
    'invalid-argument',
    `a resource is named by 1 to ${RESOURCE_LENGTH_MAX} characters`,
  );
}

function by({ holder, atMs }: Mark): string {
  const at = atMs === undefined ? '' : ` at ${new Date(atMs).toISOString()}`;
  return holder || at ? ` (raised${holder ? ` by ${holder}` : ''}${at})` : '';
}

function call<E>(hook: ((event: E) => void) | undefined, event: E): void {
  try {
    hook?.(event);
  } catch {
    // A hook observes; it must not turn an effect that happened into a failure.
  }
}
