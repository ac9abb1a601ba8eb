/** The audit log is a chain on every engine, also when two servers before one store write at once. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import { expect, test } from 'vitest';
import type { Engine } from '../../src/engine/contract.ts';
import { open as openEtcd } from '../../src/engine/etcd/open.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import { openPostgresEngine } from '../../src/engine/postgres/index.ts';
import { ChainCheck } from '../../src/model/audit-chain.ts';
import { serve } from '../../src/server/serve.ts';
import { AuthorityService, AuthService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { installed } from '../servers/daemon.ts';
import { startEtcd } from '../servers/etcd.ts';

interface Store {
  /** As many as wanted on an engine that several processes may open; otherwise the one. */
  open(): Promise<Engine>;
  dispose(): Promise<void>;
}

const STORES: Readonly<Record<string, () => Promise<Store>>> = {
  LMDB: async () => {
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-audit-'));
    const engine = await openLmdbEngine(join(directory, 'data'));
    const dispose = async (): Promise<void> => {
      await engine.close();
      rmSync(directory, { recursive: true, force: true });
    };
    return { open: async () => engine, dispose };
  },
  PGlite: async () => {
    const pglite = await PGlite.create();
    const engine = await openPostgresEngine({ pglite, allowUnsafe: true });
    const dispose = async (): Promise<void> => {
      await engine.close();
      await pglite.close();
    };
    return { open: async () => engine, dispose };
  },
  etcd: async () => {
    const server = await startEtcd();
    const engines: Engine[] = [];
    const open = async (): Promise<Engine> => {
      const engine = await openEtcd(server.url.replace('http', 'etcd'));
      engines.push(engine);
      return engine;
    };
    const dispose = async (): Promise<void> => {
      for (const engine of engines) await engine.close();
      await server.stop();
    };
    return { open, dispose };
  },
};

for (const [name, openStore] of Object.entries(STORES)) {
  test.skipIf(name === 'etcd' && !installed('etcd'))(
    `${name}: two servers write one unbroken chain, which is pruned and still verifies`,
    async () => {
      const store = await openStore();
      try {
        await share(store);
      } finally {
        await store.dispose();
      }
    },
    180_000,
  );
}

async function share(store: Store): Promise<void> {
  const listen = { port: 0 };
  await using one = await serve({ engine: await store.open(), listen, name: 'one' });
  await using two = await serve({ engine: await store.open(), listen, name: 'two' });
  const clients = [one, two].map(({ port }) => new GrpcClient({ port, deadlineMs: 30_000 }));
  await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      i % 3 === 0
        ? clients[i % 2]!.unary(AuthorityService.LiftEra, { era: 1 + i })
        : clients[i % 2]!.unary(AuthService.RoleAdd, { name: `role-${i}` }),
    ),
  );
  for (const client of clients) client.destroy();
  const log = two.backend.audit.log!;
  const entries = await log.entries(1, 0);
  expect(entries.filter(({ act }) => act === 'role.add')).toHaveLength(8);
  expect(new Set(entries.map(({ server }) => server))).toEqual(new Set(['one', 'two']));
  expect(faultIn(entries)).toBeUndefined();
  await log.prune(9, {});
  expect(faultIn(await log.entries(1, 0))).toBeUndefined();
}

function faultIn(entries: Parameters<ChainCheck['add']>[0][]): ChainCheck['fault'] {
  const check = new ChainCheck((bytes) => createHash('sha256').update(bytes).digest());
  for (const entry of entries) check.add(entry);
  return check.end().fault;
}
