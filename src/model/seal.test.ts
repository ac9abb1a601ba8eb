import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromBase64url, toBase64url } from '../base/base64url.ts';
import { type Bytes, equalBytes, text, utf8 } from '../base/bytes.ts';
import { HoldfastError } from './errors.ts';
import { keyIdOf, readSeal, type SealClaims, writeSeal } from './seal.ts';
import { readSealKeys, writeSealKeys } from './seal-keys.ts';
import { TOKEN_MAX } from './token.ts';

/** Stands in for Ed25519: of all that was signed, with a word that only the signer knows. */
const sign = (signed: Bytes): Bytes =>
  new Uint8Array(createHmac('sha512', 'secret').update(signed).digest());
const verify = (keyId: string, signed: Bytes, signature: Bytes): boolean | undefined =>
  keyId === 'k1' ? equalBytes(signature, sign(signed)) : undefined;

const names = fc.string({ unit: 'binary', maxLength: 40 }).map((name) => text(utf8(name)));
const claimsOf: fc.Arbitrary<SealClaims> = fc.record({
  token: fc.bigInt({ min: 1n, max: TOKEN_MAX }),
  tenant: names,
  resource: names.filter((name) => name !== ''),
  holder: names,
  expiresAtMs: fc.integer({ min: 1, max: 2 ** 52 }),
});

/** The fault that was named; fails if anything else was thrown. */
function fault(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (HoldfastError.is(error, 'token-unsealed')) return error.details.seal;
    throw error;
  }
}

const at = (wallMs: number) => ({ wallMs, verify });
const claims: SealClaims = {
  token: 34n,
  tenant: '',
  resource: 'orders/42',
  holder: 'lease 7a3f',
  expiresAtMs: 10_000,
};
const sealed = writeSeal(claims, 'k1', sign);
const own = { resource: 'orders/42' };

/** What a signer that means harm, or another version, could have put under a signature. */
function signedBody(body: string): string {
  const signed = `hf1.k1.${toBase64url(utf8(body))}`;
  return `${signed}.${toBase64url(sign(utf8(signed)))}`;
}

