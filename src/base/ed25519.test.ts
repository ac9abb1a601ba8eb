import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import { expect, it } from 'vitest';
import { generateEd25519, publicEd25519 } from './ed25519.ts';

it('both halves are of one key, and each is another', () => {
  const made = Array.from({ length: 50 }, () => {
    const { public: x, secret: d } = generateEd25519();
    const jwk = { kty: 'OKP', crv: 'Ed25519', x };
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    const secret = createPrivateKey({ key: { ...jwk, d }, format: 'jwk' });
    const text = Buffer.from('text');
    expect(verify(null, text, key, sign(null, text, secret))).toBe(true);
    // From the secret half alone.
    expect(publicEd25519(createPublicKey(secret))).toBe(x);
    expect(publicEd25519(key)).toBe(x);
    return x;
  });
  expect(new Set(made).size).toBe(made.length);
});
