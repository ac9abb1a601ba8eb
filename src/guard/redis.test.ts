import { Redis as IoRedis } from 'ioredis';
import { createClient } from 'redis';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { lateKeys } from '../../test/late-keys.ts';
import { installed } from '../../test/servers/daemon.ts';
import { type Redis, startRedis } from '../../test/servers/redis.ts';
import { RedisGuard } from './redis.ts';
import { generateSealKey, sealKeySet, sealToken } from './seal.ts';

describe.skipIf(!installed('redis-server'))('the Redis guard on a real server (Debian)', () => {
  let server: Redis;
  let client: IoRedis;
  let guard: RedisGuard;

  beforeAll(async () => {
    server = await startRedis();
    client = new IoRedis(server.url, { lazyConnect: true });
    guard = await RedisGuard.open(client);
  });
  beforeEach(async () => void (await client.flushall()));
  afterAll(async () => {
    client?.disconnect();
    await server?.stop();
  });

  const set = (value: string, rule: 'reign' | 'once' = 'reign') => ({
    resource: 'r',
    rule,
    keys: ['{r}'],
    commands: [['SET', '{r}', value]],
  });

  it('refuses an older token, says whose the mark is, and changes nothing', async () => {
    await guard.run({ token: 34n, holder: 'worker-2' }, set('new'));
    await expect(guard.run(33n, set('stale'))).rejects.toThrow(
      /^stale: token 33 < mark 34 \(raised by worker-2 at 20/,
    );
    expect(await client.get('{r}')).toBe('new');
    expect(await guard.mark('r')).toBe(34n);
    expect(await guard.mark('other')).toBe(0n);
  });

  it('compares exactly: beyond 2^53, and 9 below 10', async () => {
    await guard.run(9n, set('a'));
    await guard.run(10n, set('b'));
    await expect(guard.run(9n, set('c'))).rejects.toMatchObject({ code: 'stale' });
    await guard.run(2n ** 53n + 1n, set('d'));
    await expect(guard.run(2n ** 53n, set('e'))).rejects.toMatchObject({ code: 'stale' });
    await guard.run(2n ** 63n - 1n, set('f'));
    expect(await guard.mark('r')).toBe(2n ** 63n - 1n);
  });

  it('admits each token once where that is the rule, also when 50 clients race', async () => {
    const runs = Array.from({ length: 50 }, (_, i) => guard.run(7n, set(String(i), 'once')));
    const settled = await Promise.allSettled(runs);
    expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('runs all commands with their answers, binary ones too', async () => {
    const bytes = Buffer.from([0, 255, 10, 13]);
    const answers = await guard.run(1n, {
      resource: 'r',
      keys: ['{r}', '{r}:n'],
      commands: [
        ['SET', '{r}', bytes],
        ['INCR', '{r}:n'],
        ['INCRBY', '{r}:n', '4'],
      ],
    });
    expect(answers).toEqual(['OK', 1, 5]);
    expect(await client.getBuffer('{r}')).toEqual(bytes);
  });

  it('has raised the mark when a command fails, and says that the outcome is unknown', async () => {
    await client.set('{r}', 'text');
    const failing = { resource: 'r', keys: ['{r}'], commands: [['INCR', '{r}']] };
    await expect(guard.run(5n, failing)).rejects.toMatchObject({ outcome: 'unknown' });
    await expect(guard.run(4n, set('stale'))).rejects.toMatchObject({ code: 'stale' });
  });

  it('survives a flushed script cache', async () => {
    await guard.run(1n, set('a'));
    await client.script('FLUSH');
    await guard.run(2n, set('b'));
    expect(await client.get('{r}')).toBe('b');
  });

  it('keeps the mark without an expiry even when one was set on it', async () => {
    await guard.run(1n, set('a'));
    await client.expire('holdfast:mark:{r}', 100);
    await guard.run(2n, set('b'));
    expect(await client.ttl('holdfast:mark:{r}')).toBe(-1);
  });

  it('works through node-redis and through a bare function', async () => {
    const node = createClient({ url: server.url });
    await node.connect();
    try {
      const other = await RedisGuard.open(node);
      await other.run(5n, set('node'));
      await expect(guard.run(4n, set('x'))).rejects.toMatchObject({ code: 'stale' });
      const bare = await RedisGuard.open(([name, ...words]) => client.call(String(name), ...words));
      await bare.run(6n, set('bare'));
      await expect(other.run(5n, set('x'))).rejects.toMatchObject({ details: { mark: 6n } });
    } finally {
      node.destroy();
    }
  });

  it('refuses a Redis that may evict marks', async () => {
    await client.config('SET', 'maxmemory', '100mb');
    await client.config('SET', 'maxmemory-policy', 'allkeys-lru');
    try {
      await expect(RedisGuard.open(client)).rejects.toMatchObject({ code: 'guard-unfit' });
      await client.config('SET', 'maxmemory-policy', 'volatile-lru');
      await RedisGuard.open(client);
    } finally {
      await client.config('SET', 'maxmemory-policy', 'noeviction');
      await client.config('SET', 'maxmemory', '0');
    }
  });

  it('unmasks a client whose scripts always say yes', async () => {
    const liar = async (words: unknown[]): Promise<unknown> =>
      words[0] === 'INFO' ? 'maxmemory:0\r\n' : [1];
    await expect(RedisGuard.open(liar)).rejects.toThrow('admitted an older token');
  });

  it('says unknown when too few replicas confirm', async () => {
    const strict = await RedisGuard.open(client, { replicas: { count: 1, timeoutMs: 20 } });
    await expect(strict.run(1n, set('a'))).rejects.toMatchObject({ outcome: 'unknown' });
  });

  it('refuses an invented 2^62 where seals are required, and stays usable', async () => {
    const keys = sealKeySet([generateSealKey('k')]);
    const strict = await RedisGuard.open(client, {
      seal: { keys: lateKeys(keys).keys, required: true },
    });
    await expect(strict.run(2n ** 62n, set('x'))).rejects.toMatchObject({ code: 'token-unsealed' });
    const claims = { tenant: '', resource: 'r', holder: 'h', expiresAtMs: Date.now() + 60_000 };
    await strict.run(sealToken(keys, { ...claims, token: 3n }), set('sealed'));
    expect(await client.get('{r}')).toBe('sealed');
  });
});
