import { createSecretKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import type { EmbeddedEngine } from '../../engine/embedded.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import type { TxnRequest } from '../../model/transaction.ts';
import { demandsOf, Gate } from './gate.ts';
import { hashPassword, passwordMatches } from './passwords.ts';
import { AccessStore } from './store.ts';
import { type JwtAlgorithm, opaqueTokens, signedTokens } from './tokens.ts';
import * as users from './users.ts';

const KEY = Uint8Array.of(0, 0x61);

function withReader(): users.AccessState {
  let state = users.addUser(users.NO_ACCESS_CONTROL, { name: 'root', passwordHash: 'x' });
  state = users.grantRole(state, 'root', 'root');
  state = users.addUser(state, { name: 'ann', passwordHash: 'x' });
  state = users.addRole(state, 'reader');
  state = users.grantPermission(state, 'reader', { type: 'read', key: utf8('a'), end: utf8('b') });
  state = users.grantRole(state, 'ann', 'reader');
  return users.enable(state);
}

describe('users and roles', () => {
  test('cannot be enabled without a root user that has the root role', () => {
    expect(() => users.enable(users.NO_ACCESS_CONTROL)).toThrow('root user does not exist');
    const rootless = users.addUser(users.NO_ACCESS_CONTROL, { name: 'root' });
    expect(() => users.enable(rootless)).toThrow('root user does not have root role');
  });

  test('root can neither be deleted nor lose its role while enabled', () => {
    const state = withReader();
    expect(() => users.deleteUser(state, 'root')).toThrow('invalid auth management');
    expect(() => users.revokeRole(state, 'root', 'root')).toThrow('invalid auth management');
    expect(() => users.deleteRole(state, 'root')).toThrow('invalid auth management');
  });

  test('every change raises the revision; a repeated one changes nothing', () => {
    const state = withReader();
    expect(users.grantRole(state, 'ann', 'reader')).toBe(state);
    expect(users.addRole(state, 'other').revision).toBe(state.revision + 1);
  });

  test('deleting a role takes it from its users', () => {
    const state = users.deleteRole(withReader(), 'reader');
    expect(users.findUser(state, 'ann').roles).toEqual([]);
  });

  test('granting the same range again replaces its type', () => {
    const range = { key: utf8('a'), end: utf8('b') };
    const state = users.grantPermission(withReader(), 'reader', { type: 'write', ...range });
    expect(users.findRole(state, 'reader').permissions).toEqual([{ type: 'write', ...range }]);
  });
});

describe('the gate', () => {
  const gate = new Gate(() => state);
  let state = withReader();
  const ann = { user: 'ann' };
  const judge = (request: TxnRequest): void => gate.keys(ann, demandsOf(request).requirements);

  beforeEach(() => {
    state = withReader();
  });

  test('lets a reader read what its role covers and nothing else', () => {
    judge({ success: [{ type: 'range', key: utf8('a') }] });
    expect(() => judge({ success: [{ type: 'range', key: utf8('b') }] })).toThrow(
      'permission denied',
    );
    expect(() => judge({ success: [{ type: 'put', key: utf8('a') }] })).toThrow(
      'permission denied',
    );
  });

  test('judges a nested transaction operation by operation, in both branches', () => {
    const write = { type: 'put' as const, key: utf8('a') };
    const nest = (inner: TxnRequest): TxnRequest => ({ failure: [{ type: 'txn', ...inner }] });
    expect(() => judge(nest(nest({ success: [write] })))).toThrow('permission denied');
    expect(() =>
      judge(nest({ compare: [{ key: utf8('x'), target: 'mod', result: '=', value: 0 }] })),
    ).toThrow('permission denied');
  });

  test('asks for read permission where a former value is asked for', () => {
    state = users.grantPermission(state, 'reader', { type: 'write', key: utf8('w') });
    judge({ success: [{ type: 'put', key: utf8('w') }] });
    expect(() => judge({ success: [{ type: 'put', key: utf8('w'), prevKv: true }] })).toThrow(
      'permission denied',
    );
  });

  test('reports the leases a transaction attaches to, at any depth', () => {
    const put = { type: 'put' as const, key: utf8('a'), lease: 7n };
    expect(demandsOf({ success: [{ type: 'txn', failure: [put] }] }).leases).toEqual([7n]);
  });

  test('refuses nobody, an outdated proof, and a user that is gone', () => {
    expect(() => gate.admin({ user: undefined })).toThrow('user name is empty');
    expect(() => gate.admin({ user: 'root', revision: state.revision - 1 })).toThrow(
      'auth store is old',
    );
    expect(() => gate.admin({ user: 'nobody' })).toThrow('invalid auth token');
    expect(() => gate.admin(ann)).toThrow('permission denied');
    gate.admin({ user: 'root', revision: state.revision });
  });

  test('is open to all as long as access control is off', () => {
    state = users.NO_ACCESS_CONTROL;
    judge({ success: [{ type: 'put', key: utf8('zzz') }] });
    gate.admin({ user: undefined });
  });
});

describe('tokens', () => {
  const clock = new ManualClock();

  test('an opaque token lives as long as it is used', () => {
    const tokens = opaqueTokens(clock, 1_000);
    const token = tokens.issue({ user: 'ann', revision: 3 });
    clock.advance(999);
    expect(tokens.check(token)).toMatchObject({ user: 'ann', revision: 3 });
    clock.advance(999);
    expect(tokens.check(token)).toBeDefined();
    clock.advance(1_000);
    expect(tokens.check(token)).toBeUndefined();
  });

  const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ed = generateKeyPairSync('ed25519');
  const secret = createSecretKey(randomBytes(32));
  const keys = {
    RS256: rsa,
    ES256: ec,
    EdDSA: ed,
    HS256: { publicKey: secret, privateKey: secret },
  };

  for (const [algorithm, pair] of Object.entries(keys)) {
    test(`a token signed with ${algorithm} is known again, and an altered or expired one is not`, () => {
      const tokens = signedTokens({
        algorithm: algorithm as JwtAlgorithm,
        ...pair,
        clock,
        ttlMs: 60_000,
      });
      const token = tokens.issue({ user: 'ann', revision: 3 });
      expect(tokens.check(token)).toEqual({ user: 'ann', revision: 3 });
      const [head, , seal] = token.split('.');
      const forged = Buffer.from(JSON.stringify({ username: 'root', revision: 3, exp: 9e9 }));
      expect(tokens.check(`${head}.${forged.toString('base64url')}.${seal}`)).toBeUndefined();
      clock.advance(61_000);
      expect(tokens.check(token)).toBeUndefined();
    });
  }

  test('a token cannot choose its own algorithm, and an odd one is nobody', () => {
    const tokens = signedTokens({ algorithm: 'RS256', ...rsa, clock });
    const pem = createSecretKey(Buffer.from(rsa.publicKey.export({ type: 'spki', format: 'pem' })));
    const confused = signedTokens({ algorithm: 'HS256', publicKey: pem, privateKey: pem, clock });
    expect(tokens.check(confused.issue({ user: 'root', revision: 9 }))).toBeUndefined();
    for (const odd of ['', '.', '..', 'a.b.c', 'null.null.null', `${'x'.repeat(10_000)}.y.z`]) {
      expect(tokens.check(odd)).toBeUndefined();
    }
  });

  test('a password matches its own hash only, and no hash matches nothing', async () => {
    const hash = await hashPassword('correct horse');
    expect(hash).not.toContain('correct');
    expect(await passwordMatches('correct horse', hash)).toBe(true);
    expect(await passwordMatches('wrong', hash)).toBe(false);
    expect(await passwordMatches('', undefined)).toBe(false);
  });
});

describe('the access store', () => {
  let engine: EmbeddedEngine;

  beforeEach(async () => {
    engine = await openMemoryEngine({ clock: new ManualClock() });
  });

  test('two servers on one engine end up with both their changes', async () => {
    const [a, b] = [await AccessStore.open(engine, KEY), await AccessStore.open(engine, KEY)];
    await a.change((state) => users.addRole(state, 'one'));
    await b.change((state) => users.addRole(state, 'two'));
    await a.reload();
    expect([...a.state.roles.keys()]).toEqual(['one', 'two']);
    await engine.close();
  });

  test('what a store wrote is what the next one reads, listeners being told first', async () => {
    const first = await AccessStore.open(engine, KEY);
    const told: number[] = [];
    first.onChange(async (state) => {
      told.push(state.revision);
    });
    await first.change(() => withReader());
    expect(told).toEqual([withReader().revision]);
    const second = await AccessStore.open(engine, KEY);
    expect(second.state).toEqual(first.state);
    await engine.close();
  });
});
