/**
 * Ed25519 for sealed tokens (`model/seal.ts` has their form). Verifying needs only public keys and
 * no connection. Keys rotate: the set may verify under several ids and seals under the newest.
 */
import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { generateEd25519 } from '../base/ed25519.ts';
import { HoldfastError } from '../model/errors.ts';
import {
  isKeyId,
  readSeal,
  type SealClaims,
  type SealExpectation,
  writeSeal,
} from '../model/seal.ts';

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
  return { id, ...generateEd25519() };
}

/** Signs with the first key that has a secret; verifies with all. Put the newest key first. */
export function sealKeySet(keys: readonly SealKey[]): SealKeySet {
  const verifiers = new Map<string, KeyObject>();
  let signer: SealKeySet['signer'];
  for (const { id, public: x, secret: d } of keys) {
    if (!isKeyId(id)) {
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

/** For authorities of one's own and for tests; a Holdfast server seals by itself. */
export function sealToken({ signer }: SealKeySet, claims: SealClaims): string {
  if (!signer) throw new HoldfastError('invalid-argument', 'no key of this set can sign');
  return writeSeal(claims, signer.id, (signed) => sign(null, signed, signer.key));
}

/** The claims of a seal that holds for this resource now; `token-unsealed` otherwise. */
export function verifySeal(
  { verifiers }: SealKeySet,
  sealed: string,
  expected: SealExpectation,
  wallMs: number,
): SealClaims {
  return readSeal(sealed, expected, {
    wallMs,
    verify: (keyId, signed, signature) => {
      const key = verifiers.get(keyId);
      return key && verify(null, signed, key, signature);
    },
  });
}
