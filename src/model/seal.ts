/**
 * Sealed tokens: a token signed by its authority, so that a guard can tell a granted number from
 * an invented one. Without a seal, one invented 2^62 would lock every real holder out for ever.
 *
 *   hf1.KEY-ID.CLAIMS.SIGNATURE
 *
 * Claims are JSON, claims and signature are base64url, and the Ed25519 signature covers everything
 * before the last dot. Reading needs public keys and no connection. Pure: who signs and who verifies
 * is an argument, and so is the time.
 */
import { fromBase64url, toBase64url } from '../base/base64url.ts';
import { type Bytes, text, utf8 } from '../base/bytes.ts';
import { HoldfastError, type SealFault } from './errors.ts';
import { formatToken, parseToken, type Token } from './token.ts';
import type { LeaseId } from './transaction.ts';

const VERSION = 'hf1';
const KEY_ID = /^[A-Za-z0-9_-]{1,64}$/;
/** A seal travels in a header; a longer one is not ours. */
const SEAL_LENGTH_MAX = 4_096;
const CLAIM_LENGTH_MAX = 512;

/** Names of resources that guards know are no longer than this. */
export const RESOURCE_LENGTH_MAX = 512;

/** No authority seals for longer; a guard that sees more of it has another idea of the time. */
export const SEAL_LIFE_MS_MAX = 600_000;

export interface SealClaims {
  readonly token: Token;
  /** Empty: of no tenant. */
  readonly tenant: string;
  readonly resource: string;
  readonly holder: string;
  /** On the authority's wall clock: a seal outlives its grant by at most this. */
  readonly expiresAtMs: number;
}

/** A token with its seal, as its holder has it; it can be shown to a guard as it is. */
export interface SealedToken {
  readonly token: Token;
  readonly seal: string;
  /** The name under which a guard admits it. */
  readonly resource: string;
  readonly tenant: string;
  readonly holder: string;
  /** How long it holds, from when it was asked for. */
  readonly validMs: number;
}

/** What is asked of an authority: the claim of a lock or an election as its holder knows it. */
export interface SealRequest {
  readonly key: Bytes;
  readonly lease: LeaseId;
  readonly token: Token;
}

