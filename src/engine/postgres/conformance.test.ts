import pg from 'pg';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import {
  type PgBouncer,
  type Postgres,
  postgresCommands,
  startPgBouncer,
  startPostgres,
} from '../../../test/servers/postgres.ts';
import { utf8 } from '../../base/bytes.ts';
import { runConformance } from '../../testing/conformance/run.ts';
import type { Fixture, Open } from '../../testing/conformance/suite.ts';
import type { Engine } from '../contract.ts';
import { openPostgresEngine, type PostgresConnection } from './open.ts';
import { CONFORMANCE_SKIPS } from './skips.ts';

const LEASE_MS_MIN = 500;
let cases = 0;

/** All cases share one schema with all that came before, as processes share a database in use. */
function openOn(connection: () => PostgresConnection): Open {
  return async (): Promise<Fixture> => {
    const open = (): Promise<Engine> =>
      openPostgresEngine({ ...connection(), leaseTtlMsMin: LEASE_MS_MIN });
    let engine = await open();
    return {
      engine,
      prefix: utf8(`case-${++cases}/`),
      reopen: async () => {
        await engine.close();
        engine = await open();
        return engine;
      },
      dispose: () => engine.close(),
    };
  };
}

const framework = { describe, it };

describe.skipIf(!installed(...postgresCommands, 'pgbouncer'))('with a real PostgreSQL', () => {
  let server: Postgres;
  let bouncer: PgBouncer;
  let direct: pg.Pool;
  let pooled: pg.Pool;

  beforeAll(async () => {
    server = await startPostgres();
    bouncer = await startPgBouncer(server, { poolSize: 3 });
    direct = new pg.Pool({ connectionString: server.url, max: 8 });
    pooled = new pg.Pool({ connectionString: bouncer.url, max: 8 });
  });

  afterAll(async () => {
    await Promise.all([direct?.end(), pooled?.end()]);
    await bouncer?.stop();
    await server?.stop();
  });

  runConformance(framework, {
    name: 'pg on the server itself, woken by notifications,',
    open: openOn(() => ({ pool: direct, direct: true })),
    skip: CONFORMANCE_SKIPS,
  });
  runConformance(framework, {
    name: 'pg through PgBouncer in transaction mode, polling,',
    open: openOn(() => ({ pool: pooled })),
    skip: CONFORMANCE_SKIPS,
  });
});
