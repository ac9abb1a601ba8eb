/**
 * A fuzzer on what is presented to a guard. Seals of several authorities are altered, mixed and
 * presented for what they are not; a dumb twin that knows every seal ever made says what must happen.
 */
import { createHmac } from 'node:crypto';
import { type Bytes, text, utf8 } from '../../src/base/bytes.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import {
  generateSealKey,
  type SealKeySet,
  sealKeySet,
  sealToken,
  verifySeal,
} from '../../src/guard/seal.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { type SealClaims, type SealExpectation, writeSeal } from '../../src/model/seal.ts';
import { readSealKeys, writeSealKeys } from '../../src/model/seal-keys.ts';
import { heartbeat } from '../fuzz-judge.ts';
import { mutate } from '../http2/fuzz.ts';

/** What is under test; the control has a fault in it. */
export type Verify = typeof verifySeal;

const WALL_MS = 1_750_000_000_000;
const NAMES = ['', 'a', 'b', 'orders/42', 'orders/4', 'shop', '\u{1f512}', '"', '\\', 'é\0'];

/** Two keys of ours, and one that has the id of one of them. */
const OURS = [generateSealKey('k1'), generateSealKey('k2')];
const IMPOSTOR = generateSealKey('k1');
const KNOWN: SealKeySet = sealKeySet(OURS.map(({ id, public: x }) => ({ id, public: x })));
const SIGNERS = [...OURS, IMPOSTOR, generateSealKey('k3')].map((key) => sealKeySet([key]));

function randomClaims(random: Random): SealClaims {
  return {
    token: BigInt(random.integer(1, 40)),
    tenant: random.pick(NAMES),
    resource: random.pick(NAMES.filter((name) => name !== '')),
    holder: random.pick(NAMES),
    expiresAtMs: WALL_MS + random.integer(-3, 4),
  };
}

interface Issued {
  readonly seal: string;
  readonly claims: SealClaims;
  readonly ours: boolean;
}

function issue(random: Random): Issued {
  const claims = randomClaims(random);
  const which = random.integer(0, SIGNERS.length + 1);
  const signer = SIGNERS[which];
  if (signer) return { claims, seal: sealToken(signer, claims), ours: which < OURS.length };
  // Signed with what everybody knows: the public key itself.
  const mac = (signed: Bytes): Bytes =>
    createHmac('sha512', OURS[0]!.public).update(signed).digest();
  return { claims, seal: writeSeal(claims, 'k1', mac), ours: false };
}

function presented(issued: readonly Issued[], random: Random): string {
  const { seal } = random.pick(issued);
  switch (random.integer(0, 5)) {
    case 0:
      return seal;
    case 1: {
      const parts = seal.split('.');
      parts[random.integer(0, parts.length)] = random.pick(random.pick(issued).seal.split('.'));
      return parts.join('.');
    }
    case 2: {
      // One sign only: this is where a lenient reader of base64 gives in.
      const at = random.chance(0.5) ? seal.length - 1 : random.integer(0, seal.length);
      const sign = random.pick([
        ...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.',
      ]);
      return seal.slice(0, at) + sign + seal.slice(at + 1);
    }
    case 3:
      return seal + random.pick(['=', '.', ' ', '\0', 'A']);
    default:
      return text(mutate(utf8(seal), random));
  }
}

function expectation(claims: SealClaims, random: Random): SealExpectation {
  // Mostly right, and wrong in one thing: who is wrong in all is refused for the first.
  const other = randomClaims(random);
  const odd = random.pick(['nothing', 'nothing', 'tenant', 'resource', 'token']);
  const tenant = odd === 'tenant' ? other.tenant : claims.tenant;
  const resource = odd === 'resource' ? other.resource : claims.resource;
  const token = odd === 'token' ? other.token : claims.token;
  return {
    resource,
    ...(random.chance(0.8) ? { tenant } : {}),
    ...(random.chance(0.5) ? { token } : {}),
    skewMs: random.integer(0, 3),
    ...(random.chance(0.5) ? { lifeMsMax: random.integer(0, 3) } : {}),
  };
}

/** The whole rule, said as plainly as it can be, about seals that are known to have been made. */
function mustHold(claims: SealClaims, expected: SealExpectation): boolean {
  const { resource, tenant, token, skewMs = 0, lifeMsMax } = expected;
  if (claims.resource !== resource) return false;
  if (tenant !== undefined && claims.tenant !== tenant) return false;
  if (token !== undefined && claims.token !== token) return false;
  if (claims.expiresAtMs + skewMs <= WALL_MS) return false;
  return lifeMsMax === undefined || claims.expiresAtMs - WALL_MS <= lifeMsMax + skewMs;
}

