import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { lateKeys } from '../../../test/late-keys.ts';
import { installed } from '../../../test/servers/daemon.ts';
import {
  type PgBouncer,
  type Postgres,
  postgresCommands,
  startPgBouncer,
  startPostgres,
} from '../../../test/servers/postgres.ts';
import { generateSealKey, sealKeySet, sealToken } from '../seal.ts';
import { PostgresGuard, protectRows, protectTable } from './guard.ts';
import { drizzleQuery, type Transaction } from './query.ts';

const lacking = !installed(...postgresCommands, 'pgbouncer');

describe.skipIf(lacking)('the PostgreSQL guard on a real server (Debian postgresql-15)', () => {
  let server: Postgres;
  let pooler: PgBouncer;
  let pool: pg.Pool;
  let guard: PostgresGuard;

  beforeAll(async () => {
    server = await startPostgres();
    pooler = await startPgBouncer(server);
    pool = new pg.Pool({ connectionString: server.url, max: 8 });
    await PostgresGuard.install(pool);
    guard = await PostgresGuard.open(pool);
  });

  afterAll(async () => {
    await pool?.end();
    await pooler?.stop();
    await server?.stop();
  });

  beforeEach(async () => {
    await pool.query('drop table if exists seat, account');
    await pool.query('truncate holdfast_guard.mark');
    await pool.query('create table seat (id text primary key, owner text)');
    await pool.query('create table account (id text primary key, balance int)');
  });

  async function transaction<T>(body: (tx: pg.PoolClient) => Promise<T>, from = pool): Promise<T> {
    const tx = await from.connect();
    try {
      await tx.query('begin');
      const result = await body(tx);
      await tx.query('commit');
      return result;
    } catch (error) {
      await tx.query('rollback');
      throw error;
    } finally {
      tx.release();
    }
  }

  it('refuses an older token, says so, and nothing of its transaction stays', async () => {
    await transaction((tx) => guard.admit(tx, { token: 34n, holder: 'worker-2' }, 'seat/1'));
    const stale = transaction(async (tx) => {
      await tx.query(`insert into account values ('a', 1)`);
      await guard.admit(tx, 33n, 'seat/1');
    });
    await expect(stale).rejects.toMatchObject({
      code: 'stale',
      details: { token: 33n, mark: 34n },
    });
    await expect(stale).rejects.toThrow(/^stale: token 33 < mark 34 \(raised by worker-2 at 20/);
    expect((await pool.query('select * from account')).rowCount).toBe(0);
    expect(await guard.mark(pool, 'seat/1')).toBe(34n);
  });

  it('compares tokens beyond 2^53 exactly, and each once where that is the rule', async () => {
    const once = { rule: 'once' } as const;
    await transaction((tx) => guard.admit(tx, 2n ** 53n + 1n, 'r', once));
    for (const token of [2n ** 53n, 2n ** 53n + 1n]) {
      await expect(transaction((tx) => guard.admit(tx, token, 'r', once))).rejects.toMatchObject({
        code: 'stale',
      });
    }
    expect(await transaction((tx) => guard.admit(tx, 2n ** 63n - 1n, 'r'))).toBe(2n ** 63n - 1n);
  });

  it('forgets a mark whose transaction was rolled back, also to a savepoint', async () => {
    await protectTable(pool, 'seat', 'seats');
    await transaction(async (tx) => {
      await tx.query('savepoint s');
      await guard.admit(tx, 50n, 'seats');
      await tx.query('rollback to savepoint s');
      await tx.query('savepoint t');
      await expect(tx.query(`insert into seat values ('1', 'x')`)).rejects.toMatchObject({
        code: 'HF002',
      });
      await tx.query('rollback to savepoint t');
    });
    expect(await guard.mark(pool, 'seats')).toBe(0n);
  });

  it('lets the newer token wait for the effect of the older, never the reverse', async () => {
    const older = await pool.connect();
    await older.query('begin');
    await guard.admit(older, 33n, 'r');
    const order: string[] = [];
    const newer = transaction((tx) => guard.admit(tx, 34n, 'r')).then(() => order.push('newer'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    order.push('older');
    await older.query('commit');
    older.release();
    await newer;
    expect(order).toEqual(['older', 'newer']);
  });

  it('ends at the greatest token when many race', async () => {
    const tokens = Array.from({ length: 40 }, (_, i) => BigInt((i * 17) % 40) + 1n);
    const admitted: bigint[] = [];
    await Promise.all(
      tokens.map((token) =>
        transaction(async (tx) => {
          await guard.admit(tx, token, 'race');
          await tx.query(`insert into account values ($1, 1)`, [String(token)]);
        }).then(
          () => admitted.push(token),
          () => {},
        ),
      ),
    );
    expect(await guard.mark(pool, 'race')).toBe(40n);
    expect(admitted).toContain(40n);
    expect((await pool.query('select * from account')).rowCount).toBe(admitted.length);
  });

  it('refuses a protected table to plain psql, and says what to do', async () => {
    await protectTable(pool, 'seat', 'seats');
    for (const statement of [
      `insert into seat values ('1', 'ghost')`,
      `update seat set owner = 'ghost'`,
      'delete from seat',
      'truncate seat',
    ]) {
      const { code, stderr } = await server.psql(statement);
      expect(code).not.toBe(0);
      expect(stderr).toContain("table seat is protected: no token has passed for 'seats'");
      expect(stderr).toContain(`select holdfast_guard.admit('seats', TOKEN)`);
    }
    const passing = await server.psql(
      `begin; select holdfast_guard.admit('seats', 34); insert into seat values ('1', 'p'); commit`,
    );
    expect(passing).toMatchObject({ code: 0 });
    expect((await server.psql(`update seat set owner = 'ghost'`)).code).not.toBe(0);
    const stale = await server.psql(
      `begin; select holdfast_guard.admit('seats', 33); update seat set owner = 'x'; commit`,
    );
    expect(stale.stderr).toContain('stale: token 33 < mark 34');
    expect((await server.psql('select owner from seat')).stdout).toBe('p');
  });

  it('protects row by row: each row has its own mark, and moving one needs both', async () => {
    await protectRows(pool, 'seat', { prefix: 'seat/', column: 'id' });
    await transaction(async (tx) => {
      await guard.admit(tx, 10n, 'seat/1');
      await tx.query(`insert into seat values ('1', 'a')`);
      await tx.query('savepoint s');
      await expect(tx.query(`insert into seat values ('2', 'a')`)).rejects.toThrow("'seat/2'");
      await tx.query('rollback to savepoint s');
      await expect(tx.query(`update seat set id = '2'`)).rejects.toThrow("'seat/2'");
      await tx.query('rollback to savepoint s');
      await expect(tx.query('truncate seat')).rejects.toThrow('cannot be truncated');
      await tx.query('rollback to savepoint s');
      await guard.admit(tx, 3n, 'seat/2');
      await tx.query(`update seat set id = '2'`);
    });
    expect((await server.psql('select id from seat')).stdout).toBe('2');
  });

  it('cannot be talked into a pass by a role that may only write the table', async () => {
    await protectTable(pool, 'seat', 'seats');
    await pool.query(
      `do $$ begin create role app; exception when duplicate_object then null; end $$`,
    );
    await pool.query('grant all on seat to app');
    const { stderr } = await server.psql(`set role app; update holdfast_guard.mark set mark = 0`);
    expect(stderr).toContain('permission denied');
    const forged = await server.psql(
      `set role app; begin; select set_config('holdfast.passed', 'seats', true);
       insert into seat values ('1', 'ghost'); commit`,
    );
    expect(forged.stderr).toContain('is protected');
    const allowed = await server.psql(
      `set role app; begin; select holdfast_guard.admit('seats', 5); insert into seat values ('1', 'a'); commit`,
    );
    expect(allowed.code).toBe(0);
  });

  it('leaks no pass to the next transaction of a pooled connection (PgBouncer)', async () => {
    await protectTable(pool, 'seat', 'seats');
    const pooled = new pg.Pool({ connectionString: pooler.url, max: 10 });
    try {
      const behind = await PostgresGuard.open(pooled);
      await Promise.all(
        Array.from({ length: 30 }, async (_, i) => {
          if (i % 2) {
            await transaction(async (tx) => {
              await behind.admit(tx, 7n, 'seats');
              await tx.query('insert into seat values ($1, $2)', [`with-${i}`, 'a']);
            }, pooled);
          } else {
            const bare = pooled.query('insert into seat values ($1, $2)', [`without-${i}`, 'a']);
            await expect(bare).rejects.toMatchObject({ code: 'HF002' });
          }
        }),
      );
      const { rows } = await pool.query(`select count(*)::int as n from seat`);
      expect(rows).toEqual([{ n: 15 }]);
    } finally {
      await pooled.end();
    }
  });

  it('fences readers: they hold off newer writers and shut out older ones', async () => {
    await transaction((tx) => guard.admit(tx, 10n, 'r'));
    const reader = await pool.connect();
    await reader.query('begin');
    await guard.admitRead(reader, 20n, 'r');
    let wrote = false;
    const writer = transaction((tx) => guard.admit(tx, 30n, 'r')).then(() => {
      wrote = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(wrote).toBe(false);
    await reader.query('commit');
    reader.release();
    await writer;
    await expect(transaction((tx) => guard.admitRead(tx, 20n, 'r'))).rejects.toThrow(
      'stale: token 20 < mark 30',
    );
    await transaction((tx) => guard.admitRead(tx, 40n, 'r'));
    await transaction((tx) => guard.admitRead(tx, 35n, 'r'));
    await expect(transaction((tx) => guard.admit(tx, 39n, 'r'))).rejects.toThrow(
      'stale: token 39 < mark 40',
    );
  });

  it('lets readers of one grant share', async () => {
    await transaction((tx) => guard.admitRead(tx, 20n, 'r'));
    const [one, two] = [await pool.connect(), await pool.connect()];
    try {
      await one.query('begin');
      await two.query('begin');
      await guard.admitRead(one, 20n, 'r');
      await guard.admitRead(two, 20n, 'r');
      await one.query('commit');
      await two.query('commit');
    } finally {
      one.release();
      two.release();
    }
  });

  it('refuses a pool, whose every query is a transaction of its own', async () => {
    await expect(guard.admit(pool, 1n, 'r')).rejects.toThrow('not the pool');
    const sqlClient = postgres(server.url, { max: 1 });
    await expect(guard.admit(sqlClient, 1n, 'r')).rejects.toThrow('not the pool');
    await sqlClient.end();
  });

  it('works in the transactions of postgres.js, Kysely, Drizzle and a bare function', async () => {
    await protectTable(pool, 'seat', 'seats');
    const attempt = async (
      run: (
        body: (tx: Transaction, insert: (id: string) => Promise<unknown>) => Promise<void>,
      ) => Promise<unknown>,
      name: string,
      token: bigint,
    ): Promise<void> => {
      await run(async (tx, insert) => {
        await guard.admit(tx, { token, holder: name }, 'seats');
        await insert(name);
      });
      const stale = run(async (tx, insert) => {
        await guard.admit(tx, token - 1n, 'seats');
        await insert(`${name}-stale`);
      });
      await expect(stale).rejects.toMatchObject({ code: 'stale', details: { mark: token } });
    };

    const client = postgres(server.url, { max: 2 });
    await attempt(
      (body) =>
        client.begin((tx) =>
          body(tx, async (id) => await tx`insert into seat values (${id}, 'p')`),
        ),
      'postgres.js',
      10n,
    );
    await client.end();

    const db = new Kysely<{ seat: { id: string; owner: string } }>({
      dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: server.url, max: 2 }) }),
    });
    await attempt(
      (body) =>
        db
          .transaction()
          .execute((tx) =>
            body(tx, (id) => tx.insertInto('seat').values({ id, owner: 'k' }).execute()),
          ),
      'kysely',
      20n,
    );
    await expect(guard.admit(db, 30n, 'seats')).rejects.toThrow('not the pool');
    await db.destroy();

    const orm = drizzle(pool);
    await attempt(
      (body) =>
        orm.transaction((tx) =>
          body(drizzleQuery(tx, sql), (id) =>
            tx.execute(sql`insert into seat values (${id}, 'd')`),
          ),
        ),
      'drizzle',
      40n,
    );
    await attempt(
      (body) =>
        transaction((tx) =>
          body(
            (text: string, params: unknown[]) => tx.query(text, params),
            (id) => tx.query(`insert into seat values ($1, 'f')`, [id]),
          ),
        ),
      'function',
      50n,
    );
    const { rows } = await pool.query('select id from seat order by id');
    expect(rows.map(({ id }) => id)).toEqual(['drizzle', 'function', 'kysely', 'postgres.js']);
  });

  it('admits only sealed tokens where that is required, and stays usable', async () => {
    const keys = sealKeySet([generateSealKey('k')]);
    const open = (): Promise<PostgresGuard> =>
      PostgresGuard.open(pool, { seal: { keys: lateKeys(keys).keys, required: true } });
    const strict = await open();
    await expect(transaction((tx) => strict.admit(tx, 2n ** 62n, 'r'))).rejects.toMatchObject({
      code: 'token-unsealed',
    });
    const claims = { tenant: '', resource: 'r', holder: 'h', expiresAtMs: Date.now() + 60_000 };
    const sealed = sealToken(keys, { ...claims, token: 7n });
    expect(await transaction((tx) => strict.admit(tx, sealed, 'r'))).toBe(7n);
    const reader = await open();
    expect(await transaction((tx) => reader.admitRead(tx, sealed, 'r'))).toBe(7n);
  });

  it('installs any number of times at once, and refuses a database without its objects', async () => {
    await Promise.all(Array.from({ length: 4 }, () => PostgresGuard.install(pool)));
    await pool.query('create database bare');
    const bare = new pg.Pool({ connectionString: server.url.replace(/postgres$/, 'bare'), max: 2 });
    try {
      await expect(PostgresGuard.open(bare)).rejects.toMatchObject({ code: 'guard-unfit' });
      await PostgresGuard.install(bare);
      await bare.query(
        `create or replace function holdfast_guard.admit(resource text, token bigint,
           rule text default 'reign', holder text default null) returns bigint
         language sql as 'select token'`,
      );
      await expect(PostgresGuard.open(bare)).rejects.toThrow('cannot be guarded: it admitted');
    } finally {
      await bare.end();
    }
  });
});
