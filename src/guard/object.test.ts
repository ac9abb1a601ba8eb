import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { ObjectServer } from '../testing/object-server.ts';
import { awsSigner, ObjectGuard } from './object.ts';
import { generateSealKey, sealKeySet, sealToken } from './seal.ts';

let server: ObjectServer;
beforeEach(async () => {
  server = await ObjectServer.start();
});
afterEach(async () => await server.close());

const open = (): Promise<ObjectGuard> => ObjectGuard.open({ store: { url: server.url } });
const text = async (guard: ObjectGuard, name: string): Promise<string | undefined> =>
  (await guard.read(name))?.data.toString();

describe('the object store guard', () => {
  it('refuses an older token to write and delete, also after the content was deleted', async () => {
    const guard = await open();
    await guard.write(33n, 'reports/a', 'one');
    await guard.write({ token: 34n, holder: 'worker-2' }, 'reports/a', 'two');
    await expect(guard.write(33n, 'reports/a', 'late')).rejects.toThrow(
      /^stale: token 33 < mark 34 \(raised by worker-2 at/,
    );
    expect(await text(guard, 'reports/a')).toBe('two');
    await guard.delete(34n, 'reports/a');
    expect(await guard.read('reports/a')).toBeUndefined();
    await expect(guard.write(33n, 'reports/a', 'late')).rejects.toMatchObject({ code: 'stale' });
    expect(await guard.mark('reports/a')).toBe(34n);
  });

  it('holds off whoever is older before anything is written, and leaves what is there', async () => {
    const guard = await open();
    await guard.write(33n, 'f', 'one');
    await guard.admit(34n, 'f');
    await expect(guard.write(33n, 'f', 'late')).rejects.toMatchObject({ code: 'stale' });
    await expect(guard.admit(33n, 'f')).rejects.toMatchObject({ code: 'stale' });
    expect(await text(guard, 'f')).toBe('one');
    await guard.write(34n, 'f', 'two');
    expect(await text(guard, 'f')).toBe('two');
    // Of a name that has no content yet, too.
    await guard.admit(7n, 'new');
    expect(await guard.read('new')).toBeUndefined();
    await expect(guard.write(6n, 'new', 'late')).rejects.toMatchObject({ code: 'stale' });
  });

  it('is not fooled by a content that returns (ABA): pointers never repeat their tag', async () => {
    const guard = await open();
    for (const content of ['A', 'B', 'A']) await guard.write(5n, 'f', content);
    const tags = server.writes.filter(({ key }) => key === 'f').map(({ etag }) => etag);
    expect(new Set(tags).size).toBe(3);
  });

  it('keeps no content that nothing points to', async () => {
    const guard = await open();
    for (let i = 1n; i < 5n; i++) await guard.write(i, 'f', String(i));
    await expect(guard.write(1n, 'f', 'x')).rejects.toMatchObject({ code: 'stale' });
    expect([...server.objects.keys()]).toHaveLength(2);
  });

  it('ends at the greatest token when many race, and no older content follows a newer', async () => {
    const guard = await open();
    const tokens = Array.from({ length: 24 }, (_, i) => BigInt((i * 5) % 24) + 1n);
    await Promise.allSettled(tokens.map((token) => guard.write(token, 'f', String(token))));
    expect(await text(guard, 'f')).toBe('24');
    const moved = server.writes
      .filter(({ key, body }) => key === 'f' && body)
      .map(({ body }) => BigInt(JSON.parse(String(body)).token));
    for (let i = 1; i < moved.length; i++) expect(moved[i]! >= moved[i - 1]!).toBe(true);
  });

  it('writes once when answers are lost or the store asks to repeat', async () => {
    const guard = await open();
    server.lies.loseAnswers = 3;
    server.lies.conflicts = 2;
    await guard.write(7n, 'f', 'x', { rule: 'once' });
    expect(await text(guard, 'f')).toBe('x');
    const moves = server.writes.filter(({ key }) => key === 'f');
    expect(moves.length).toBe(1);
  });

  it('refuses stores that ignore conditions, all or one of them', async () => {
    server.lies.ignoreConditions = true;
    await expect(open()).rejects.toMatchObject({ code: 'guard-unfit' });
    server.lies.ignoreConditions = false;
    server.lies.ignoreIfMatch = true;
    await expect(open()).rejects.toThrow('If-Match');
  });

  it('refuses to guard a name that holds an object of its own', async () => {
    const guard = await open();
    await fetch(`${server.url}/plain`, { method: 'PUT', body: 'mine' });
    await expect(guard.write(1n, 'plain', 'x')).rejects.toMatchObject({ code: 'guard-unfit' });
  });

  it('refuses an invented 2^62 where seals are required, and stays usable', async () => {
    const keys = sealKeySet([generateSealKey('k')]);
    const guard = await ObjectGuard.open({
      store: { url: server.url },
      seal: { keys, required: true },
    });
    await expect(guard.write(2n ** 62n, 'f', 'x')).rejects.toMatchObject({
      code: 'token-unsealed',
    });
    const claims = { tenant: '', resource: 'f', holder: 'h', expiresAtMs: Date.now() + 60_000 };
    await guard.write(sealToken(keys, { ...claims, token: 3n }), 'f', 'sealed');
    expect(await text(guard, 'f')).toBe('sealed');
  });
});

describe('AWS Signature Version 4', () => {
  it('signs the example of its documentation (GET Object) as printed there', async () => {
    const sign = awsSigner({
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
      secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
      region: 'us-east-1',
      clock: new ManualClock({ wallMs: Date.UTC(2013, 4, 24) }),
    });
    const headers = { range: 'bytes=0-9' };
    const request = new Request('https://examplebucket.s3.amazonaws.com/test.txt', { headers });
    expect((await sign(request)).headers.get('authorization')).toContain(
      'Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    );
  });
});

const real = process.env.HOLDFAST_TEST_S3_URL;
describe.skipIf(!real)(
  'a real endpoint (HOLDFAST_TEST_S3_URL=https://KEY:SECRET@host/bucket)',
  () => {
    it('is fit, and refuses a stale token', async () => {
      const url = new URL(real!);
      const sign = awsSigner({
        accessKeyId: decodeURIComponent(url.username),
        secretAccessKey: decodeURIComponent(url.password),
        region: process.env.AWS_REGION ?? 'us-east-1',
      });
      const store = { url: `${url.origin}${url.pathname}`, ...(url.username ? { sign } : {}) };
      const guard = await ObjectGuard.open({ store });
      const name = `holdfast-test-${Date.now()}`;
      await guard.write(34n, name, 'new');
      await expect(guard.write(33n, name, 'late')).rejects.toMatchObject({ code: 'stale' });
      await guard.delete(34n, name);
    });
  },
);
