import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import { type Postgres, postgresCommands, startPostgres } from '../../../test/servers/postgres.ts';
import { type Bytes, text, utf8 } from '../../base/bytes.ts';
import { sleep } from '../../base/clock.ts';
import { systemClock } from '../../base/system.ts';
import { HoldfastError } from '../../model/errors.ts';
import { prefixRange } from '../../model/range.ts';
import type { PutOperation } from '../../model/transaction.ts';
import { agreeWithModel, describeAgreement } from '../../testing/random-histories.ts';
import type { Engine } from '../contract.ts';
import type { PgClient, PgPool } from './driver.ts';
import { openPostgresEngine, type PostgresOptions } from './open.ts';

const put = (key: Bytes, value = ''): PutOperation => ({ type: 'put', key, value: utf8(value) });

/** A pool on which the next messages of our own meet what `fate` says. */
class FaultyPool implements PgPool {
  readonly #pool: pg.Pool;
  /** Called for each batch of writes; answers what shall happen to it. */
  fate: () => 'pass' | 'lose-answer' | 'lose-question' = () => 'pass';
  sent = 0;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  async connect(): Promise<PgClient> {
    const client = await this.#pool.connect();
    const query = async (sql: string): Promise<unknown> => {
      if (!sql.includes('.apply_v1(')) return client.query(sql);
      this.sent++;
      const fate = this.fate();
      if (fate === 'lose-question') throw new Error('Connection terminated unexpectedly');
      const answer = await client.query(sql);
      if (fate === 'lose-answer') throw new Error('Connection terminated unexpectedly');
      return answer;
    };
    return {
      query,
      release: (destroy) => client.release(destroy),
      on: (event: string, listener: () => void) => client.on(event as 'end', listener),
      removeListener: (event, listener) => client.removeListener(event, listener),
    } as PgClient;
  }

  end = (): Promise<void> => this.#pool.end();
  on = (event: 'error' | 'connect', listener: (it: never) => void): unknown =>
    this.#pool.on(event as 'error', listener as () => void);
  removeListener = (event: string, listener: () => void): unknown =>
    this.#pool.removeListener(event as 'error', listener);
}

