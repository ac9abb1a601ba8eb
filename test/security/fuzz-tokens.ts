/**
 * Fuzzers on what callers prove themselves with: signed (JWT) and opaque tokens of the server, and
 * fencing tokens in the header of a request. Sound ones are altered, mixed, crafted and presented
 * too late; a dumb twin that saw each being issued says who must be let in.
 */
import { createHmac, createSecretKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { text, utf8 } from '../../src/base/bytes.ts';
import { ManualClock } from '../../src/base/clock.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import { HttpGuard, problemOf, TOKEN_HEADER } from '../../src/guard/http/guard.ts';
import { MemoryMarks } from '../../src/guard/marks.ts';
import {
  type Bearer,
  type JwtAlgorithm,
  type JwtOptions,
  opaqueTokens,
  signedTokens,
  type Tokens,
} from '../../src/server/access/tokens.ts';
import { heartbeat } from '../fuzz-judge.ts';
import { mutate } from '../http2/fuzz.ts';

type Make = (options: JwtOptions) => Tokens;

/** What is under test; the control has a fault in it. */
export interface TokensUnderTest {
  readonly signed: Make;
  readonly opaque: typeof opaqueTokens;
  readonly guard: (marks: MemoryMarks) => HttpGuard;
}

export const REAL: TokensUnderTest = {
  signed: signedTokens,
  opaque: opaqueTokens,
  guard: (marks) => new HttpGuard(marks, { resource: 'r' }),
};

export interface TokensTarget {
  readonly name: string;
  /** One input; throws on a finding. */
  readonly once: (random: Random, under: TokensUnderTest) => Promise<void>;
}

const TTL_MS = 10_000;
const USERS = ['root', 'a/x', 'b/y', 'é', '"', '__proto__', '\u{1f512}'];
const WALL_MS = 1_750_000_000_000;

function randomBearer(random: Random): Bearer {
  return { user: random.pick(USERS), revision: random.integer(0, 2 ** 40) };
}

/** Texts near to sound ones. */
function altered(sound: readonly string[], random: Random): string {
  const one = random.pick(sound);
  const parts = one.split('.');
  switch (random.integer(0, 6)) {
    case 0:
      return one;
    case 1:
      parts[random.integer(0, parts.length)] = random.pick(random.pick(sound).split('.'));
      return parts.join('.');
    case 2: {
      // One sign only, mostly the last: this is where a lenient reader of base64 gives in.
      const at = random.chance(0.5) ? one.length - 1 : random.integer(0, one.length);
      const signs = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.+/';
      return one.slice(0, at) + random.pick([...signs]) + one.slice(at + 1);
    }
    case 3:
      return one + random.pick(['=', '.', ' ', '\0', 'A', '.x', 'x'.repeat(9_000)]);
    case 4:
      return random.pick(['', '.', '..', '...', 'Bearer ', '\ud800']) + random.pick(['', one]);
    default:
      return text(mutate(utf8(one), random));
  }
}

function agree(got: Bearer | undefined, wanted: Bearer | undefined, token: string): void {
  const show = (bearer: Bearer | undefined): string =>
    bearer ? `${bearer.user}@${bearer.revision}` : 'nobody';
  if (show(got) === show(wanted)) return;
  throw new Error(`${JSON.stringify(token)} is ${show(got)} instead of ${show(wanted)}`);
}

// ─── signed tokens ─────────────────────────────────────────────────────────────────────────────

type Keys = Pick<JwtOptions, 'algorithm' | 'publicKey' | 'privateKey'>;

const SECRET = createSecretKey(Buffer.from('a secret of the server, long enough'));
const pair = (
  algorithm: JwtAlgorithm,
  made: { publicKey: KeyObject; privateKey: KeyObject },
): Keys => ({
  algorithm,
  ...made,
});
const KEYS: readonly Keys[] = [
  { algorithm: 'HS256', publicKey: SECRET },
  pair('RS256', generateKeyPairSync('rsa', { modulusLength: 2_048 })),
  pair('ES256', generateKeyPairSync('ec', { namedCurve: 'prime256v1' })),
  pair('EdDSA', generateKeyPairSync('ed25519')),
];

const encode = (value: string): string => Buffer.from(value).toString('base64url');
const HEADS = [
  '{"alg":"none"}',
  '{"alg":"HS256","typ":"JWT"}',
  '{"alg":"RS256","typ":"JWT"}',
  '{"alg":["EdDSA"]}',
  '{"alg":"hs256"}',
  'null',
  '[]',
  '',
];

/** Signed by a stranger, or with what everybody knows, or not at all. */
function crafted(keys: Keys, random: Random): string {
  const claims = JSON.stringify({ username: 'root', revision: 1, exp: 9e9 });
  const body = `${encode(random.pick(HEADS))}.${encode(claims)}`;
  const known = random.pick(['', 'secret', publicText(keys)]);
  const seal = createHmac('sha256', known).update(body).digest('base64url');
  return `${body}.${random.pick(['', seal])}`;
}

function publicText({ algorithm, publicKey }: Keys): string {
  if (algorithm === 'HS256') return 'unknown';
  return publicKey.export({ type: 'spki', format: 'pem' }).toString();
}

const ODD_CLAIMS: readonly unknown[] = [
  {},
  [],
  null,
  'root',
  { username: '', revision: 1, exp: 9e9 },
  { username: 5, revision: 1, exp: 9e9 },
  { username: 'root', revision: 1.5, exp: 9e9 },
  { username: 'root', revision: '1', exp: 9e9 },
  { username: 'root', revision: 2 ** 60, exp: 9e9 },
  { username: 'root', revision: 1 },
  { username: 'root', revision: 1, exp: '9e9' },
  { username: ['root'], revision: 1, exp: null },
  { __proto__: null, username: null, revision: null, exp: true },
];

/** Rightly signed, by another program that has the secret, over claims that name nobody. */
function oddButSigned(random: Random): string {
  const claims = JSON.stringify(random.pick(ODD_CLAIMS));
  const body = `${encode('{"alg":"HS256","typ":"JWT"}')}.${encode(claims)}`;
  return `${body}.${createHmac('sha256', SECRET).update(body).digest('base64url')}`;
}

async function fuzzSigned(random: Random, under: TokensUnderTest): Promise<void> {
  const clock = new ManualClock({ wallMs: WALL_MS });
  const keys = random.pick(KEYS);
  const tokens = under.signed({ ...keys, clock, ttlMs: TTL_MS });
  const issued = new Map<string, Bearer>();
  for (let i = random.integer(1, 4); i > 0; i--) {
    const bearer = randomBearer(random);
    issued.set(tokens.issue(bearer), bearer);
  }
  const afterMs = random.pick([0, 1, TTL_MS - 1, TTL_MS, TTL_MS + 999, 10 * TTL_MS]);
  clock.advance(afterMs);
  const kind = random.integer(0, 10);
  const token =
    kind === 0
      ? crafted(keys, random)
      : kind === 1
        ? oddButSigned(random)
        : altered([...issued.keys()], random);
  agree(tokens.check(token), afterMs < TTL_MS ? issued.get(token) : undefined, token);
}

// ─── opaque tokens ─────────────────────────────────────────────────────────────────────────────

async function fuzzOpaque(random: Random, under: TokensUnderTest): Promise<void> {
  const clock = new ManualClock({ wallMs: WALL_MS });
  const tokens = under.opaque(clock, TTL_MS);
  const issued = new Map<string, { readonly bearer: Bearer; usedMs: number }>();
  const ever: string[] = [];
  let nowMs = 0;
  for (let i = random.integer(2, 10); i > 0; i--) {
    const kind = random.integer(0, 6);
    if (kind < 2 || ever.length === 0) {
      const bearer = randomBearer(random);
      const token = tokens.issue(bearer);
      ever.push(token);
      issued.set(token, { bearer, usedMs: nowMs });
    } else if (kind === 2) {
      const user = random.pick(USERS);
      tokens.forget(user);
      for (const [token, { bearer }] of issued) if (bearer.user === user) issued.delete(token);
    } else if (kind === 3) {
      const ms = random.pick([1, TTL_MS - 1, TTL_MS]);
      nowMs += ms;
      clock.advance(ms);
    } else {
      const token = altered(ever, random);
      const known = issued.get(token);
      const lives = known !== undefined && nowMs - known.usedMs < TTL_MS;
      agree(tokens.check(token), lives ? known.bearer : undefined, token);
      if (lives) known.usedMs = nowMs;
      else issued.delete(token);
    }
  }
}

// ─── fencing tokens in a header ────────────────────────────────────────────────────────────────

const NUMBERS = ['1', '41', '42', '43', '281474976710656', '9223372036854775807'];
const NEAR = ['0', '-1', '+42', '042', '42n', '4.2e1', '0x2a', ' 42', '42 ', '4_2', '42,43', '٤٢'];
const BEYOND = ['9223372036854775808', '18446744073709551616', '1e400', 'NaN', '9'.repeat(5_000)];

function headerText(random: Random): string {
  const kind = random.integer(0, 5);
  if (kind < 2) return random.pick(NUMBERS);
  if (kind === 2) return random.pick(NEAR);
  if (kind === 3) return random.pick(BEYOND);
  return String.fromCharCode(...mutate(utf8(random.pick(NUMBERS)), random));
}

/** What a number is, said without a regular expression; undefined: this is none. */
function numberOf(header: string): bigint | undefined {
  if (header.length > 19) return undefined;
  let value = 0n;
  for (const sign of header) {
    const digit = '0123456789'.indexOf(sign);
    if (digit < 0) return undefined;
    value = value * 10n + BigInt(digit);
  }
  return header[0] !== '0' && value > 0n && value < 2n ** 63n ? value : undefined;
}

async function fuzzHeader(random: Random, under: TokensUnderTest): Promise<void> {
  const guard = under.guard(new MemoryMarks());
  let mark = 0n;
  for (let i = random.integer(1, 6); i > 0; i--) {
    const header = headerText(random);
    const number = numberOf(header);
    const wanted =
      header === '' ? 428 : number === undefined ? 400 : number < mark ? 409 : 'admitted';
    const got = await presented(guard, header);
    if (got !== wanted) {
      throw new Error(`${JSON.stringify(header)} at mark ${mark}: ${got} instead of ${wanted}`);
    }
    if (wanted === 'admitted') mark = number!;
  }
}

async function presented(guard: HttpGuard, header: string): Promise<number | 'admitted'> {
  const request = {
    method: 'POST',
    target: '/',
    header: (name: string) => (name === TOKEN_HEADER ? header : undefined),
  };
  try {
    (await guard.enter(request))?.leave();
    return 'admitted';
  } catch (error) {
    const { status, body } = problemOf(error);
    if (body.length > 1_000) throw new Error(`a refusal of ${body.length} bytes`);
    return status;
  }
}

export const TOKENS_TARGETS: readonly TokensTarget[] = [
  { name: 'signed tokens', once: fuzzSigned },
  { name: 'opaque tokens', once: fuzzOpaque },
  { name: 'fencing tokens', once: fuzzHeader },
];

export interface FuzzedTokens {
  readonly inputs: number;
  readonly slowestMs: number;
  readonly finding: { readonly seed: number; readonly what: string } | undefined;
}

/** From `seed` on, until the number or the time is used up or something is found. */
export async function fuzzTokens(
  target: TokensTarget,
  seed: number,
  until: { readonly inputs?: number; readonly forMs?: number },
  under: TokensUnderTest = REAL,
): Promise<FuzzedTokens> {
  const { inputs: most = Number.POSITIVE_INFINITY, forMs = Number.POSITIVE_INFINITY } = until;
  const start = performance.now();
  let slowestMs = 0;
  let inputs = 0;
  for (; inputs < most && performance.now() - start < forMs; inputs++) {
    const own = seed + inputs;
    heartbeat(own);
    const from = process.cpuUsage();
    try {
      await target.once(seededRandom(own), under);
    } catch (error) {
      return { inputs, slowestMs, finding: { seed: own, what: String(error) } };
    }
    const { user, system } = process.cpuUsage(from);
    slowestMs = Math.max(slowestMs, (user + system) / 1_000);
  }
  return { inputs, slowestMs, finding: undefined };
}

// ─── planted faults ────────────────────────────────────────────────────────────────────────────

/** Signed tokens whose `check` sees something else than what came. */
const seeing =
  (look: (token: string, options: JwtOptions) => string): Make =>
  (options) => {
    const tokens = signedTokens(options);
    return { ...tokens, check: (token) => tokens.check(look(token, options)) };
  };

const signedWith = (make: Make): TokensUnderTest => ({ ...REAL, signed: make });

function guardReading(read: (header: string) => string): TokensUnderTest['guard'] {
  return (marks) => {
    const guard = REAL.guard(marks);
    const enter: HttpGuard['enter'] = (request) =>
      guard.enter({
        ...request,
        header: (name) => request.header(name) && read(request.header(name)!),
      });
    return Object.assign(Object.create(guard) as HttpGuard, { enter });
  };
}

/** One fault each, and the target that must find it. */
export const PLANTED: Readonly<Record<string, readonly [target: string, TokensUnderTest]>> = {
  'lenient base64': [
    'signed tokens',
    signedWith(
      seeing((token) => {
        const [head = '', claims = '', seal = '', ...more] = token.split('.');
        const exact = Buffer.from(seal, 'base64url').toString('base64url');
        return [head, claims, exact, ...more].join('.');
      }),
    ),
  ],
  'no signature is a signature': [
    'signed tokens',
    signedWith(
      seeing((token, options) => {
        const [, claims = '', seal] = token.split('.');
        if (seal !== '') return token;
        const { username: user, revision } = JSON.parse(
          Buffer.from(claims, 'base64url').toString(),
        ) as { username: string; revision: number };
        return signedTokens(options).issue({ user, revision });
      }),
    ),
  ],
  'never too late': [
    'signed tokens',
    signedWith((options) => {
      const early = signedTokens({ ...options, clock: new ManualClock({ wallMs: WALL_MS }) });
      return { ...signedTokens(options), check: early.check };
    }),
  ],
  'space around a token': ['signed tokens', signedWith(seeing((token) => token.trim()))],
  'a user is never forgotten': [
    'opaque tokens',
    { ...REAL, opaque: (...args) => ({ ...opaqueTokens(...args), forget: () => {} }) },
  ],
  'an opaque token lives from its issue': [
    'opaque tokens',
    { ...REAL, opaque: (clock, ttlMs = 0) => opaqueTokens(clock, ttlMs - 1) },
  ],
  'any number': [
    'fencing tokens',
    { ...REAL, guard: guardReading((header) => String(Math.trunc(Number(header)) || header)) },
  ],
  'space around a number': [
    'fencing tokens',
    { ...REAL, guard: guardReading((header) => header.trim()) },
  ],
};
