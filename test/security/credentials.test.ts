/** Who a caller is: proved by a token, a password or a certificate, and by nothing else. */
import { createSecretKey } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { ManualClock } from '../../src/base/clock.ts';
import { systemClock } from '../../src/base/system.ts';
import { opaqueTokens, signedTokens } from '../../src/server/access/tokens.ts';
import { callers } from '../../src/server/callers.ts';
import { AuthService, KVService, LeaseService } from '../../src/wire/messages/services.ts';
import { PASSWORDS, refusedCall, Stage } from './stage.ts';

const READ = { key: utf8('a') };
let stage: Stage;

beforeAll(async () => {
  stage = await (await Stage.open({ passwordLengthMin: 8 })).guarded();
});

afterAll(() => stage[Symbol.asyncDispose]());

describe('tokens', () => {
  test('an odd token is unauthenticated, not a crash', async () => {
    const odd = [
      'x',
      '.',
      '..',
      'a.b.c',
      'null',
      '{}',
      'Bearer',
      'bearer bearer',
      '0'.repeat(6_000),
    ];
    const jwt = signedTokens({
      algorithm: 'HS256',
      publicKey: createSecretKey(Buffer.alloc(32, 1)),
      clock: systemClock,
    });
    const none = Buffer.from('{"alg":"none"}').toString('base64url');
    odd.push(jwt.issue({ user: 'root', revision: 99 }), `${none}.e30.`, `${none}.bnVsbA.AA`);
    for (const token of odd) {
      const client = stage.client({ metadata: [['token', token]] });
      const said = await refusedCall(client, KVService.Range, READ);
      expect([token.slice(0, 20), said?.message]).toEqual([
        token.slice(0, 20),
        'etcdserver: invalid auth token',
      ]);
      client.destroy();
      expect(jwt.check(`${token}x`)).toBeUndefined();
    }
  });

  test('a token is never accepted outside its scope: another server does not know it', async () => {
    await using other = await (await Stage.open()).guarded();
    const token = await other.token('root');
    const said = await refusedCall(
      stage.client({ metadata: [['token', token]] }),
      KVService.Range,
      READ,
    );
    expect(said?.message).toBe('etcdserver: invalid auth token');
  });

  test('an unknown or malformed credential never widens access, also beside a good certificate', () => {
    const clock = new ManualClock();
    const who = callers({ tokens: opaqueTokens(clock), open: () => false, certificates: true });
    const tls = { authorized: true, getPeerCertificate: () => ({ subject: { CN: 'root' } }) };
    expect(who.identify({ token: undefined, tls: tls as never })).toEqual({ user: 'root' });
    expect(() => who.identify({ token: 'nonsense', tls: tls as never })).toThrow(
      'invalid auth token',
    );
  });

  test('an identity with missing parts is refused', () => {
    const tokens = opaqueTokens(new ManualClock());
    const who = callers({ tokens, open: () => false, certificates: true });
    for (const subject of [undefined, {}, { CN: '' }, { CN: ['root', 'ann'] }, { O: 'root' }]) {
      const tls = { authorized: true, getPeerCertificate: () => ({ subject }) };
      expect(who.identify({ token: undefined, tls: tls as never }).user).toBeUndefined();
    }
    const unverified = {
      authorized: false,
      getPeerCertificate: () => ({ subject: { CN: 'root' } }),
    };
    expect(who.identify({ token: undefined, tls: unverified as never }).user).toBeUndefined();
  });

  test('who may not delete a user cannot end its tokens by asking for it', async () => {
    const root = await stage.as('root');
    for (const client of [stage.client(), await stage.as('eve')]) {
      expect(await refusedCall(client, AuthService.UserDelete, { name: 'root' })).toBeDefined();
      const password = 'another-secret';
      const change = { name: 'root', password };
      expect(await refusedCall(client, AuthService.UserChangePassword, change)).toBeDefined();
    }
    await root.unary(KVService.Range, READ);
  });

  test('a token ends with a change of users, and a new one must be had', async () => {
    const ann = await stage.as('ann');
    const root = await stage.as('root');
    await ann.unary(KVService.Range, READ);
    await root.unary(AuthService.UserAdd, { name: 'tim', password: 'long-enough' });
    const said = await refusedCall(ann, KVService.Range, READ);
    expect(said?.message).toBe('etcdserver: revision of auth store is old');
  });
});

describe('passwords', () => {
  test('a short password is refused', async () => {
    const root = await stage.as('root');
    const short = { name: 'kim', password: '1234567' };
    for (const method of [AuthService.UserAdd, AuthService.UserChangePassword]) {
      const said = await refusedCall(root, method, { ...short, name: 'ann' });
      expect(said?.message).toContain('a password has 8 to 1024 characters');
    }
    await using open = await Stage.open();
    const said = await refusedCall(open.client(), AuthService.UserAdd, { name: 'x', password: '' });
    expect(said?.code).toBe(3);
  });

  test('role and user queries never return secrets or hashes', async () => {
    const root = await stage.as('root');
    const answers = [
      await root.unary(AuthService.UserGet, { name: 'ann' }),
      await root.unary(AuthService.UserList, {}),
      await root.unary(AuthService.RoleGet, { role: 'ab' }),
      await root.unary(AuthService.RoleList, {}),
      await root.unary(KVService.Range, { key: utf8('\0'), rangeEnd: utf8('\0') }),
    ];
    const shown = JSON.stringify(answers, (_key, value: unknown) =>
      typeof value === 'bigint' ? String(value) : value,
    );
    expect(shown).not.toMatch(/scrypt|secret/);
  });

  test('no password, token or key appears in logs, errors, metrics or debug output', async () => {
    const token = await stage.token('ann');
    const said = [
      await refusedCall(stage.client(), AuthService.Authenticate, {
        name: 'ann',
        password: 'wrong-password-99',
      }),
      await refusedCall(
        stage.client({ metadata: [['token', `${token}x`]] }),
        KVService.Range,
        READ,
      ),
      await refusedCall(await stage.as('eve'), KVService.Range, { key: utf8('hidden-key-77') }),
      await refusedCall(await stage.as('eve'), LeaseService.LeaseRevoke, { ID: 5n }),
    ];
    await stage.json('/v3/auth/authenticate', '{"name":"ann","password":"wrong-password-99"');
    const metrics = await (await fetch(`http://127.0.0.1:${stage.server.port}/metrics`)).text();
    const everything = [JSON.stringify(said), metrics, ...stage.logged].join('\n');
    for (const secret of [
      ...Object.values(PASSWORDS),
      'wrong-password-99',
      token,
      'hidden-key-77',
    ]) {
      expect(everything).not.toContain(secret);
    }
  });
});

describe('names of hosts', () => {
  test('host verification never uses reverse DNS: nothing in the source asks for it', () => {
    const root = join(import.meta.dirname, '../../src');
    const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
    const sources = files.filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'));
    expect(sources.length).toBeGreaterThan(100);
    for (const file of sources) {
      const source = readFileSync(join(root, file), 'utf8');
      expect([file, /dns\.reverse|lookupService|node:dns/.test(source)]).toEqual([file, false]);
      expect([file, /checkServerIdentity\s*:/.test(source)]).toEqual([file, false]);
      expect([file, /rejectUnauthorized:\s*false/.test(source)]).toEqual([file, false]);
    }
  });
});