/** Throws when the guard and its dumb twin disagree. */
export function once(random: Random, verify: Verify): void {
  const issued = Array.from({ length: random.integer(1, 3) }, () => issue(random));
  const seal = presented(issued, random);
  const made = issued.find((one) => one.ours && one.seal === seal);
  const expected = expectation(random.pick(issued).claims, random);
  const wanted = made !== undefined && mustHold(made.claims, expected);
  let held: SealClaims | undefined;
  try {
    held = verify(KNOWN, seal, expected, WALL_MS);
  } catch (error) {
    if (!HoldfastError.is(error, 'token-unsealed') || !error.details.seal) throw error;
  }
  if ((held !== undefined) !== wanted) {
    throw new Error(`${seal} ${wanted ? 'was refused' : 'was taken'} for ${show(expected)}`);
  }
  if (held && show(held) !== show(made!.claims)) throw new Error(`${seal} became ${show(held)}`);
  documents(random);
}

/** A set of keys from a stranger is read or refused, and never more. */
function documents(random: Random): void {
  const sound = utf8(writeSealKeys(OURS));
  const document = text(random.chance(0.2) ? sound : mutate(sound, random));
  try {
    sealKeySet(readSealKeys(document));
  } catch (error) {
    if (!HoldfastError.is(error, 'invalid-argument')) throw error;
  }
}

const show = (value: object): string =>
  JSON.stringify(value, (_key, field: unknown) => (typeof field === 'bigint' ? `${field}` : field));

export interface FuzzedSeals {
  readonly inputs: number;
  readonly finding: { readonly seed: number; readonly what: string } | undefined;
}

/** From `seed` on, until the number or the time is used up or something is found. */
export function fuzzSeals(
  seed: number,
  until: { readonly inputs?: number; readonly forMs?: number },
  verify: Verify = verifySeal,
): FuzzedSeals {
  const { inputs: most = Number.POSITIVE_INFINITY, forMs = Number.POSITIVE_INFINITY } = until;
  const start = performance.now();
  let inputs = 0;
  for (; inputs < most && performance.now() - start < forMs; inputs++) {
    heartbeat(seed + inputs);
    try {
      once(seededRandom(seed + inputs), verify);
    } catch (error) {
      return { inputs, finding: { seed: seed + inputs, what: String(error) } };
    }
  }
  return { inputs, finding: undefined };
}

/** Guards that are wrong in one way each; the fuzzer must find every one. */
export const PLANTED: Readonly<Record<string, Verify>> = {
  'any signature': (keys, seal, expected, wallMs) => {
    const [version, id, claims] = seal.split('.');
    const own = OURS.find((key) => key.id === id);
    if (!own || !claims) return verifySeal(keys, seal, expected, wallMs);
    const { t, n, r, h, e } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as never;
    const again = { token: BigInt(t), tenant: n, resource: r, holder: h, expiresAtMs: e };
    const resealed = sealToken(sealKeySet([own]), again);
    return version === 'hf1' ? verifySeal(keys, resealed, expected, wallMs) : again;
  },
  'lenient base64': (keys, seal, expected, wallMs) => {
    const parts = seal.split('.');
    const exact = parts.map((part, at) =>
      at < 2 ? part : Buffer.from(part, 'base64url').toString('base64url'),
    );
    return verifySeal(keys, exact.join('.'), expected, wallMs);
  },
  'any tenant': (keys, seal, { tenant: _tenant, ...expected }, wallMs) =>
    verifySeal(keys, seal, expected, wallMs),
  'any token': (keys, seal, { token: _token, ...expected }, wallMs) =>
    verifySeal(keys, seal, expected, wallMs),
  'one millisecond late': (keys, seal, expected, wallMs) =>
    verifySeal(keys, seal, expected, wallMs - 1),
  'any future': (keys, seal, { lifeMsMax: _lifeMsMax, ...expected }, wallMs) =>
    verifySeal(keys, seal, expected, wallMs),
  'every key': (_keys, seal, expected, wallMs) =>
    verifySeal(sealKeySet([...OURS, generateSealKey('k3'), IMPOSTOR]), seal, expected, wallMs),
};
