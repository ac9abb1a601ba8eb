/**
 * Two box offices sell the seats of one hall, on a database (a real PostgreSQL). Each sale is under
 * the lock of the hall: look for the best free seat, take the money, write the sale. One office is
 * stopped while the customer looks for his card. Its lease runs out, the other office sells the
 * seat, and then the first one writes its sale: two people meet at one seat.
 *
 * Both write in transactions. The guard adds one statement to them, and the protected table refuses
 * whoever forgets it.
 */
import pg from 'pg';
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { PostgresGuard, protectTable } from '../src/guard/postgres/index.ts';
import { type Postgres, startPostgres } from '../test/servers/postgres.ts';
import { Actor, isActor, openAuthority, overtake, playAs, verdictOf } from './support/actor.ts';

export const story: Story = {
  about: 'two box offices sell the seats of one hall: each seat once, or one of them twice',
  needs: { initdb: 'postgresql-15' },
  async run(context) {
    const authority = await openAuthority(context);
    const casting = Actor.cast(context, import.meta.url, authority, 'opera', 'station');
    const database = await startPostgres();
    context.cleanup(() => database.stop());
    const offices = await casting;
    const figures = await tell(context, offices, database, true);
    const control = await tell(context, offices, database, false);
    const ok = figures['seats sold twice'] === 0 && figures['late sales refused'] === 1;
    return { ok: ok && control['seats sold twice'] === 1, figures, control };
  },
};

type Offices = Readonly<Record<'opera' | 'station', Actor>>;

async function tell(
  context: Context,
  { opera, station }: Offices,
  database: Postgres,
  guarded: boolean,
): Promise<Figures> {
  context.log(guarded ? 'The table of sales is protected:' : '\nThe table of sales is plain:');
  const hall = guarded ? 'guarded' : 'plain';
  const pool = new pg.Pool({ connectionString: database.url, max: 1 });
  try {
    await PostgresGuard.install(pool);
    await pool.query(`create table ${hall} (seat int, customer text)`);
    if (guarded) await protectTable(pool, hall, hall);
    const details = { url: database.url, hall, guarded };
    const { refused } = await overtake(context, opera, station, 'sell', details);
    if (refused) {
      const again = await opera.play('sell', details);
      context.log(`  the opera looks again, with token ${again.token}: ${again.verdict}`);
    }
    const { rows } = await pool.query(`select seat, customer from ${hall} order by 1, 2`);
    for (const { seat, customer } of rows) context.log(`    seat ${seat}: ${customer}`);
    const seats = rows.map(({ seat }) => seat as number);
    const forgotten = await database.psql(`insert into ${hall} values (99, 'a friend')`);
    return {
      'seats sold twice': seats.length - new Set(seats).size,
      'late sales refused': refused ? 1 : 0,
      'an INSERT without a token': forgotten.code === 0 ? 'taken' : 'refused',
    };
  } finally {
    await pool.end();
  }
}

if (isActor) {
  await playAs({
    sell: async ({ hf, name, freeze }, { url, hall, guarded, freeze: stopped }) => {
      const client = new pg.Client({ connectionString: String(url) });
      await client.connect();
      const guard = guarded ? await PostgresGuard.open(client) : undefined;
      const grant = await hf.lock(`hall/${hall}`).acquire();
      const token = String(grant.token);
      try {
        const { rows } = await client.query(
          `select coalesce(max(seat), 0) + 1 as seat from ${hall}`,
        );
        const { seat } = rows[0] as { seat: number };
        grant.ensureHeld();
        if (stopped) freeze({ token });
        const verdict = await verdictOf(async () => {
          await client.query('begin');
          try {
            await guard?.admit(client, grant, String(hall));
            const sale = [seat, `a customer of the ${name}`];
            await client.query(`insert into ${hall} values ($1, $2)`, sale);
            await client.query('commit');
          } catch (error) {
            await client.query('rollback');
            throw error;
          }
        });
        return { token, verdict: verdict === 'done' ? `seat ${seat} sold` : verdict };
      } finally {
        await client.end();
        await grant.release();
      }
    },
  });
}