describe.skipIf(!installed(...postgresCommands))('the PostgreSQL engine', () => {
  let server: Postgres;
  let pool: pg.Pool;
  const opened: Engine[] = [];
  let schemas = 0;

  const open = async (options: PostgresOptions & { pool?: PgPool } = {}): Promise<Engine> => {
    const engine = await openPostgresEngine({ pool, ...options });
    opened.push(engine);
    return engine;
  };
  const freshSchema = (): string => `own_${++schemas}`;

  beforeAll(async () => {
    server = await startPostgres();
    pool = new pg.Pool({ connectionString: server.url, max: 20 });
  });

  afterAll(async () => {
    await Promise.all(opened.map((engine) => engine.close()));
    await pool?.end();
    await server?.stop();
  });

  test('agrees with the model on random histories', async () => {
    const agreement = await agreeWithModel({
      open: async () => {
        const engine = await open({ schema: freshSchema() });
        return { engine, prefix: utf8('m/'), dispose: () => engine.close() };
      },
      ...{ histories: 12, length: 60, seed: 5, shrink: false },
    });
    expect(agreement.agreed, describeAgreement(agreement)).toBe(true);
  });

  test('a batch whose answer is lost is applied once and answered as if nothing had been', async () => {
    const faulty = new FaultyPool(pool);
    const engine = await open({ pool: faulty, schema: freshSchema() });
    let turn = 0;
    faulty.fate = () => (['lose-answer', 'lose-question', 'pass'] as const)[turn++ % 3]!;
    const key = utf8('counter');
    for (let i = 0; i < 20; i++) {
      const { results } = await engine.txn({ success: [{ ...put(key, `${i}`), prevKv: true }] });
      const former = results[0]?.type === 'put' ? results[0].prevKv : undefined;
      expect(former && text(former.value)).toBe(i === 0 ? undefined : `${i - 1}`);
    }
    const { kvs } = await engine.range({ key });
    expect(kvs[0]?.version).toBe(20);
    expect(faulty.sent).toBeGreaterThan(40);
    const grants = await Promise.all([1, 2, 3].map(() => engine.grantLease({ ttlMs: 60_000 })));
    expect(await engine.operator?.leases()).toHaveLength(grants.length);
  });

  test('an answer longer than a client could leave unread under the lock comes all the same', async () => {
    const faulty = new FaultyPool(pool);
    const engine = await open({ pool: faulty, schema: freshSchema() });
    const key = utf8('big');
    await engine.txn({ success: [put(key, 'x'.repeat(300_000))] });
    faulty.fate = () => 'lose-answer';
    const lost = engine.txn({ success: [{ ...put(key, 'small'), prevKv: true }] });
    await sleep(systemClock, 30);
    faulty.fate = () => 'pass';
    const [result] = (await lost).results;
    expect(result?.type === 'put' && result.prevKv?.value.length).toBe(300_000);
    expect((await engine.range({ key })).kvs[0]?.version).toBe(2);
  });

  test('a write is unknown once it may have been applied, and rejected when it cannot have been', async () => {
    const faulty = new FaultyPool(pool);
    const schema = freshSchema();
    const engine = await open({ pool: faulty, schema, callTimeoutMs: 400 });
    const key = utf8('k');
    faulty.fate = () => 'lose-answer';
    const unknown = await engine.txn({ success: [put(key)] }).catch((error: unknown) => error);
    expect(unknown).toMatchObject({ code: 'deadline-exceeded', outcome: 'unknown' });
    // By one that is patient: this is not about how fast the database is.
    const patient = await open({ schema });
    expect((await patient.range({ key })).kvs[0]?.version).toBe(1);

    const closed = new pg.Pool({ connectionString: 'postgres://postgres@127.0.0.1:1/postgres' });
    const none = openPostgresEngine({ pool: closed, callTimeoutMs: 400 });
    await expect(none).rejects.toMatchObject({ code: 'unavailable', outcome: 'rejected' });
    await closed.end();
  });

  test('a request that the server refuses does not take its companions with it', async () => {
    const engine = await open({ schema: freshSchema() });
    const tooMuch = 2 ** 31 + 10;
    const odd = { key: utf8('a'), limit: 2 ** 70 };
    await engine.txn({ success: [put(utf8('a'))] });
    const [fine, strange] = await Promise.all([
      engine.txn({ success: [put(utf8('b'))] }),
      engine.range(odd),
      engine.txn({
        compare: [{ key: utf8('a'), target: 'version', result: '<', value: tooMuch }],
        success: [put(utf8('c'))],
      }),
    ]);
    expect(fine.succeeded).toBe(true);
    expect(strange.kvs).toHaveLength(1);
  });

  test('many engines add to one register without losing one addition', async () => {
    const schema = freshSchema();
    const engines = await Promise.all(Array.from({ length: 6 }, () => open({ schema })));
    const key = utf8('sum');
    await Promise.all(
      engines.flatMap((engine) =>
        Array.from({ length: 4 }, async () => {
          for (let done = 0; done < 10; ) {
            const { kvs } = await engine.range({ key });
            const value = kvs[0] ? Number(text(kvs[0].value)) : 0;
            const { succeeded } = await engine.txn({
              compare: [{ key, target: 'mod', result: '=', value: kvs[0]?.modRevision ?? 0 }],
              success: [put(key, `${value + 1}`)],
            });
            if (succeeded) done++;
          }
        }),
      ),
    );
    expect(text((await engines[0]!.range({ key })).kvs[0]!.value)).toBe('240');
  });

  test('a lease ends on time while its owner is gone, once, whoever is awake', async () => {
    const schema = freshSchema();
    const [owner, ...others] = await Promise.all([1, 2, 3, 4].map(() => open({ schema })));
    const { id } = await owner!.grantLease({ ttlMs: 400 });
    const keys = ['x', 'y', 'z'].map((name) => utf8(`held/${name}`));
    const { header } = await owner!.txn({
      success: keys.map((key) => ({ type: 'put', key, lease: id })),
    });
    await owner!.close();
    const watch = others[0]!.watch({ ...prefixRange(utf8('held/')) });
    const { value } = await watch[Symbol.asyncIterator]().next();
    expect(value.events.map((event: { type: string }) => event.type)).toEqual(
      keys.map(() => 'delete'),
    );
    await sleep(systemClock, 200);
    expect((await others[1]!.range({ key: keys[0]! })).header.revision).toBe(header.revision + 1);
    await expect(others[2]!.keepAlive(id)).rejects.toMatchObject({ code: 'lease-not-found' });
  });

  test('a renewal of a lease that is over fails even before anybody swept it', async () => {
    const schema = freshSchema();
    const engine = await open({ schema });
    const { id } = await engine.grantLease({ ttlMs: 60_000 });
    await engine.txn({ success: [{ type: 'put', key: utf8('k'), lease: id }] });
    await server.psql(`update ${schema}.leases set expires = clock_timestamp() - interval '1 ms'`);
    await expect(engine.keepAlive(id)).rejects.toMatchObject({ code: 'lease-not-found' });
    expect((await engine.range({ key: utf8('k') })).count).toBe(0);
  });

  test('a clock that was set back gives no lease more than one full TTL', async () => {
    const schema = freshSchema();
    const engine = await open({ schema });
    const { id } = await engine.grantLease({ ttlMs: 5_000 });
    await server.psql(
      `update ${schema}.leases set expires = expires + interval '1 hour';` +
        `update ${schema}.meta set clock = clock + interval '1 hour'`,
    );
    await engine.txn({ success: [put(utf8('a'))] });
    expect((await engine.leaseInfo(id)).remainingTtlMs).toBeLessThanOrEqual(5_000);
  });

  test('a store that has gone back in time grants nothing until its era is lifted', async () => {
    const schema = freshSchema();
    const engine = await open({ schema });
    const watch = engine.watch(prefixRange(utf8('')));
    await watch.created;
    for (let i = 0; i < 5; i++) await engine.txn({ success: [put(utf8('a'))] });
    await server.psql(
      `update ${schema}.meta set revision = 3; delete from ${schema}.log where revision > 3`,
    );
    const write = (): Promise<unknown> => engine.txn({ success: [put(utf8('b'))] });
    await expect(write()).rejects.toMatchObject({ code: 'era-regressed', outcome: 'rejected' });
    await expect(engine.range({ key: utf8('a') })).rejects.toMatchObject({
      code: 'era-regressed',
    });
    // Others who know nothing of it write on; that must not bring it back into favour.
    const newcomer = await open({ schema });
    for (let i = 0; i < 9; i++) await newcomer.txn({ success: [put(utf8('n'))] });
    await expect(write()).rejects.toMatchObject({ code: 'era-regressed' });
    const told = async (): Promise<void> => {
      for await (const _ of watch);
    };
    await expect(told()).rejects.toMatchObject({ code: 'era-regressed' });

    const lifted = await engine.liftEra(0);
    expect(lifted.era).toBe(1);
    await expect(write()).resolves.toMatchObject({ header: { era: 1 } });
  });

  test('a store that was replaced by another one is noticed', async () => {
    const schema = freshSchema();
    const engine = await open({ schema });
    await engine.txn({ success: [put(utf8('a'))] });
    await server.psql(`update ${schema}.meta set cluster = cluster + 1, revision = 1000`);
    await expect(engine.keepAlive(5n)).rejects.toMatchObject({ code: 'era-regressed' });
    await engine.liftEra(3);
    expect((await engine.status()).header.era).toBe(3);
    await server.psql(`update ${schema}.meta set cluster = cluster + 1, era = 0, revision = 5`);
    // Lifted before anything else was asked: still above all that this client has seen.
    expect((await engine.liftEra(1)).era).toBe(4);
  });

  test('processes that start together make one schema, and none with a newer format is touched', async () => {
    const schema = freshSchema();
    const all = await Promise.all(Array.from({ length: 8 }, () => open({ schema })));
    const ids = await Promise.all(all.map(async (engine) => (await engine.status()).clusterId));
    expect(new Set(ids).size).toBe(1);
    await server.psql(`update ${schema}.meta set format = 99`);
    await expect(open({ schema })).rejects.toMatchObject({ code: 'store-too-new' });
    await expect(open({ schema: 'No"Good' })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  test('old history is removed by itself, and the newest state stays', async () => {
    const schema = freshSchema();
    const engine = await open({ schema, retainRevisions: 100 });
    for (let i = 0; i < 200; i++) await engine.txn({ success: [put(utf8(`k${i % 7}`), `${i}`)] });
    const rows = async (): Promise<number> =>
      Number((await server.psql(`select count(*) from ${schema}.log`)).stdout);
    const endMs = systemClock.now() + 5_000;
    while ((await rows()) > 160 && systemClock.now() < endMs) await sleep(systemClock, 20);
    expect(await rows()).toBeLessThanOrEqual(160);
    expect((await engine.range(prefixRange(utf8('k')))).count).toBe(7);
  });

  test('a connection that hangs is given up and the call is served by another', async () => {
    const engine = await open({ schema: freshSchema(), callTimeoutMs: 4_000 });
    await engine.txn({ success: [put(utf8('a'))] });
    const blocker = new pg.Client({ connectionString: server.url });
    await blocker.connect();
    await blocker.query(`begin; select * from own_${schemas}.meta for update`);
    const waiting = engine.txn({ success: [put(utf8('b'))] });
    await sleep(systemClock, 2_500);
    await blocker.end();
    await expect(waiting).resolves.toMatchObject({ succeeded: true });
    expect((await engine.range({ key: utf8('b') })).kvs[0]?.version).toBe(1);
  });

  test('backends that are killed cost no acknowledged write and apply none twice', async () => {
    const engine = await open({ schema: freshSchema() });
    const key = utf8('k');
    let killing: Promise<void> | undefined;
    const kill = async (): Promise<void> => {
      for (let i = 0; i < 10; i++) {
        await server.psql(
          `select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()` +
            ` and backend_type = 'client backend'`,
        );
        await sleep(systemClock, 40);
      }
    };
    let over = false;
    for (let i = 1; i <= 10 || !over; i++) {
      killing ??= kill().finally(() => {
        over = true;
      });
      const { results } = await engine.txn({ success: [put(key), { type: 'range', key }] });
      const [, read] = results;
      expect(read?.type === 'range' && read.kvs[0]?.version).toBe(i);
    }
    await killing;
  });

  test('errors are ours and say what may have happened', async () => {
    const engine = await open({ schema: freshSchema() });
    await engine.close();
    const error = await engine.range({ key: utf8('a') }).catch((reason: unknown) => reason);
    expect(HoldfastError.is(error, 'closed')).toBe(true);
  });

  test('a server that does not sync its log is refused', async () => {
    const lax = await startPostgres({ settings: { fsync: 'off' } });
    const laxPool = new pg.Pool({ connectionString: lax.url, max: 2 });
    try {
      const refused = openPostgresEngine({ pool: laxPool });
      await expect(refused).rejects.toMatchObject({ code: 'filesystem-unsuitable' });
      const told = await openPostgresEngine({ pool: laxPool, allowUnsafe: true });
      await told.close();
    } finally {
      await laxPool.end();
      await lax.stop();
    }
  });

  test('a commit waits for the disk although the database says it need not', async () => {
    await server.psql('alter system set synchronous_commit = off; select pg_reload_conf()');
    const schema = freshSchema();
    try {
      const engine = await open({ schema });
      const seen = new pg.Client({ connectionString: server.url });
      await seen.connect();
      await seen.query(
        `create function ${schema}.note() returns trigger language plpgsql as $$ begin
           perform set_config('holdfast.seen', current_setting('synchronous_commit'), false);
           insert into ${schema}.noted values (current_setting('synchronous_commit')); return new;
         end $$;
         create table ${schema}.noted (setting text);
         create trigger note after update on ${schema}.meta execute function ${schema}.note();`,
      );
      await engine.txn({ success: [put(utf8('a'))] });
      const { rows } = await seen.query(`select distinct setting from ${schema}.noted`);
      expect(rows).toEqual([{ setting: 'on' }]);
      await seen.end();
    } finally {
      await server.psql('alter system reset synchronous_commit; select pg_reload_conf()');
    }
  });
});
