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
import { systemClock } from '../../base/system.ts';
import { passReally } from '../../testing/recipes/real-stage.ts';
import { runRecipes } from '../../testing/recipes/run.ts';
import type { OpenStage } from '../../testing/recipes/world.ts';
import { openPostgresEngine, type PostgresConnection } from './open.ts';

/** Long enough that a busy machine does not lose a session for want of a turn. */
const TTL_MS = 3_000;
let stages = 0;

function stagedOn(connection: () => PostgresConnection): OpenStage {
  return async () => {
    // A schema of its own: some cases expect an era that nobody has lifted before.
    const engine = await openPostgresEngine({ ...connection(), schema: `case_${++stages}` });
    return {
      ...{ engine, clock: systemClock, namespace: '', ttlMs: TTL_MS },
      pass: passReally,
      dispose: () => engine.close(),
    };
  };
}

/** Cases wait for leases in real time, so they wait together. */
const framework = { describe, it: it.concurrent };

describe.skipIf(!installed(...postgresCommands, 'pgbouncer'))('on a real PostgreSQL', () => {
  let server: Postgres;
  let bouncer: PgBouncer;
  let direct: pg.Pool;
  let pooled: pg.Pool;

  beforeAll(async () => {
    server = await startPostgres();
    bouncer = await startPgBouncer(server, { poolSize: 4 });
    direct = new pg.Pool({ connectionString: server.url, max: 30 });
    pooled = new pg.Pool({ connectionString: bouncer.url, max: 30 });
  });

  afterAll(async () => {
    await Promise.all([direct?.end(), pooled?.end()]);
    await bouncer?.stop();
    await server?.stop();
  });

  runRecipes(framework, {
    name: 'postgres, woken by notifications',
    open: stagedOn(() => ({ pool: direct, direct: true })),
  });
  describe.skipIf(!process.env.HOLDFAST_TEST_LONG)('(long: HOLDFAST_TEST_LONG=1)', () => {
    runRecipes(framework, {
      name: 'postgres through PgBouncer in transaction mode',
      open: stagedOn(() => ({ pool: pooled })),
    });
  });
});
