/**
 * Sealed tokens: a token signed by its authority, so that a guard can tell a granted number from
 * an invented one. Without a seal, one invented 2^62 would lock every real holder out for ever.
 *
 * Form: `hf1.KEY-ID.CLAIMS.SIGNATURE`; claims are JSON, claims and signature base64url, and the
 * Ed25519 signature covers everything before the last dot. Verifying needs only public keys and no
 * connection. Keys rotate: the set may verify under several ids and seals under the newest.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { HoldfastError } from '../model/errors.ts';
import { formatToken, parseToken, type Token } from '../model/token.ts';

const VERSION = 'hf1';
const KEY_ID = /^[A-Za-z0-9_-]{1,64}$/;
const BASE64URL = /^[A-Za-z0-9_-]+$/;
/** A seal travels in a header; a longer one is not ours. */
const SEAL_LENGTH_MAX = 4_096;

export interface SealClaims {
  readonly token: Token;
  readonly tenant: string;
  readonly resource: string;
  readonly holder: string;
  /** On the wall clock: a seal outlives its grant by at most this, and is renewed with it. */
  readonly expiresAtMs: number;
}

/** A key pair as plain data; `secret` stays with the authority. Both are base64url, 32 bytes. */
export interface SealKey {
  readonly id: string;
  readonly public: string;
  readonly secret?: string;
}

export interface SealKeySet {
  /** Undefined when no key of the set can sign. */
  readonly signer: { readonly id: string; readonly key: KeyObject } | undefined;
  readonly verifiers: ReadonlyMap<string, KeyObject>;
}

export function generateSealKey(id: string): Required<SealKey> {
  const { x, d } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return { id, public: x!, secret: d! };
}

/** Signs with the first key that has a secret; verifies with all. Put the newest key first. */
export function sealKeySet(keys: readonly SealKey[]): SealKeySet {
  const verifiers = new Map<string, KeyObject>();
  let signer: SealKeySet['signer'];
  for (const { id, public: x, secret: d } of keys) {
    if (!KEY_ID.test(id)) {
      throw new HoldfastError('invalid-argument', `${JSON.stringify(id)} is not a key id`);
    }
    try {
      const jwk = { kty: 'OKP', crv: 'Ed25519', x };
      verifiers.set(id, createPublicKey({ key: jwk, format: 'jwk' }));
      if (d && !signer) {
        signer = { id, key: createPrivateKey({ key: { ...jwk, d }, format: 'jwk' }) };
      }
    } catch (cause) {
      throw new HoldfastError('invalid-argument', `key ${id} is not an Ed25519 key`, { cause });
    }
  }
  return { signer, verifiers };
}

export function sealToken({ signer }: SealKeySet, claims: SealClaims): string {
  if (!signer) throw new HoldfastError('invalid-argument', 'no key of this set can sign');
  const body = JSON.stringify({
    t: formatToken(parseToken(claims.token)),
    n: claims.tenant,
    r: claims.resource,
    h: claims.holder,
    e: claims.expiresAtMs,
  });
  const signed = `${VERSION}.${signer.id}.${Buffer.from(body).toString('base64url')}`;
  return `${signed}.${sign(null, Buffer.from(signed), signer.key).toString('base64url')}`;
}

export function isSealed(text: string): boolean {
  return text.startsWith(`${VERSION}.`);
}

export interface SealExpectation {
  readonly resource: string;
  /** Absent: any tenant. */
  readonly tenant?: string | undefined;
  /** A number presented beside the seal must be the sealed one. */
  readonly token?: Token | undefined;
}

/** The claims of a seal that holds for this resource now; `token-unsealed` otherwise. */
export function verifySeal(
  keys: SealKeySet,
  sealed: string,
  expected: SealExpectation,
  wallMs: number,
): SealClaims {
  const claims = readSigned(keys, sealed);
  if (claims.resource !== expected.resource) {
    throw unsealed(`it is for ${JSON.stringify(claims.resource)}, not for this resource`);
  }
  if (expected.tenant !== undefined && claims.tenant !== expected.tenant) {
    throw unsealed(`it is for tenant ${JSON.stringify(claims.tenant)}`);
  }
  if (expected.token !== undefined && claims.token !== expected.token) {
    throw unsealed(`it is for token ${claims.token}, not ${expected.token}`);
  }
  if (!(wallMs < claims.expiresAtMs)) throw unsealed('it has expired');
  return claims;
}

function readSigned(keys: SealKeySet, sealed: string): SealClaims {
  const parts = sealed.length <= SEAL_LENGTH_MAX ? sealed.split('.') : [];
  const [version, id = '', body = '', signature = ''] = parts;
  if (parts.length !== 4 || version !== VERSION) throw unsealed('it is not a sealed token');
  if (!BASE64URL.test(body) || !BASE64URL.test(signature)) throw unsealed('it is damaged');
  const key = keys.verifiers.get(id);
  if (!key) throw unsealed(`its key ${JSON.stringify(id.slice(0, 64))} is not known here`);
  const signed = Buffer.from(`${version}.${id}.${body}`);
  if (!verify(null, signed, key, Buffer.from(signature, 'base64url'))) {
    throw unsealed('its signature is wrong');
  }
  return readClaims(Buffer.from(body, 'base64url').toString());
}

function readClaims(body: string): SealClaims {
  try {
    const { t, n, r, h, e } = JSON.parse(body) as Record<string, unknown>;
    if (typeof n === 'string' && typeof r === 'string' && typeof h === 'string') {
      if (typeof e === 'number') {
        return { token: parseToken(t), tenant: n, resource: r, holder: h, expiresAtMs: e };
      }
    }
  } catch {
    // Signed, and yet not what `sealToken` writes: told below.
  }
  throw unsealed('its claims cannot be read');
}

function unsealed(why: string): HoldfastError {
  return new HoldfastError('token-unsealed', `the seal does not hold: ${why}`);
}
