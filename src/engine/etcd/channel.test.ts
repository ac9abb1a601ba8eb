/** Endpoints that fail, stall and ask who one is; on real etcd. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { locate } from '../../../scripts/packages.mjs';
import { freePort, freshDirectory, installed } from '../../../test/servers/daemon.ts';
import { type Etcd, startEtcd, startEtcdCluster } from '../../../test/servers/etcd.ts';
import { utf8 } from '../../base/bytes.ts';
import type { Engine } from '../contract.ts';
import type { EtcdOptions } from './config.ts';
import { open } from './open.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function opened(url: string, options: EtcdOptions = {}): Promise<Engine> {
  const engine = await open(url, options);
  undo.push(() => engine.close());
  return engine;
}

function put(engine: Engine, name: string): Promise<unknown> {
  return engine.txn({ success: [{ type: 'put', key: utf8(name) }] });
}

describe.skipIf(!installed('etcd', 'etcdctl', 'openssl'))('with a real etcd', () => {
  it('an endpoint where nobody listens is passed over', async () => {
    const server = await startEtcd();
    undo.push(() => server.stop());
    const engine = await opened(`etcd://127.0.0.1:${await freePort()},127.0.0.1:${server.port}`);
    await put(engine, 'x');
    expect((await engine.range({ key: utf8('x') })).count).toBe(1);
  });

  it('a member that stalls is left in bounded time, and its watches with it', async () => {
    const cluster = await startEtcdCluster();
    undo.push(() => cluster.stop());
    const [stalled] = cluster.members;
    const url = `etcd://${cluster.urls.map((one) => new URL(one).host).join(',')}`;
    const engine = await opened(url, { attemptMs: 500 });
    const watch = engine.watch({ key: utf8('seen') });
    await watch.created;
    await put(engine, 'x');
    undo.push(() => stalled!.signal('SIGCONT'));
    await stalled!.standStill();
    const from = performance.now();
    // A read may be asked again elsewhere; also when the stalled member led the others.
    await engine.range({ key: utf8('x') });
    const other = await opened(`etcd://${new URL(cluster.urls[1]!).host}`);
    await put(other, 'seen');
    const step = await watch[Symbol.asyncIterator]().next();
    expect(step.done).toBe(false);
    // The attempt, an election at worst, and no silence of a whole keepalive.
    expect(performance.now() - from).toBeLessThan(6_500);
    await watch.close();
  });

  it('a write on a member that stalls is unknown, not repeated', async () => {
    const cluster = await startEtcdCluster();
    undo.push(() => cluster.stop());
    const url = `etcd://${cluster.urls.map((one) => new URL(one).host).join(',')}`;
    const engine = await opened(url, { attemptMs: 300 });
    // All of them, whichever it is on: a repetition elsewhere waits there, and shows at the end.
    const goOn = (): void => {
      for (const member of cluster.members) member.signal('SIGCONT');
    };
    undo.push(goOn);
    await Promise.all(cluster.members.map((member) => member.standStill()));
    const begun = performance.now();
    await expect(put(engine, 'once')).rejects.toMatchObject({ outcome: 'unknown' });
    expect(performance.now() - begun).toBeLessThan(5_000);
    goOn();
    for (const one of cluster.urls) await put(await opened(`etcd://${new URL(one).host}`), 'after');
    const found = await engine.range({ key: utf8('once') });
    expect(found.kvs[0]?.version ?? 1).toBe(1);
  });

  it('a token that the server does not know any more is fetched anew', async () => {
    const server = await startEtcd();
    undo.push(() => server.stop());
    const ctl = (...args: string[]): void => etcdctl(server, args);
    ctl('user', 'add', 'root:secret');
    ctl('user', 'grant-role', 'root', 'root');
    ctl('auth', 'enable');
    const at = `127.0.0.1:${server.port}`;
    const engine = await opened(`etcd://root:secret@${at}`);
    await put(engine, 'x');
    await expect(open(`etcd://root:wrong@${at}`)).rejects.toMatchObject({
      code: 'unauthenticated',
    });
    await server.kill();
    // Simple tokens live in memory only.
    const again = await server.restart();
    undo.push(() => again.stop());
    const read = await Promise.all([1, 2, 3].map(() => engine.range({ key: utf8('x') })));
    expect(read.map(({ count }) => count)).toEqual([1, 1, 1]);
    await put(engine, 'y');
  });

  it('TLS with client certificates: known ones enter, others stay outside', async () => {
    const { args, tls } = certificates(freshDirectory('etcd-tls'));
    const server = await startEtcd({ scheme: 'https', args });
    undo.push(() => server.stop());
    const url = `etcds://127.0.0.1:${server.port}`;
    const engine = await opened(url, { tls });
    await put(engine, 'x');
    const quick = { callTimeoutMs: 1_000 };
    await expect(open(url, { ...quick, tls: { ca: tls.ca } })).rejects.toThrow();
    await expect(open(url, { ...quick, tls: { cert: tls.cert, key: tls.key } })).rejects.toThrow();
  });
});

function etcdctl(server: Etcd, args: readonly string[]): void {
  const { status, stderr } = spawnSync(
    locate('etcdctl') ?? 'etcdctl',
    ['--endpoints', server.url, ...args],
    { env: { ...process.env, ETCDCTL_API: '3' }, encoding: 'utf8', timeout: 30_000 },
  );
  if (status !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${stderr}`);
}

interface Certificates {
  readonly args: readonly string[];
  readonly tls: { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer };
}

/** An authority of our own, and one certificate for both sides. */
function certificates(directory: string): Certificates {
  const file = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): void => {
    const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`);
  };
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  writeFileSync(
    file('ext'),
    'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n',
  );
  const ca = ['-keyout', file('ca.key'), '-out', file('ca.crt'), '-subj', '/CN=ca'];
  openssl('req', '-x509', ...ec, ...ca, '-days', '2');
  openssl('req', ...ec, '-keyout', file('key'), '-out', file('csr'), '-subj', '/CN=holdfast');
  const signed = ['-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-CAcreateserial'];
  const out = ['-out', file('crt'), '-days', '2', '-extfile', file('ext')];
  openssl('x509', '-req', '-in', file('csr'), ...signed, ...out);
  return {
    args: [
      ...['--cert-file', file('crt'), '--key-file', file('key')],
      ...['--trusted-ca-file', file('ca.crt'), '--client-cert-auth'],
    ],
    tls: {
      ca: readFileSync(file('ca.crt')),
      cert: readFileSync(file('crt')),
      key: readFileSync(file('key')),
    },
  };
}
