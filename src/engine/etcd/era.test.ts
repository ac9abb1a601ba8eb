/** The era on a real etcd: how it rises, and how a cluster that went back in time is found out. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import { type Etcd, startEtcd } from '../../../test/servers/etcd.ts';
import { startProxy } from '../../../test/servers/proxy.ts';
import { utf8 } from '../../base/bytes.ts';
import { makeToken, type Token } from '../../model/token.ts';
import type { Engine } from '../contract.ts';
import { open } from './open.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function server(): Promise<Etcd> {
  const started = await startEtcd();
  undo.push(() => started.stop());
  return started;
}

async function engineAt(port: number): Promise<Engine> {
  const engine = await open(`etcd://127.0.0.1:${port}`);
  undo.push(() => engine.close());
  return engine;
}

let keys = 0;

/** What a lock does: claims a fresh key on a lease. */
async function grant(engine: Engine, lease: bigint): Promise<Token> {
  const key = utf8(`claim-${++keys}`);
  const { header } = await engine.txn({
    compare: [{ key, target: 'create', result: '=', value: 0 }],
    success: [{ type: 'put', key, lease }],
  });
  return makeToken(header.era, header.revision);
}

describe.skipIf(!installed('etcd'))('with a real etcd', () => {
  it('tokens only rise while many lift the era and others are granted', async () => {
    const { port } = await server();
    const engines = await Promise.all([1, 2, 3, 4].map(() => engineAt(port)));
    const { id } = await engines[0]!.grantLease({ ttlMs: 60_000 });
    const lifting = [3, 1, 5, 2].map((era, i) => engines[i]!.liftEra(era));
    const granting = engines.map(async (engine) => {
      const tokens: Token[] = [];
      for (let i = 0; i < 25; i++) tokens.push(await grant(engine, id));
      return tokens;
    });
    const headers = await Promise.all(lifting);
    expect(headers.map(({ era }, i) => era >= [3, 1, 5, 2][i]!)).toEqual([true, true, true, true]);
    for (const tokens of await Promise.all(granting)) {
      expect(tokens).toEqual([...tokens].sort((a, b) => (a < b ? -1 : 1)));
    }
    const last = await grant(engines[3]!, id);
    for (const engine of engines) expect(await grant(engine, id)).toBeGreaterThan(last - 1n);
    expect(last).toBeGreaterThan(makeToken(5, 1));
  });

  it('a grant whose comparison fails is told from one that met a lifted era', async () => {
    const { port } = await server();
    const [one, other] = [await engineAt(port), await engineAt(port)];
    const { id } = await one.grantLease({ ttlMs: 60_000 });
    const key = utf8('taken');
    const claim = {
      compare: [{ key, target: 'create', result: '=', value: 0 }],
      success: [{ type: 'put', key, lease: id }],
      failure: [{ type: 'range', key }],
    } as const;
    await one.liftEra(2);
    const first = await other.txn(claim);
    expect([first.succeeded, first.header.era]).toEqual([true, 2]);
    const second = await one.txn(claim);
    expect([second.succeeded, second.results[0]?.type]).toEqual([false, 'range']);
  });

  it('a store that was reset is refused until the era is lifted above', async () => {
    const etcd = await server();
    const engine = await engineAt(etcd.port);
    const { id } = await engine.grantLease({ ttlMs: 60_000 });
    for (let i = 0; i < 5; i++) await grant(engine, id);
    const before = await grant(engine, id);
    await etcd.kill();
    await rm(join(etcd.directory, 'data'), { recursive: true });
    const reset = await etcd.restart();
    undo.push(() => reset.stop());
    const regressed = { code: 'era-regressed' };
    await expect(engine.range({ key: utf8('x') })).rejects.toMatchObject(regressed);
    // Sticky, also when the revision has come as far again.
    const fresh = await engineAt(reset.port);
    for (let i = 0; i < 10; i++) await fresh.txn({ success: [{ type: 'put', key: utf8('x') }] });
    await expect(grant(engine, id)).rejects.toMatchObject(regressed);
    await expect(engine.keepAlive(id)).rejects.toMatchObject(regressed);
    await engine.liftEra(1);
    const lease = await engine.grantLease({ ttlMs: 60_000 });
    expect(await grant(engine, lease.id)).toBeGreaterThan(before);
    // Whoever had seen nothing learns of it with the next grant.
    expect(await grant(fresh, lease.id)).toBeGreaterThan(before);
  });

  it('another cluster behind the same address is refused', async () => {
    const [one, other] = [await server(), await server()];
    const proxy = await startProxy(one.port);
    undo.push(() => proxy.close());
    const engine = await engineAt(proxy.port);
    const direct = await engineAt(other.port);
    for (let i = 0; i < 20; i++) await direct.txn({ success: [{ type: 'put', key: utf8('x') }] });
    await engine.txn({ success: [{ type: 'put', key: utf8('x') }] });
    proxy.target = other.port;
    proxy.cut();
    const failure = await eventually(() => engine.range({ key: utf8('x') }));
    expect(failure).toMatchObject({ code: 'era-regressed' });
    expect(String(failure)).toContain('identity');
  });
});

/** The error once it is another than that of the broken connection. */
async function eventually(call: () => Promise<unknown>): Promise<unknown> {
  for (let i = 0; i < 20; i++) {
    const error = await call().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (error && (error as { code?: string }).code !== 'unavailable') return error;
  }
  return undefined;
}
