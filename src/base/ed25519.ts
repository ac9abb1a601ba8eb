/**
 * Ed25519 keys as text: base64url, as a JWK has them in `x` and `d`.
 *
 * Not by `export({ format: 'jwk' })`, which has the key locked while it makes strings: when the
 * collector runs then, and finds the job that made this key, it waits for that lock for ever, and so
 * does the process (Node.js 20; once in some thousand keys).
 */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';

const KEY_BYTES = 32;
const PUBLIC = { type: 'spki', format: 'der' } as const;

export interface Ed25519Pair {
  readonly public: string;
  readonly secret: string;
}

export function generateEd25519(): Ed25519Pair {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519', {
    publicKeyEncoding: PUBLIC,
    privateKeyEncoding: { type: 'pkcs8', format: 'der' },
  });
  return { public: lastBytes(publicKey), secret: lastBytes(privateKey) };
}

export function publicEd25519(key: KeyObject): string {
  return lastBytes(key.export(PUBLIC));
}

/** Both encodings end with the key itself (RFC 8410). */
function lastBytes(der: Buffer): string {
  return der.subarray(-KEY_BYTES).toString('base64url');
}
