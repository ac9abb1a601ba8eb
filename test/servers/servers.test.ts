import { describe, expect, it } from 'vitest';
import { startNginx, startVarnish } from './cache.ts';
import { installed } from './daemon.ts';
import { startEtcd, startEtcdCluster } from './etcd.ts';
import { postgresCommands, startPgBouncer, startPostgres } from './postgres.ts';
import { startRedis } from './redis.ts';

const alive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

describe.skipIf(!installed(...postgresCommands, 'pgbouncer'))('PostgreSQL (Debian)', () => {
  it('answers, keeps its data across kill and restart, and is gone after stop', async () => {
    const first = await startPostgres();
    expect((await first.psql('create table t as select 7 as n')).code).toBe(0);
    await first.kill();
    const second = await first.restart();
    expect((await second.psql('select n from t')).stdout).toBe('7');
    const pooler = await startPgBouncer(second);
    expect(pooler.output()).toContain('pgbouncer');
    await pooler.stop();
    await second.stop();
    expect([alive(first.pid), alive(second.pid), alive(pooler.pid)]).toEqual([false, false, false]);
  });
});

describe.skipIf(!installed('redis-server'))('Redis (Debian)', () => {
  it('starts again on the same port after a kill', async () => {
    const first = await startRedis({ appendFsync: 'always' });
    await first.kill();
    const second = await first.restart();
    expect(second.port).toBe(first.port);
    await second.stop();
    expect(alive(second.pid)).toBe(false);
  });
});

describe.skipIf(!installed('etcd'))('etcd (Debian)', () => {
  it('serves alone and as three members', async () => {
    const alone = await startEtcd();
    await alone.stop();
    const cluster = await startEtcdCluster();
    const health = await Promise.all(cluster.urls.map((url) => fetch(`${url}/health`)));
    expect(health.map(({ status }) => status)).toEqual([200, 200, 200]);
    await cluster.stop();
  });
});

describe.skipIf(!installed('nginx', 'varnishd'))('caches (Debian)', () => {
  it('nginx answers as configured and Varnish stands before it', async () => {
    const nginx = await startNginx(
      ({ port }) => `server { listen 127.0.0.1:${port}; location / { return 200 "origin"; } }`,
    );
    const varnish = await startVarnish(
      `vcl 4.1; backend default { .host = "127.0.0.1"; .port = "${nginx.port}"; }`,
    );
    expect(await (await fetch(varnish.url)).text()).toBe('origin');
    await varnish.stop();
    await nginx.stop();
  });
});
