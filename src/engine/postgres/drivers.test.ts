import { PGlite } from '@electric-sql/pglite';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import {
  type PgBouncer,
  type Postgres,
  postgresCommands,
  startPgBouncer,
  startPostgres,
} from '../../../test/servers/postgres.ts';
import { utf8 } from '../../base/bytes.ts';
import { conformanceCases } from '../../testing/conformance/cases.ts';
import { runCase, skipReason } from '../../testing/conformance/run.ts';
import type { Open } from '../../testing/conformance/suite.ts';
import { NotSentError, sqlState } from './driver.ts';
import { faultOf } from './faults.ts';
import { open, openPostgresEngine, type PostgresConnection, type PostgresOptions } from './open.ts';
import { CONFORMANCE_SKIPS } from './skips.ts';

/** A share of the cases: a driver moves text, and the suite in full runs on `pg`. */
const SHARE = 4;
let cases = 0;

async function conform(connection: PostgresConnection & PostgresOptions): Promise<void> {
  const opened: Open = async () => {
    const connect = () => openPostgresEngine({ ...connection, leaseTtlMsMin: 500 });
    let engine = await connect();
    return {
      engine,
      prefix: utf8(`driver-${++cases}/`),
      reopen: async () => {
        await engine.close();
        engine = await connect();
        return engine;
      },
      dispose: () => engine.close(),
    };
  };
  const chosen = conformanceCases()
    .filter((one) => skipReason(one, CONFORMANCE_SKIPS) === undefined)
    .filter((_, i) => i % SHARE === 0);
  expect(chosen.length).toBeGreaterThan(30);
  for (const one of chosen) {
    await runCase(one, opened).catch((error: unknown) => {
      throw new Error(`${one.group}: ${one.name}`, { cause: error });
    });
  }
}

describe('PGlite, the embedded form', () => {
  test('keeps the engine contract on its one connection', async () => {
    const pglite = await PGlite.create();
    try {
      // In memory there is no disk to sync to; that is what the test says it accepts.
      await conform({ pglite, allowUnsafe: true });
    } finally {
      await pglite.close();
    }
  }, 180_000);
});

describe.skipIf(!installed(...postgresCommands, 'pgbouncer'))('drivers on a real server', () => {
  let server: Postgres;
  let bouncer: PgBouncer;

  beforeAll(async () => {
    server = await startPostgres();
    bouncer = await startPgBouncer(server, { poolSize: 3 });
  });

  afterAll(async () => {
    await bouncer?.stop();
    await server?.stop();
  });

  test('postgres.js keeps the engine contract on the server itself', async () => {
    const sql = postgres(server.url, { max: 5 });
    await conform({ sql, direct: true });
    await sql.end({ timeout: 1 });
  });

  test('postgres.js keeps the engine contract through PgBouncer in transaction mode', async () => {
    const sql = postgres(bouncer.url, { max: 5, prepare: false, fetch_types: false });
    await conform({ sql });
    await sql.end({ timeout: 1 });
  });

  test('a URL opens with the pg that is installed, and leaves no connection behind', async () => {
    const engine = await open(server.url, { direct: true, schema: 'by_url' });
    const { header } = await engine.txn({ success: [{ type: 'put', key: utf8('k') }] });
    expect(header.revision).toBe(2);
    await engine.close();
    const count = `select count(*) from pg_stat_activity where application_name = 'holdfast'`;
    const left = async (): Promise<string> => (await server.psql(count)).stdout;
    await expect.poll(left, { timeout: 5_000 }).toBe('0');
  });

  test('nothing stays on a connection of a pooler: no setting, lock, listener or statement', async () => {
    const pool = new pg.Pool({ connectionString: bouncer.url, max: 4 });
    const engine = await openPostgresEngine({ pool, schema: 'traces' });
    await engine.txn({ success: [{ type: 'put', key: utf8('k') }] });
    await engine.range({ key: utf8('k') });
    const state = await pool.query(
      `select current_setting('statement_timeout') as timeout,
        current_setting('enable_seqscan') as plan,
        (select count(*)::int from pg_locks where locktype = 'advisory') as locks,
        (select count(*)::int from pg_listening_channels()) as channels,
        (select count(*)::int from pg_prepared_statements) as statements`,
    );
    expect(state.rows[0]).toEqual({
      ...{ timeout: '0', plan: 'on', locks: 0, channels: 0, statements: 0 },
    });
    await engine.close();
    await pool.end();
  });
});

describe('what a failure means', () => {
  const withCode = (code: string): Error => Object.assign(new Error(code), { code });

  test('a code of the system is not taken for one of the server', () => {
    expect(sqlState(withCode('40001'))).toBe('40001');
    for (const code of ['EPIPE', 'ECONNRESET', 'CONNECTION_CLOSED']) {
      expect(sqlState(withCode(code))).toBeUndefined();
    }
  });

  test.each([
    ['40001', false, true],
    ['40P01', false, true],
    ['57014', false, true],
    ['25006', false, true],
    ['57P01', true, true],
    ['57P02', true, true],
    ['08006', true, true],
    ['ECONNRESET', true, true],
    ['53100', false, false],
    ['42501', false, false],
    ['22P02', false, false],
  ])('%s: applied perhaps %s, again %s', (code, maybe, retry) => {
    expect(faultOf(withCode(code))).toMatchObject({ maybe, retry });
  });

  test('what was never sent was never applied', () => {
    expect(faultOf(new NotSentError(withCode('ECONNRESET')))).toMatchObject({
      ...{ code: 'unavailable', maybe: false, retry: true },
    });
  });
});
