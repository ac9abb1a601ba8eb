/**
 * Seals a token: says over the authority's signature who holds what, under which number, until when.
 *
 * The order counts. The time is read first, so that a server that stands still before it signs makes
 * nothing that lives longer; then the claim is judged and read; only then a key is asked for, which
 * is current now and was not retired before that time.
 */
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import { SEAL_LIFE_MS_MAX, type SealClaims, writeSeal } from '../../model/seal.ts';
import type { Header, LeaseId } from '../../model/transaction.ts';
import type { Backend, Call } from '../backend.ts';
import { type ClaimRequest, heldClaim } from './claim.ts';

export interface Sealing {
  readonly header: Header;
  readonly seal: string;
  readonly claims: SealClaims;
  readonly validMs: number;
}

const HOLDER_LENGTH_MAX = 200;
/** Again when the era was lifted in between. */
const ATTEMPTS_MAX = 4;

export async function seal(backend: Backend, request: ClaimRequest, call: Call): Promise<Sealing> {
  backend.gate.authenticated(call.identity);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const wallMs = backend.options.clock.wall();
    const { token, resource, lease, header } = await heldClaim(backend, request, call);
    const validMs = await lifeOf(backend, lease, call);
    const signer = await backend.sealKeys.signer();
    if (header.era !== signer.era) continue;
    const claims: SealClaims = {
      token,
      tenant: backend.gate.tenantOf(call.identity) ?? '',
      resource,
      holder: holderOf(call, lease),
      expiresAtMs: wallMs + validMs,
    };
    return { header, claims, validMs, seal: writeSeal(claims, signer.keyId, signer.sign) };
  }
  throw new HoldfastError('conflict', 'the era keeps being lifted; try again');
}

/** Never longer than the lease would live if nobody renewed it. */
async function lifeOf(backend: Backend, lease: LeaseId, call: Call): Promise<number> {
  const { remainingTtlMs } = await backend.view(call).leaseInfo(lease, { signal: call.signal });
  const validMs = Math.floor(Math.min(remainingTtlMs, SEAL_LIFE_MS_MAX));
  if (validMs > 0) return validMs;
  throw new HoldfastError('lease-not-found', `lease ${leaseHex(lease)} has ended`);
}

/** What the authority knows itself: the lease, and the user if it asked for one. */
function holderOf({ identity }: Call, lease: LeaseId): string {
  const of = `lease ${leaseHex(lease)}`;
  return identity.user === undefined ? of : `${identity.user.slice(0, HOLDER_LENGTH_MAX)}, ${of}`;
}
