/**
 * The sealed form of a grant's token, for guards that take no other.
 *
 * A seal ends with the lease as it stood when the seal was made, and the lease goes on as long as it
 * is renewed. So a seal is used until half of its time is over, and then another one is asked for.
 */
import type { Bytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import type { SealedToken } from '../model/seal.ts';
import type { Token } from '../model/token.ts';
import type { Session } from './session.ts';

export interface SealOptions {
  /** Ask the authority, even if there is a seal: for a guard that does not know its key any more. */
  readonly anew?: boolean | undefined;
}

export interface SealedClaim {
  readonly name: string;
  readonly key: Bytes;
  readonly token: Token;
  readonly session: Session;
}

export class Seals {
  readonly #claim: SealedClaim;
  #fresh: { readonly sealed: SealedToken; readonly untilMs: number } | undefined;
  #asking: Promise<SealedToken> | undefined;

  constructor(claim: SealedClaim) {
    this.#claim = claim;
  }

  /** Calls at the same time share one request. */
  async get({ anew = false }: SealOptions = {}): Promise<SealedToken> {
    const { clock } = this.#claim.session.authority;
    if (this.#fresh && !anew && clock.now() < this.#fresh.untilMs) return this.#fresh.sealed;
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return await this.#asking;
  }

  async #ask(): Promise<SealedToken> {
    const { key, token, session, name } = this.#claim;
    const { engine, clock } = session.authority;
    const { sealer } = engine;
    if (!sealer) {
      throw new HoldfastError(
        'unsupported',
        `"${name}": this authority (${engine.capabilities.name}) has no key to seal tokens with; a Holdfast server has`,
      );
    }
    let sentAtMs = 0;
    const sealed = await session.call(() => {
      sentAtMs = clock.now();
      return sealer.seal({ key, token, lease: session.id });
    });
    this.#fresh = { sealed, untilMs: sentAtMs + sealed.validMs / 2 };
    return sealed;
  }
}
