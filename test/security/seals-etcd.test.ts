/** Sealed tokens where the store is a real etcd: two servers before it, and the etcd by itself. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect, openEngine } from '../../src/client.ts';
import type { Engine } from '../../src/engine/contract.ts';
import { fetchSealKeys } from '../../src/guard/fetched-seal-keys.ts';
import { verifySeal } from '../../src/guard/seal.ts';
import { type RunningServer, serve } from '../../src/server/serve.ts';
import { installed } from '../servers/daemon.ts';
import { type Etcd, startEtcd } from '../servers/etcd.ts';

describe.skipIf(!installed('etcd'))('before an etcd', () => {
  let etcd: Etcd;
  const engines: Engine[] = [];
  const servers: RunningServer[] = [];

  beforeAll(async () => {
    etcd = await startEtcd();
    for (let at = 0; at < 2; at++) {
      const engine = await openEngine(`etcd://127.0.0.1:${etcd.port}`);
      engines.push(engine);
      servers.push(await serve({ engine, listen: { port: 0 } }));
    }
  });

  afterAll(async () => {
    for (const server of servers) await server.close();
    for (const engine of engines) await engine.close();
    await etcd?.stop();
  });

  test('two servers seal as one authority, and go on so when one of them rotates', async () => {
    const [a, b] = servers as [RunningServer, RunningServer];
    const keys = await fetchSealKeys(b.url);
    const hf = await connect(`etcd://127.0.0.1:${a.port}`);
    const grant = await hf.lock('orders/42').acquire();
    const before = await grant.sealedToken();
    const other = await connect(`etcd://127.0.0.1:${b.port}`);
    const { keyId } = await other.engine.sealer!.rotate();
    const after = await grant.sealedToken({ anew: true });
    expect(after.seal.split('.')[1]).toBe(keyId);
    for (const { seal, token } of [before, after]) {
      const claims = verifySeal(keys, seal, { resource: 'orders/42', token }, Date.now());
      expect(claims.token).toBe(grant.token);
    }
    await hf.close();
    await other.close();
  });

  test('the claim of a client that knows only etcd is sealed by a server', async () => {
    const plain = await connect(`etcd://127.0.0.1:${etcd.port}`);
    const grant = await plain.lock('orders/43').acquire();
    const hf = await connect(`etcd://127.0.0.1:${servers[0]!.port}`);
    const { key, token, session } = grant;
    const sealed = await hf.engine.sealer!.seal({ key, token, lease: session.id });
    expect(sealed).toMatchObject({ token, resource: 'orders/43' });
    // The etcd itself has nobody to sign.
    await expect(grant.sealedToken()).rejects.toMatchObject({ code: 'unsupported' });
    await plain.close();
    await hf.close();
  });
});