describe('the form of a seal', () => {
  it('reads back what was written, for every resource, tenant, holder, token and time', () => {
    fc.assert(
      fc.property(claimsOf, (all) => {
        const { resource, tenant, token, expiresAtMs } = all;
        const written = writeSeal(all, 'k1', sign);
        expect(keyIdOf(written)).toBe('k1');
        expect(readSeal(written, { resource, tenant, token }, at(expiresAtMs - 1))).toEqual(all);
      }),
      { numRuns: 500 },
    );
  });

  it('says nothing but token-unsealed to any text, whoever signed it', () => {
    const piece = fc.oneof(
      fc.constantFrom('hf1', 'k1', '', 'e30', 'bnVsbA', '.', '..', '=', '\0'),
      fc.string({ unit: 'binary', maxLength: 30 }),
      fc.uint8Array({ maxLength: 90 }).map((bytes) => toBase64url(bytes)),
    );
    const odd = fc.oneof(
      fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join('.')),
      fc.string({ unit: 'binary', maxLength: 5_000 }),
      fc.json().map(signedBody),
      fc.string({ unit: 'binary', maxLength: 200 }).map(signedBody),
    );
    fc.assert(
      fc.property(odd, (text) => {
        expect(fault(() => readSeal(text, own, at(0)))).toBeTypeOf('string');
        keyIdOf(text);
      }),
      { numRuns: 5_000 },
    );
  });

  it('breaks with every single change: a sign replaced, removed, doubled or put in', () => {
    const change = fc.tuple(
      fc.nat(sealed.length - 1),
      fc.constantFrom('replace', 'remove', 'insert'),
      fc.constantFrom(...'A_z0.-= é'),
    );
    fc.assert(
      fc.property(change, ([where, how, sign]) => {
        const cut = how === 'insert' ? where : where + 1;
        const put = how === 'remove' ? '' : sign;
        const altered = sealed.slice(0, where) + put + sealed.slice(cut);
        fc.pre(altered !== sealed);
        expect(fault(() => readSeal(altered, own, at(0)))).toBeTypeOf('string');
      }),
      { numRuns: 5_000 },
    );
  });

  it('takes no claims of another kind, even under a signature that holds', () => {
    const body = { t: '34', n: '', r: 'orders/42', h: 'h', e: 10_000 };
    expect(fault(() => readSeal(signedBody(JSON.stringify(body)), own, at(0)))).toBeUndefined();
    for (const odd of [
      { ...body, t: 34 },
      { ...body, t: '034' },
      { ...body, t: '-1' },
      { ...body, t: String(2n ** 63n) },
      { ...body, n: null },
      { ...body, r: ['orders/42'] },
      { ...body, e: '10000' },
      { ...body, e: 1.5 },
      { ...body, e: 2 ** 60 },
      { ...body, h: undefined },
    ]) {
      expect(fault(() => readSeal(signedBody(JSON.stringify(odd)), own, at(0)))).toBe('malformed');
    }
    for (const odd of ['null', '[]', '7', '"x"', '{', '']) {
      expect(fault(() => readSeal(signedBody(odd), own, at(0)))).toBe('malformed');
    }
  });

  it('names what is wrong', () => {
    const read = (expected: object, wallMs = 0, seal = sealed): string | undefined =>
      fault(() => readSeal(seal, { ...own, ...expected }, at(wallMs)));
    expect(read({})).toBeUndefined();
    expect(read({}, 0, 'x')).toBe('malformed');
    expect(read({}, 0, writeSeal(claims, 'k2', sign))).toBe('unknown-key');
    expect(
      read(
        {},
        0,
        writeSeal(claims, 'k1', () => utf8('x')),
      ),
    ).toBe('forged');
    expect(read({ resource: 'orders/4' })).toBe('other-resource');
    expect(read({ tenant: '' })).toBeUndefined();
    expect(read({ tenant: 'shop' })).toBe('other-tenant');
    expect(read({ token: 35n })).toBe('other-token');
  });

  it('ends at its time, give or take the allowance, and comes from no future', () => {
    const read = (wallMs: number, more: object = {}): string | undefined =>
      fault(() => readSeal(sealed, { ...own, ...more }, at(wallMs)));
    expect(read(9_999)).toBeUndefined();
    expect(read(10_000)).toBe('expired');
    expect(read(10_999, { skewMs: 1_000 })).toBeUndefined();
    expect(read(11_000, { skewMs: 1_000 })).toBe('expired');
    expect(read(4_000, { lifeMsMax: 6_000 })).toBeUndefined();
    expect(read(3_999, { lifeMsMax: 6_000 })).toBe('from-the-future');
    expect(read(3_999, { lifeMsMax: 6_000, skewMs: 1 })).toBeUndefined();
    expect(read(Number.NaN)).toBe('expired');
  });

  it('is not written for claims that no guard could read', () => {
    for (const odd of [
      { resource: '' },
      { resource: 'x'.repeat(513) },
      { holder: 'x'.repeat(513) },
      { expiresAtMs: Number.NaN },
      { expiresAtMs: 1.5 },
      {
        resource: '\u{1f512}'.repeat(256),
        holder: '\u{1f512}'.repeat(256),
        tenant: '\u{1f512}'.repeat(256),
      },
    ]) {
      expect(() => writeSeal({ ...claims, ...odd }, 'k1', sign)).toThrow(HoldfastError);
    }
    expect(() => writeSeal({ ...claims, token: 0n }, 'k1', sign)).toThrow('not a token');
  });
});

describe('a set of public keys', () => {
  const keys = ['a', 'b'].map((id) => ({ id, public: toBase64url(new Uint8Array(32).fill(7)) }));

  it('reads back what was written, and passes over keys of other kinds', () => {
    expect(readSealKeys(writeSealKeys(keys))).toEqual(keys);
    const { keys: written } = JSON.parse(writeSealKeys(keys)) as { keys: object[] };
    const odd = [
      null,
      7,
      { kty: 'RSA', kid: 'r', n: 'x' },
      { ...written[0], crv: 'X25519' },
      { ...written[0], kid: 'a b' },
      { ...written[0], x: 'AA' },
      { ...written[0], x: '=' },
    ];
    expect(readSealKeys(JSON.stringify({ keys: [...odd, ...written] }))).toEqual(keys);
  });

  it('refuses what is none, and never does anything else', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string({ maxLength: 50 })), (document) => {
        try {
          for (const key of readSealKeys(document)) expect(fromBase64url(key.public)).toBeDefined();
        } catch (error) {
          expect(HoldfastError.is(error, 'invalid-argument')).toBe(true);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
