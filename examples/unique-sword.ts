/**
 * There is one sword, and the dragon dies once. A zone of a game is run by one server at a time, on
 * a lock; its state is in Redis. The server of the night is stopped when it has computed the last
 * blow; another one takes the zone over, lets the dragon die and gives the sword to Bob. Then the
 * first one goes on: its world is two seconds old, and in it the sword goes to Alice.
 *
 * Both servers write with MULTI, so each write is atomic; that does not help. The guard is atomic
 * *with the comparison of the token*.
 */
import { Redis } from 'ioredis';
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { RedisGuard } from '../src/guard/redis.ts';
import { startRedis } from '../test/servers/redis.ts';
import { Actor, isActor, openAuthority, overtake, playAs, verdictOf } from './support/actor.ts';

export const story: Story = {
  about: 'a sword there is only one of, and a dragon that dies once: two of each without a guard',
  needs: { 'redis-server': 'redis-server' },
  async run(context) {
    const authority = await openAuthority(context);
    const redis = await startRedis();
    context.cleanup(() => redis.stop());
    const servers = await Actor.cast(context, import.meta.url, authority, 'night', 'day');
    const figures = await tell(context, servers, redis.url, true);
    const control = await tell(context, servers, redis.url, false);
    const ok = figures.swords === 1 && figures['deaths of the dragon'] === 1;
    const broke = Number(control.swords) > 1 && Number(control['deaths of the dragon']) > 1;
    return { ok: ok && broke, figures, control };
  },
};

type Servers = Readonly<Record<'night' | 'day', Actor>>;

async function tell(
  context: Context,
  { night, day }: Servers,
  url: string,
  guarded: boolean,
): Promise<Figures> {
  context.log(guarded ? 'Redis compares tokens:' : '\nRedis takes what comes:');
  const zone = guarded ? 'cave' : 'unguarded-cave';
  const redis = new Redis(url);
  try {
    await redis.set(`{${zone}}:dragon`, 'alive');
    const { refused } = await overtake(context, night, day, 'strike', { url, zone, guarded });
    const alice = await redis.lrange(`{${zone}}:bag of alice`, 0, -1);
    const bob = await redis.lrange(`{${zone}}:bag of bob`, 0, -1);
    context.log(`  Alice has [${alice}], Bob has [${bob}]`);
    return {
      swords: [...alice, ...bob].filter((item) => item === 'the sword').length,
      'deaths of the dragon': Number(await redis.get(`{${zone}}:deaths`)),
      'late writes refused': refused ? 1 : 0,
    };
  } finally {
    redis.disconnect();
  }
}

/** Whom the last blow of the day, and of the night, belongs to. */
const HEROES: Readonly<Record<string, string>> = { night: 'alice', day: 'bob' };

if (isActor) {
  await playAs({
    strike: async ({ hf, name, freeze }, { url, zone, guarded, freeze: stopped }) => {
      const redis = new Redis(String(url));
      const guard = await RedisGuard.open(redis);
      const grant = await hf.lock(`zone/${zone}`).acquire();
      const token = String(grant.token);
      try {
        const alive = (await redis.get(`{${zone}}:dragon`)) === 'alive';
        if (!alive) return { token, verdict: 'the dragon is dead already' };
        grant.ensureHeld();
        if (stopped) freeze({ token });
        const keys = ['dragon', 'deaths', `bag of ${HEROES[name]}`].map((it) => `{${zone}}:${it}`);
        const [dragon = '', deaths = '', bag = ''] = keys;
        const commands = [
          ['set', dragon, 'dead'],
          ['incr', deaths],
          ['rpush', bag, 'the sword'],
        ];
        const verdict = await verdictOf(async () => {
          if (guarded) await guard.run(grant, { resource: String(zone), keys, commands });
          else await redis.multi(commands).exec();
        });
        return { token, verdict };
      } finally {
        await grant.release();
        redis.disconnect();
      }
    },
  });
}
