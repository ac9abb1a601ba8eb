import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installed } from '../../test/servers/daemon.ts';
import { type Postgres, postgresCommands, startPostgres } from '../../test/servers/postgres.ts';
import { JobSink, LmdbJobs, MemoryJobs, PostgresJobs } from './job.ts';
import { PostgresGuard } from './postgres/guard.ts';

type With = <T>(body: (sink: JobSink) => Promise<T>) => Promise<T>;

function behaves(sink: With): void {
  it('runs once: done stays done, whoever asks', async () => {
    expect(await sink((s) => s.start(5n, 'a'))).toEqual({ state: 'run', attempt: 1 });
    await sink((s) => s.finish(5n, 'a', 'made 3 reports'));
    await sink((s) => s.finish(5n, 'a'));
    for (const token of [4n, 5n, 6n]) {
      expect(await sink((s) => s.start(token, 'a'))).toEqual({
        state: 'done',
        result: 'made 3 reports',
      });
    }
  });

  it('is taken over by a newer token only, and the overtaken runner cannot finish it', async () => {
    await sink((s) => s.start(5n, 'b'));
    expect(await sink((s) => s.start(5n, 'b'))).toEqual({ state: 'run', attempt: 1 });
    expect(await sink((s) => s.start(7n, 'b'))).toEqual({ state: 'run', attempt: 2 });
    await expect(sink((s) => s.start(6n, 'b'))).rejects.toThrow('stale: token 6 < mark 7');
    await expect(sink((s) => s.finish(5n, 'b'))).rejects.toThrow('stale: token 5 < mark 7');
    expect(await sink((s) => s.state('b'))).toMatchObject({ attempts: 2, done: false, token: 7n });
    await sink((s) => s.finish(7n, 'b'));
    expect(await sink((s) => s.state('b'))).toMatchObject({ attempts: 2, done: true });
  });

  it('cannot be finished without having been started', async () => {
    await expect(sink((s) => s.finish(5n, 'c'))).rejects.toMatchObject({ code: 'conflict' });
    await sink((s) => s.start(5n, 'c'));
    await expect(sink((s) => s.finish(6n, 'c'))).rejects.toMatchObject({ code: 'conflict' });
    expect(await sink((s) => s.state('unknown'))).toBeUndefined();
  });

  it('has one winner when ten tokens start at once and all try to finish', async () => {
    const tokens = Array.from({ length: 10 }, (_, i) => BigInt(i + 1));
    await Promise.allSettled(tokens.map((token) => sink((s) => s.start(token, 'd'))));
    const ends = await Promise.allSettled(tokens.map((token) => sink((s) => s.finish(token, 'd'))));
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(ends[9]?.status).toBe('fulfilled');
  });
}

describe('the job sink in memory', () => {
  const sink = new JobSink(new MemoryJobs());
  behaves((body) => body(sink));
});

describe('the job sink on the embedded store', () => {
  const root = mkdtempSync(join(tmpdir(), 'holdfast-job-'));
  const store = LmdbJobs.open(root);
  afterAll(async () => {
    await store.close();
    rmSync(root, { recursive: true, force: true });
  });
  behaves((body) => body(new JobSink(store)));
});

describe.skipIf(!installed(...postgresCommands))('the job sink in PostgreSQL (Debian)', () => {
  let server: Postgres;
  let pool: pg.Pool;
  beforeAll(async () => {
    server = await startPostgres();
    pool = new pg.Pool({ connectionString: server.url, max: 10 });
    await PostgresGuard.install(pool);
  });
  afterAll(async () => {
    await pool?.end();
    await server?.stop();
  });

  const within: With = async (body) => {
    const tx = await pool.connect();
    try {
      await tx.query('begin');
      const result = await body(new JobSink(new PostgresJobs(tx)));
      await tx.query('commit');
      return result;
    } catch (error) {
      await tx.query('rollback');
      throw error;
    } finally {
      tx.release();
    }
  };
  behaves(within);

  it('takes record and effect back together', async () => {
    const failed = within(async (sink) => {
      await sink.start(5n, 'e');
      throw new Error('effect failed');
    });
    await expect(failed).rejects.toThrow('effect failed');
    expect(await within((sink) => sink.state('e'))).toBeUndefined();
  });
});
