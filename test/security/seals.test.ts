/**
 * Sealed tokens from end to end: a real server seals, a real client holds the lock, and a guard
 * behind HTTP that knows nothing but the server's public keys lets in what is real and nothing else.
 */
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { text, utf8 } from '../../src/base/bytes.ts';
import { ManualClock } from '../../src/base/clock.ts';
import { type Client, connect } from '../../src/client.ts';
import { openMemoryEngine } from '../../src/engine/memory/engine.ts';
import { type FetchedSealKeys, fetchSealKeys } from '../../src/guard/fetched-seal-keys.ts';
import type { SealRule } from '../../src/guard/gate.ts';
import { HttpGuard } from '../../src/guard/http/guard.ts';
import { guardListener } from '../../src/guard/http/middleware.ts';
import { MemoryMarks } from '../../src/guard/marks.ts';
import { generateSealKey, sealKeySet, sealToken } from '../../src/guard/seal.ts';
import { SEAL_KEYS_PATH } from '../../src/model/seal-keys.ts';
import { tokenEra } from '../../src/model/token.ts';
import type { Grant } from '../../src/recipes/grant.ts';
import { serve } from '../../src/server/serve.ts';
import type { Method } from '../../src/wire/messages/descriptor.ts';
import { AuthorityService, AuthService, KVService } from '../../src/wire/messages/services.ts';
import { PASSWORDS, Stage, type UserName } from './stage.ts';

const RESOURCE = 'a/orders';
let stage: Stage;
let closing: (() => unknown)[];

beforeEach(async () => {
  closing = [];
  stage = await Stage.open();
});

afterEach(async () => {
  for (const close of closing.reverse()) await close();
  await stage[Symbol.asyncDispose]();
});

const address = (): string => `http://127.0.0.1:${stage.server.port}`;

async function client(user?: string, password = ''): Promise<Client> {
  const login = user === undefined ? '' : `${encodeURIComponent(user)}:${password}@`;
  const made = await connect(`etcd://${login}127.0.0.1:${stage.server.port}`, { ttl: '20s' });
  closing.push(() => made.close());
  return made;
}

const as = (name: UserName): Promise<Client> => client(name, PASSWORDS[name]);

/** A service that remembers what reached it, behind a guard. */
interface Service {
  readonly effects: string[];
  readonly guard: string;
  send(token: string | bigint, effect: string): Promise<number>;
}

async function guarded(seal: SealRule | undefined, clock = new ManualClock()): Promise<Service> {
  const effects: string[] = [];
  const options = { resource: RESOURCE, clock, ...(seal ? { seal } : {}) };
  const guard = new HttpGuard(new MemoryMarks(), options);
  const listener = guardListener(guard, async (request, response) => {
    let body = '';
    for await (const part of request) body += text(part as Uint8Array);
    effects.push(body);
    response.end();
  });
  const url = await listening(createServer(listener as RequestListener));
  const send = async (token: string | bigint, body: string): Promise<number> => {
    const headers = { 'holdfast-token': String(token) };
    const response = await fetch(url, { method: 'POST', headers, body });
    await response.text();
    return response.status;
  };
  return { effects, guard: url, send };
}