/** The verbs of an authority that signs. */
export interface Sealer {
  /** Errors: `grant-lost` when the claim is not held under this token; `lease-not-found`. */
  seal(
    request: SealRequest,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<SealedToken>;
  /**
   * Signs with another key from now on, which guards know already. With `discard` what the old keys
   * signed is void as soon as guards hear of it.
   */
  rotate(options?: { readonly discard?: boolean | undefined }): Promise<{
    readonly keyId: string;
    readonly published: readonly string[];
  }>;
}

export interface SealExpectation {
  readonly resource: string;
  /** Absent: any tenant. Empty: none. */
  readonly tenant?: string | undefined;
  /** A number presented beside the seal must be the sealed one. */
  readonly token?: Token | undefined;
  /** How far the clocks of guard and authority may be apart. @default 0 */
  readonly skewMs?: number | undefined;
  /** A seal with more time left than this comes from another time. @default any */
  readonly lifeMsMax?: number | undefined;
}

/** False: the signature is wrong. Undefined: nobody here knows the key. */
export type VerifySignature = (
  keyId: string,
  signed: Bytes,
  signature: Bytes,
) => boolean | undefined;

export function isKeyId(id: unknown): id is string {
  return typeof id === 'string' && KEY_ID.test(id);
}

export function isSealed(text: string): boolean {
  return text.startsWith(`${VERSION}.`);
}

/** The id of the key a seal says it was made with; nothing is verified. */
export function keyIdOf(sealed: string): string | undefined {
  const [version, id] = sealed.length <= SEAL_LENGTH_MAX ? sealed.split('.', 2) : [];
  return version === VERSION && isKeyId(id) ? id : undefined;
}

/** Errors: `invalid-argument` for claims that no guard could read. */
export function writeSeal(
  claims: SealClaims,
  keyId: string,
  sign: (signed: Bytes) => Bytes,
): string {
  checkClaims(claims);
  const body = JSON.stringify({
    t: formatToken(parseToken(claims.token)),
    n: claims.tenant,
    r: claims.resource,
    h: claims.holder,
    e: claims.expiresAtMs,
  });
  const signed = `${VERSION}.${keyId}.${toBase64url(utf8(body))}`;
  const sealed = `${signed}.${toBase64url(sign(utf8(signed)))}`;
  if (sealed.length <= SEAL_LENGTH_MAX) return sealed;
  throw new HoldfastError('invalid-argument', 'the names in these claims are too long for a seal');
}

function checkClaims({ tenant, resource, holder, expiresAtMs }: SealClaims): void {
  for (const name of [tenant, resource, holder]) {
    if (name.length > CLAIM_LENGTH_MAX) {
      throw new HoldfastError('invalid-argument', `a name in a seal has ${CLAIM_LENGTH_MAX} signs`);
    }
  }
  if (resource === '') throw new HoldfastError('invalid-argument', 'a seal names a resource');
  if (Number.isSafeInteger(expiresAtMs)) return;
  throw new HoldfastError('invalid-argument', `${expiresAtMs} is not a time in milliseconds`);
}

/** The claims of a seal that holds for this resource now; `token-unsealed` says why otherwise. */
export function readSeal(
  sealed: string,
  expected: SealExpectation,
  { wallMs, verify }: { readonly wallMs: number; readonly verify: VerifySignature },
): SealClaims {
  const { keyId, signed, signature, body } = takeApart(sealed);
  const holds = verify(keyId, signed, signature);
  if (holds === undefined) {
    throw unsealed('unknown-key', `its key ${JSON.stringify(keyId)} is not known here`);
  }
  if (!holds) throw unsealed('forged', 'its signature is wrong');
  const claims = readClaims(body);
  checkNames(claims, expected);
  checkTime(claims.expiresAtMs, expected, wallMs);
  return claims;
}

interface Parts {
  readonly keyId: string;
  readonly signed: Bytes;
  readonly signature: Bytes;
  readonly body: Bytes;
}

function takeApart(sealed: string): Parts {
  const parts = sealed.length <= SEAL_LENGTH_MAX ? sealed.split('.') : [];
  const [version, keyId = '', claims = '', seal = ''] = parts;
  if (parts.length !== 4 || version !== VERSION) {
    throw unsealed('malformed', 'it is not a sealed token');
  }
  const body = fromBase64url(claims);
  const signature = fromBase64url(seal);
  if (!isKeyId(keyId) || !body?.length || !signature?.length) {
    throw unsealed('malformed', 'it is damaged');
  }
  return { keyId, signature, body, signed: utf8(`${version}.${keyId}.${claims}`) };
}

function readClaims(body: Bytes): SealClaims {
  try {
    const { t, n, r, h, e } = JSON.parse(text(body)) as Record<string, unknown>;
    if (typeof n === 'string' && typeof r === 'string' && typeof h === 'string') {
      if (typeof t === 'string' && Number.isSafeInteger(e)) {
        const token = parseToken(t);
        return { token, tenant: n, resource: r, holder: h, expiresAtMs: e as number };
      }
    }
  } catch {
    // Signed, and yet not what `writeSeal` writes: told below.
  }
  throw unsealed('malformed', 'its claims cannot be read');
}

function checkNames(claims: SealClaims, { resource, tenant, token }: SealExpectation): void {
  if (claims.resource !== resource) {
    const whose = JSON.stringify(claims.resource);
    throw unsealed('other-resource', `it is for ${whose}, not for this resource`);
  }
  if (tenant !== undefined && claims.tenant !== tenant) {
    const whose = claims.tenant === '' ? 'no tenant' : `tenant ${JSON.stringify(claims.tenant)}`;
    throw unsealed('other-tenant', `it is for ${whose}`);
  }
  if (token !== undefined && claims.token !== token) {
    throw unsealed('other-token', `it is for token ${claims.token}, not ${token}`);
  }
}

function checkTime(
  expiresAtMs: number,
  { skewMs = 0, lifeMsMax = Number.POSITIVE_INFINITY }: SealExpectation,
  wallMs: number,
): void {
  const leftMs = expiresAtMs - wallMs;
  // Asked this way round, so that no odd number passes.
  if (!(leftMs + skewMs > 0)) {
    throw unsealed('expired', `it has expired ${-leftMs} ms ago by the clock here`);
  }
  if (!(leftMs <= lifeMsMax + skewMs)) {
    throw unsealed(
      'from-the-future',
      `it has ${leftMs} ms left by the clock here, more than any: the clocks do not agree`,
    );
  }
}

function unsealed(seal: SealFault, why: string): HoldfastError {
  return new HoldfastError('token-unsealed', `the seal does not hold: ${why}`, { seal });
}
