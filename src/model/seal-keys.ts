/**
 * The public keys of an authority, as it publishes them for guards: a JSON Web Key Set (RFC 7517)
 * with keys of one kind, Ed25519 (RFC 8037).
 */
import { fromBase64url } from '../base/base64url.ts';
import { HoldfastError } from './errors.ts';
import { isKeyId } from './seal.ts';

/** Where a server answers with its keys, without a login. */
export const SEAL_KEYS_PATH = '/.well-known/holdfast-keys';

const PUBLIC_KEY_BYTES = 32;
const KEYS_MAX = 256;

/** A public key; `public` is base64url, 32 bytes. */
export interface PublicSealKey {
  readonly id: string;
  readonly public: string;
}

export function writeSealKeys(keys: readonly PublicSealKey[]): string {
  const jwks = keys.map(({ id, public: x }) => ({
    kty: 'OKP',
    crv: 'Ed25519',
    use: 'sig',
    alg: 'EdDSA',
    kid: id,
    x,
  }));
  return JSON.stringify({ keys: jwks });
}

/** Keys of other kinds are passed over. Errors: `invalid-argument` for what is no key set. */
export function readSealKeys(document: string): PublicSealKey[] {
  const listed = keysIn(document);
  if (!Array.isArray(listed) || listed.length > KEYS_MAX) {
    throw new HoldfastError('invalid-argument', 'this is not a set of public keys');
  }
  return listed.flatMap((entry: unknown) => {
    const { kty, crv, kid, x } = Object(entry) as Record<string, unknown>;
    if (kty !== 'OKP' || crv !== 'Ed25519' || !isKeyId(kid) || typeof x !== 'string') return [];
    return fromBase64url(x)?.length === PUBLIC_KEY_BYTES ? [{ id: kid, public: x }] : [];
  });
}

function keysIn(document: string): unknown {
  try {
    return (Object(JSON.parse(document)) as { keys?: unknown }).keys;
  } catch {
    return undefined;
  }
}
