import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { HoldfastError } from '../model/errors.ts';
import type { SealClaims } from '../model/seal.ts';
import { Gate } from './gate.ts';
import { generateSealKey, sealKeySet, sealToken, verifySeal } from './seal.ts';

const key = generateSealKey('2026-11');
const keys = sealKeySet([key]);
const claims: SealClaims = {
  token: 34n,
  tenant: 'shop',
  resource: 'orders/42',
  holder: 'worker-2',
  expiresAtMs: 10_000,
};
const expected = { resource: 'orders/42', tenant: 'shop' };

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (HoldfastError.is(error, 'token-unsealed')) return error.message;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('a sealed token', () => {
  it('is verified without any connection, from the public key alone', () => {
    const publicOnly = sealKeySet([{ id: key.id, public: key.public }]);
    expect(verifySeal(publicOnly, sealToken(keys, claims), expected, 9_999)).toEqual(claims);
    expect(() => sealToken(publicOnly, claims)).toThrow('no key of this set can sign');
  });

  it('is refused when any character of it was altered', () => {
    const sealed = sealToken(keys, claims);
    for (let i = 0; i < sealed.length; i++) {
      const other = sealed[i] === 'A' ? 'B' : 'A';
      const altered = sealed.slice(0, i) + other + sealed.slice(i + 1);
      refusal(() => verifySeal(keys, altered, expected, 0));
    }
  });

  it('is refused for another resource, tenant or token, and when it has expired', () => {
    const sealed = sealToken(keys, claims);
    expect(refusal(() => verifySeal(keys, sealed, { resource: 'orders/43' }, 0))).toContain(
      'orders/42',
    );
    expect(refusal(() => verifySeal(keys, sealed, { ...expected, tenant: 'bank' }, 0))).toContain(
      'tenant',
    );
    expect(refusal(() => verifySeal(keys, sealed, { ...expected, token: 35n }, 0))).toContain('35');
    expect(refusal(() => verifySeal(keys, sealed, expected, 10_000))).toContain('expired');
  });

  it('is refused when its key is unknown, or another key has the same id', () => {
    const sealed = sealToken(sealKeySet([generateSealKey('other')]), claims);
    expect(refusal(() => verifySeal(keys, sealed, expected, 0))).toContain('not known');
    const impostor = sealToken(sealKeySet([generateSealKey('2026-11')]), claims);
    expect(refusal(() => verifySeal(keys, impostor, expected, 0))).toContain('signature');
  });

  it('survives a rotation: old seals verify, new ones are made with the new key', () => {
    const old = sealToken(keys, claims);
    const next = generateSealKey('2026-12');
    const rotated = sealKeySet([next, { id: key.id, public: key.public }]);
    expect(verifySeal(rotated, old, expected, 0).token).toBe(34n);
    expect(sealToken(rotated, claims)).toContain('.2026-12.');
    refusal(() => verifySeal(sealKeySet([next]), old, expected, 0));
  });

  it('is refused whatever rubbish is presented', () => {
    for (const rubbish of ['', 'hf1', 'hf1....', 'hf1.2026-11.e30.e30', 'x'.repeat(10_000)]) {
      refusal(() => verifySeal(keys, rubbish, expected, 0));
    }
  });
});

describe('a gate that requires seals', () => {
  const clock = new ManualClock({ wallMs: 5_000 });
  const refused: string[] = [];
  const gate = new Gate('test', {
    clock,
    seal: { keys, required: true, tenant: 'shop' },
    onRefuse: ({ error }) => refused.push(error.code),
  });

  it('refuses an invented 2^62 and goes on admitting what is real', () => {
    expect(() => gate.read(2n ** 62n, 'orders/42')).toThrow('only sealed tokens');
    expect(() =>
      gate.read({ token: 2n ** 62n, seal: sealToken(keys, claims) }, 'orders/42'),
    ).toThrow('it is for token 34');
    expect(gate.read(sealToken(keys, claims), 'orders/42')).toMatchObject({
      token: 34n,
      holder: 'worker-2',
    });
    expect(refused).toEqual(['token-unsealed', 'token-unsealed']);
  });
});

describe('a gate', () => {
  it('names who raised the mark, and tells when a fresh token is refused', () => {
    const fresh: unknown[] = [];
    const gate = new Gate('test', { onFreshRefused: ({ mark }) => fresh.push(mark) });
    const stale = gate.read('33', 'r');
    const mark = { token: 34n, holder: 'worker-2', atMs: Date.UTC(2026, 10, 20) };
    const error = gate.refused(stale, mark);
    expect(error.message).toBe(
      'stale: token 33 < mark 34 (raised by worker-2 at 2026-11-20T00:00:00.000Z)',
    );
    expect(error).toMatchObject({
      code: 'stale',
      outcome: 'rejected',
      details: { token: 33n, mark: 34n },
    });
    expect(fresh).toEqual([]);
    gate.refused(gate.read({ token: 33n, fresh: true }, 'r'), mark);
    expect(fresh).toEqual([34n]);
  });

  it('is not disturbed by a hook that throws', () => {
    const gate = new Gate('test', {
      onAdmit: () => {
        throw new Error('metrics are down');
      },
    });
    gate.admitted(gate.read(1n, 'r'));
  });

  it('refuses what is not a token, and a seal it cannot verify', () => {
    const gate = new Gate('test', {});
    for (const near of ['0', '-1', '034', '1e3', ' 1', '9223372036854775808', '']) {
      expect(() => gate.read(near, 'r')).toThrow('is not a token');
    }
    expect(() => gate.read(sealToken(keys, claims), 'orders/42')).toThrow('no keys');
    expect(() => gate.read(1n, '')).toThrow('a resource is named by');
  });
});
