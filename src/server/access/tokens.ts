/**
 * What a caller shows after it has proved itself once. Two kinds, as etcd has them: opaque ones
 * that this process remembers, and signed ones (JWT) that any process with the key can check.
 *
 * An odd token is no token; nothing a caller sends can make a check throw.
 */
import {
  createHash,
  createHmac,
  type KeyObject,
  randomBytes,
  type SignKeyObjectInput,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto';
import type { Clock } from '../../base/clock.ts';

export interface Bearer {
  readonly user: string;
  /** Revision of the users and roles when the token was issued. */
  readonly revision: number;
}

export interface Tokens {
  issue(bearer: Bearer): string;
  check(token: string): Bearer | undefined;
  /** Forgets what this process issued to `user`, where it can. */
  forget(user: string): void;
}

/** etcd's default life of an opaque token, counted from its last use. */
const OPAQUE_TTL_MS = 300_000;
const OPAQUE_TOKENS_MAX = 100_000;

interface Issued extends Bearer {
  expiresMs: number;
}

/** 256 random bits, kept only as a hash, so that a memory dump holds no usable token. */
export function opaqueTokens(clock: Clock, ttlMs: number = OPAQUE_TTL_MS): Tokens {
  const issued = new Map<string, Issued>();
  const fingerprint = (token: string): string =>
    createHash('sha256').update(token).digest('base64');

  const sweep = (): void => {
    for (const [name, entry] of issued) if (entry.expiresMs <= clock.now()) issued.delete(name);
    for (const name of issued.keys()) {
      if (issued.size < OPAQUE_TOKENS_MAX) break;
      issued.delete(name);
    }
  };

  return {
    issue(bearer) {
      if (issued.size >= OPAQUE_TOKENS_MAX) sweep();
      const token = `${randomBytes(32).toString('base64url')}.${bearer.revision}`;
      issued.set(fingerprint(token), { ...bearer, expiresMs: clock.now() + ttlMs });
      return token;
    },
    check(token) {
      const name = fingerprint(token);
      const entry = issued.get(name);
      if (!entry) return undefined;
      if (entry.expiresMs <= clock.now()) {
        issued.delete(name);
        return undefined;
      }
      entry.expiresMs = clock.now() + ttlMs;
      return entry;
    },
    forget(user) {
      for (const [name, entry] of issued) if (entry.user === user) issued.delete(name);
    },
  };
}

export type JwtAlgorithm = 'HS256' | 'RS256' | 'ES256' | 'EdDSA';

export interface JwtOptions {
  readonly algorithm: JwtAlgorithm;
  /** Checks a signature; the secret itself with HS256. */
  readonly publicKey: KeyObject;
  /** Makes one; absent on a server that only checks. */
  readonly privateKey?: KeyObject | undefined;
  readonly ttlMs?: number;
  readonly clock: Clock;
}

const JWT_BYTES_MAX = 8_192;

export function signedTokens(options: JwtOptions): Tokens {
  const { algorithm, clock, ttlMs = OPAQUE_TTL_MS } = options;
  const head = base64url(JSON.stringify({ alg: algorithm, typ: 'JWT' }));
  return {
    issue({ user, revision }) {
      const exp = Math.floor((clock.wall() + ttlMs) / 1_000);
      const body = `${head}.${base64url(JSON.stringify({ username: user, revision, exp }))}`;
      return `${body}.${signature(options, body).toString('base64url')}`;
    },
    check(token) {
      const parts = token.length <= JWT_BYTES_MAX ? token.split('.') : [];
      if (parts.length !== 3) return undefined;
      const [jwtHead = '', claims = '', seal = ''] = parts;
      // The algorithm is ours to choose, never the token's.
      if (parse(jwtHead)?.alg !== algorithm) return undefined;
      const bytes = Buffer.from(seal, 'base64url');
      // Signs that base64 leaves out would make other texts of the same token.
      if (bytes.toString('base64url') !== seal) return undefined;
      if (!sealed(options, `${jwtHead}.${claims}`, bytes)) return undefined;
      return bearerOf(parse(claims), clock.wall() / 1_000);
    },
    forget() {},
  };
}

function bearerOf(
  claims: Record<string, unknown> | undefined,
  nowSeconds: number,
): Bearer | undefined {
  const { username, revision, exp } = claims ?? {};
  if (typeof username !== 'string' || username === '') return undefined;
  if (typeof revision !== 'number' || !Number.isSafeInteger(revision)) return undefined;
  if (typeof exp !== 'number' || exp <= nowSeconds) return undefined;
  return { user: username, revision };
}

function signature({ algorithm, privateKey, publicKey }: JwtOptions, body: string): Buffer {
  if (algorithm === 'HS256') return createHmac('sha256', publicKey).update(body).digest();
  if (!privateKey)
    throw new Error('this server can check signed tokens but has no key to sign one');
  return sign(digestOf(algorithm), Buffer.from(body), signingKey(algorithm, privateKey));
}

function sealed(options: JwtOptions, body: string, seal: Buffer): boolean {
  const { algorithm, publicKey } = options;
  if (algorithm === 'HS256') {
    const expected = signature(options, body);
    return expected.length === seal.length && timingSafeEqual(expected, seal);
  }
  try {
    return verify(digestOf(algorithm), Buffer.from(body), signingKey(algorithm, publicKey), seal);
  } catch {
    return false;
  }
}

function digestOf(algorithm: JwtAlgorithm): string | null {
  return algorithm === 'EdDSA' ? null : 'sha256';
}

function signingKey(algorithm: JwtAlgorithm, key: KeyObject): KeyObject | SignKeyObjectInput {
  return algorithm === 'ES256' ? { key, dsaEncoding: 'ieee-p1363' } : key;
}

function base64url(text: string): string {
  return Buffer.from(text).toString('base64url');
}

function parse(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