async function listening(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(
    () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A guard whose clock agrees with the server's, unless told otherwise. */
const clockAt = (offsetMs = 0): ManualClock => new ManualClock({ wallMs: Date.now() + offsetMs });

async function authorityKeys(clock?: ManualClock): Promise<FetchedSealKeys> {
  return await fetchSealKeys(address(), clock ? { clock } : {});
}

const sealOf = async (grant: Grant): Promise<string> => (await grant.sealedToken()).seal;

async function code(run: Promise<unknown>): Promise<string> {
  return await run.then(
    () => 'no error',
    (error: { code?: string }) => error.code ?? String(error),
  );
}

describe('a guard that requires seals', () => {
  test('admits the holder of a lock and refuses every number that was only invented', async () => {
    const grant = await (await client()).lock(RESOURCE).acquire();
    const service = await guarded({ keys: await authorityKeys(), required: true }, clockAt());
    const forger = sealKeySet([
      generateSealKey((await authorityKeys()).verifiers.keys().next().value!),
    ]);
    const expiresAtMs = Date.now() + 60_000;
    const forged = sealToken(forger, {
      token: 2n ** 62n,
      tenant: '',
      resource: RESOURCE,
      holder: 'a forger',
      expiresAtMs,
    });
    expect(await service.send(2n ** 62n, 'invented')).toBe(403);
    expect(await service.send(forged, 'forged')).toBe(403);
    expect(await service.send(grant.token, 'bare')).toBe(403);
    expect(await service.send(await sealOf(grant), 'real')).toBe(200);
    expect(service.effects).toEqual(['real']);
  });

  test('control: without the requirement an invented number passes and locks the holder out', async () => {
    const grant = await (await client()).lock(RESOURCE).acquire();
    const service = await guarded(undefined);
    expect(await service.send(2n ** 62n, 'invented')).toBe(200);
    expect(await service.send(grant.token, 'real')).toBe(409);
    expect(service.effects).toEqual(['invented']);
  });

  test('refuses a seal of another resource, and with a name of its own admits it', async () => {
    const hf = await client();
    const other = await hf.lock('a/invoices').acquire();
    const service = await guarded({ keys: await authorityKeys(), required: true }, clockAt());
    expect(await service.send(await sealOf(other), 'other')).toBe(403);
    expect(await service.send(await sealOf(await hf.lock(RESOURCE).acquire()), 'own')).toBe(200);
  });

  test('refuses as stale the sealed token of a holder before, and of an older era', async () => {
    const hf = await client();
    const clock = clockAt();
    const service = await guarded({ keys: await authorityKeys(clock), required: true }, clock);
    const first = await hf.lock(RESOURCE).acquire();
    const firstSeal = await sealOf(first);
    await first.release();
    const second = await hf.lock(RESOURCE).acquire();
    const secondSeal = await sealOf(second);
    expect(await service.send(secondSeal, 'second')).toBe(200);
    expect(await service.send(firstSeal, 'first, late')).toBe(409);
    await second.release();
    await stage.engine.liftEra(1);
    const third = await hf.lock(RESOURCE).acquire();
    expect(tokenEra(third.token)).toBe(1);
    // The new era has keys of its own, and the guard may ask for them again.
    clock.advance(5_000);
    expect(await service.send(await sealOf(third), 'third')).toBe(200);
    expect(await service.send(secondSeal, 'second, of the era before')).toBe(409);
    expect(service.effects).toEqual(['second', 'third']);
  });

  test('refuses a seal that has expired, by its own clock and with the allowance it was given', async () => {
    const keys = await authorityKeys();
    const grant = await (await client()).lock(RESOURCE).acquire();
    const { seal, validMs } = await grant.sealedToken();
    expect(validMs).toBeGreaterThan(10_000);
    expect(validMs).toBeLessThanOrEqual(20_000);
    const late = clockAt(21_000);
    expect(await (await guarded({ keys, required: true }, late)).send(seal, 'x')).toBe(403);
    const patient = { keys, required: true, skewMs: 60_000 };
    expect(await (await guarded(patient, late)).send(seal, 'x')).toBe(200);
  });

  test('refuses everything when its clock is so far behind that it could not tell what has expired', async () => {
    const keys = await authorityKeys();
    const grant = await (await client()).lock(RESOURCE).acquire();
    const seal = await sealOf(grant);
    const behind = await guarded({ keys, required: true }, clockAt(-3_600_000));
    expect(await behind.send(seal, 'x')).toBe(403);
    const slightly = await guarded({ keys, required: true }, clockAt(-30_000));
    expect(await slightly.send(seal, 'x')).toBe(200);
  });

  test('admits what the key before signed and what the new one signs, after a rotation', async () => {
    const hf = await client();
    const keys = await authorityKeys();
    const service = await guarded({ keys, required: true }, clockAt());
    const grant = await hf.lock(RESOURCE).acquire();
    const before = await sealOf(grant);
    const root = stage.client();
    const known = [...keys.verifiers.keys()];
    const { keyId, published } = await root.unary(AuthorityService.RotateSealKeys, {});
    // The guard has had the new key since before it signed.
    expect(known).toContain(keyId);
    expect(published).toContain(known[0]);
    const { seal: after } = await grant.sealedToken({ anew: true });
    expect(after.split('.')[1]).toBe(keyId);
    expect(before.split('.')[1]).toBe(known[0]);
    expect(await service.send(after, 'after')).toBe(200);
    expect(await service.send(before, 'before')).toBe(200);
  });

  test('fetches a key it does not know, and trusts none that was thrown away', async () => {
    const hf = await client();
    const clock = clockAt();
    const keys = await authorityKeys(clock);
    const service = await guarded({ keys, required: true }, clock);
    const grant = await hf.lock(RESOURCE).acquire();
    const stolen = await sealOf(grant);
    await stage.client().unary(AuthorityService.RotateSealKeys, { discard: true });
    const { seal } = await grant.sealedToken({ anew: true });
    // A fetch is due again; until then nobody can make the guard ask.
    expect(await service.send(seal, 'too early')).toBe(403);
    clock.advance(5_000);
    expect(await service.send(seal, 'new key')).toBe(200);
    expect(await service.send(stolen, 'void')).toBe(403);
    expect(service.effects).toEqual(['new key']);
  });

  test('goes on with the keys it has while the authority is away', async () => {
    const clock = clockAt();
    const keys = await authorityKeys(clock);
    const service = await guarded({ keys, required: true }, clock);
    const hf = await client();
    const seal = await sealOf(await hf.lock(RESOURCE).acquire());
    await hf.close();
    await stage.server.close();
    clock.advance(10_000);
    expect(await service.send(seal, 'offline')).toBe(200);
  });
});

describe('the server seals only what is true', () => {
  test('not the token of a waiter, which is above the holder’s', async () => {
    const hf = await client();
    const holder = await hf.lock(RESOURCE).acquire();
    const other = await client();
    const waiting = other.lock(RESOURCE).acquire();
    const root = stage.client();
    const line = { key: utf8(`${RESOURCE}/`), rangeEnd: utf8(`${RESOURCE}0`) };
    let waiter: { key: Uint8Array; lease: bigint } | undefined;
    while (!waiter) {
      const { kvs } = await root.unary(KVService.Range, line);
      waiter = kvs.find((kv) => text(kv.key) !== text(holder.key));
    }
    const { key, lease } = waiter;
    await expect(root.unary(AuthorityService.SealToken, { key, lease })).rejects.toThrow('waits');
    await holder.release();
    const grant = await waiting;
    const sealed = await root.unary(AuthorityService.SealToken, { key, lease });
    expect(sealed.token).toBe(grant.token);
  });

  test('not a claim that is gone, of another lease, under another token, or no claim at all', async () => {
    const hf = await client();
    const grant = await hf.lock(RESOURCE).acquire();
    const { key, token } = grant;
    const lease = grant.session.id;
    const { sealer } = hf.engine;
    const ask = (request: object): Promise<string> =>
      code(sealer!.seal({ key, lease, token, ...request }));
    expect(await ask({})).toBe('no error');
    expect(await ask({ token: token + 1n })).toBe('grant-lost');
    expect(await ask({ token: 1n })).toBe('grant-lost');
    expect(await ask({ token: (1n << 48n) + token })).toBe('grant-lost');
    expect(await ask({ lease: lease + 1n })).toBe('grant-lost');
    for (const odd of ['', 'x', '/', 'a/', '/7a3f', 'a/orders', 'a/xyz', 'a/0', 'a/7a3f/']) {
      expect([odd, await ask({ key: utf8(odd) })]).toEqual([odd, 'invalid-argument']);
    }
    const unheld = utf8('a/plain/7a3f');
    await stage.client().unary(KVService.Put, { key: unheld });
    expect(await ask({ key: unheld, lease: 0x7a3fn, token: 0n })).toBe('grant-lost');
    // The name of another lease than the one the key stands on.
    const posing = utf8('a/posing/7a3f');
    await stage.client().unary(KVService.Put, { key: posing, lease });
    expect(await ask({ key: posing, lease: 0n, token: 0n })).toBe('grant-lost');
    await grant.release();
    expect(await ask({})).toBe('grant-lost');
    await grant.session.close();
    expect(await code(grant.sealedToken())).toBe('grant-lost');
  });

  test('not permits and read-write locks, which nobody holds alone', async () => {
    const hf = await client();
    const permit = await hf.semaphore('a/pool', 2).acquire();
    const reader = await hf.readWriteLock('a/book').acquire('read');
    expect(await code(permit.sealedToken())).toBe('invalid-argument');
    expect(await code(reader.sealedToken())).toBe('invalid-argument');
  });

  test('a lock below another one’s name does not stand in its line', async () => {
    const hf = await client();
    for (let at = 0; at < 20; at++) await hf.lock(`a/${at}`).acquire();
    const grant = await hf.lock('a').acquire();
    expect((await grant.sealedToken()).resource).toBe('a');
    const second = stage.client().unary(AuthorityService.SealToken, { key: utf8('a/7a3f') });
    await expect(second).rejects.toThrow('no claim');
  });

  test('a leader, each lock of several, and a lock with a delay have their seals too', async () => {
    const hf = await client();
    const leadership = await hf.election('a/chair').campaign();
    expect(await leadership.sealedToken()).toMatchObject({
      token: leadership.token,
      resource: 'a/chair',
      tenant: '',
      holder: `lease ${leadership.session.leaseHex}`,
    });
    const several = await hf.locks(['a/2', 'a/1']).acquire();
    const sealed = await several.sealedTokens();
    expect([...sealed].map(([name, { resource }]) => [name, resource])).toEqual([
      ['a/1', 'a/1'],
      ['a/2', 'a/2'],
    ]);
    const delayed = await hf.lock('a/delayed', { lockDelay: '5s' }).acquire();
    expect((await delayed.sealedToken()).token).toBe(delayed.token);
  });

  test('a claim that etcd’s own Lock service made, through JSON', async () => {
    const { ID } = JSON.parse(await (await stage.json('/v3/lease/grant', '{"TTL":20}')).text());
    const name = Buffer.from(RESOURCE).toString('base64');
    const lock = JSON.stringify({ name, lease: ID });
    const { key } = JSON.parse(await (await stage.json('/v3/lock/lock', lock)).text());
    const body = JSON.stringify({ key, lease: ID });
    const answer = JSON.parse(await (await stage.json('/v3/authority/seal', body)).text());
    expect(answer).toMatchObject({ resource: RESOURCE, token: expect.stringMatching(/^\d+$/) });
    const service = await guarded({ keys: await authorityKeys(), required: true }, clockAt());
    expect(await service.send(answer.seal, 'by JSON')).toBe(200);
  });

  test('a present seal is used until half of its time is over', async () => {
    const grant = await (await client()).lock(RESOURCE).acquire();
    const [one, two] = await Promise.all([grant.sealedToken(), grant.sealedToken()]);
    expect(two).toBe(one);
    expect(await grant.sealedToken()).toBe(one);
    expect(await grant.sealedToken({ anew: true })).not.toBe(one);
  });
});

describe('with access control', () => {
  beforeEach(() => stage.guarded());

  /** Each change of users voids the logins before it. */
  const asRoot = async (method: Method, request: object): Promise<void> => {
    await (await stage.as('root')).unary(method, request as never);
  };

  test('only who may write the claim and read its line gets a seal, and it names the user', async () => {
    const grant = await (await as('ann')).lock(RESOURCE).acquire();
    const lease = grant.session.id;
    const { holder } = await grant.sealedToken();
    expect(holder).toBe(`ann, lease ${lease.toString(16)}`);
    const { key, token } = grant;
    const eve = (await as('eve')).engine.sealer!;
    expect(await code(eve.seal({ key, lease, token }))).toBe('permission-denied');
    await asRoot(AuthService.RoleAdd, { name: 'reader' });
    const perm = { permType: 0, key: utf8('a'), rangeEnd: utf8('c') };
    await asRoot(AuthService.RoleGrantPermission, { name: 'reader', perm });
    await asRoot(AuthService.UserGrantRole, { user: 'eve', role: 'reader' });
    const reader = (await as('eve')).engine.sealer!;
    expect(await code(reader.seal({ key, lease, token }))).toBe('permission-denied');
  });

  test('only root rotates the keys', async () => {
    expect(await code((await as('ann')).engine.sealer!.rotate())).toBe('permission-denied');
    const before = await (await as('root')).engine.sealer!.rotate();
    const { keyId } = await (await as('root')).engine.sealer!.rotate({ discard: true });
    expect(before.published).not.toContain(keyId);
  });

  test('a tenant’s seal is for that tenant: a resource of the same name is another one', async () => {
    for (const name of ['shop/ann', 'bank/bob']) {
      await asRoot(AuthService.UserAdd, { name, password: 'secret' });
      await asRoot(AuthService.UserGrantRole, { user: name, role: 'root' });
    }
    const shop = await (await client('shop/ann', 'secret')).lock(RESOURCE).acquire();
    const bank = await (await client('bank/bob', 'secret')).lock(RESOURCE).acquire();
    const own = await (await as('root')).lock(RESOURCE).acquire();
    expect((await shop.sealedToken()).tenant).toBe('shop');
    const keys = await authorityKeys();
    const seals = [await sealOf(shop), await sealOf(bank), await sealOf(own)];
    const admitted = async (rule: SealRule): Promise<number[]> => {
      const service = await guarded({ required: true, ...rule }, clockAt());
      const answers: number[] = [];
      for (const seal of seals) answers.push(await service.send(seal, 'x'));
      return answers;
    };
    expect(await admitted({ keys, tenant: 'shop' })).toEqual([200, 403, 403]);
    expect(await admitted({ keys, tenant: 'bank' })).toEqual([403, 200, 403]);
    expect(await admitted({ keys })).toEqual([403, 403, 200]);
    // The claim of one tenant does not exist for another.
    const { key, token, session } = shop;
    const bob = (await client('bank/bob', 'secret')).engine.sealer!;
    expect(await code(bob.seal({ key, token, lease: session.id }))).toBe('grant-lost');
  });
});

describe('the public keys', () => {
  test('are served to everybody, to be kept for a while, and hold no secret', async () => {
    await stage.guarded();
    const response = await fetch(address() + SEAL_KEYS_PATH);
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe('public, max-age=300');
    const body = await response.text();
    const { keys } = JSON.parse(body) as { keys: Record<string, string>[] };
    expect(keys).toHaveLength(2);
    for (const key of keys) {
      expect(key).toMatchObject({ kty: 'OKP', crv: 'Ed25519', use: 'sig', alg: 'EdDSA' });
      expect(Object.keys(key)).not.toContain('d');
    }
    const etag = response.headers.get('etag')!;
    const again = await fetch(address() + SEAL_KEYS_PATH, { headers: { 'if-none-match': etag } });
    expect(again.status).toBe(304);
    const posted = await fetch(address() + SEAL_KEYS_PATH, { method: 'POST' });
    expect(posted.status).toBe(405);
  });

  test('stand in no client’s and no tenant’s reach', async () => {
    await fetch(address() + SEAL_KEYS_PATH);
    const root = stage.client();
    const everything = { key: Uint8Array.of(0), rangeEnd: Uint8Array.of(0) };
    expect((await root.unary(KVService.Range, everything)).kvs).toEqual([]);
    const record = utf8('\0seal');
    expect((await stage.engine.range({ key: record })).kvs).toHaveLength(1);
    for (const method of [KVService.Put, KVService.Range, KVService.DeleteRange]) {
      expect(await code(root.unary(method as typeof KVService.Put, { key: record }))).toBe(
        'invalid-argument',
      );
    }
    const before = await (await fetch(address() + SEAL_KEYS_PATH)).text();
    await root.unary(KVService.DeleteRange, everything);
    expect(await (await fetch(address() + SEAL_KEYS_PATH)).text()).toBe(before);
  });

  test('are the same from every server before one engine', async () => {
    const servers = await Promise.all(
      [1, 2, 3].map(() => serve({ engine: stage.engine, listen: { port: 0 } })),
    );
    const documents = await Promise.all(
      servers.map(async ({ port }) => {
        return await (await fetch(`http://127.0.0.1:${port}${SEAL_KEYS_PATH}`)).text();
      }),
    );
    expect(new Set(documents).size).toBe(1);
    for (const server of servers) await server.close();
  });
});

describe('an authority that cannot seal', () => {
  test('says so, in an error of its own kind', async () => {
    const engine = await openMemoryEngine();
    const hf = await connect(engine);
    const grant = await hf.lock(RESOURCE).acquire();
    await expect(grant.sealedToken()).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('a Holdfast server has'),
    });
    await hf.close();
    await engine.close();
  });
});
