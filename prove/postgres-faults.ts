/**
 * PostgreSQL as authority while it is killed, and through a pooler in transaction mode.
 *
 * Eight client processes take one lock and write a register that keeps the highest token, and each
 * turn a key into the engine. Holders are stopped past their lease, backends and the whole server
 * are killed. What must hold: no stale write accepted, no update lost, every acknowledged key there
 * and applied once, and each watch told every change exactly once, in order. The control is a
 * second register on the same schedule that believes whoever writes.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Figures } from '../scripts/experiment.ts';
import { text, utf8 } from '../src/base/bytes.ts';
import type { Engine } from '../src/engine/contract.ts';
import { open } from '../src/engine/postgres/open.ts';
import { prefixRange } from '../src/model/range.ts';
import { type Postgres, startPgBouncer, startPostgres } from '../test/servers/postgres.ts';
import { Consumer } from './postgres/consumer.ts';
import { Crowd } from './postgres/crowd.ts';

const CLIENTS = 8;
const TTL_MS = 1_500;
const PAUSE_MS = 3_000;

export const experiment: Experiment = {
  about: 'PostgreSQL killed under load, and 8 processes through PgBouncer in transaction mode',
  needs: { postgres: 'postgresql', psql: 'postgresql', pgbouncer: 'pgbouncer' },
  async run(context) {
    const kills = context.long ? 20 : 3;
    const lull = context.long ? 60_000 : 6_000;
    let server = await startPostgres();
    context.cleanup(() => server.stop());
    const bouncer = await startPgBouncer(server, { poolSize: 4 });
    context.cleanup(() => bouncer.stop());
    const killed = new Crowd();
    const pooled = new Crowd();
    context.cleanup(() => killed.end());
    context.cleanup(() => pooled.end());

    const first = await round(context, server, 'killed', killed, server.url, true, async () => {
      for (let i = 1; i <= kills; i++) {
        if (i % 3 === 1) killed.pauseHolder(PAUSE_MS);
        await busy(killed);
        if (i % 2 === 0) await killBackend(server);
        else server = await killServer(server);
        context.log(`kill ${i}: ${killed.tally.acknowledged.length} acknowledged so far`);
      }
      await pause(PAUSE_MS);
    });
    const second = await round(context, server, 'pooled', pooled, bouncer.url, false, async () => {
      for (let passed = 0; passed < lull; passed += PAUSE_MS) {
        pooled.pauseHolder(PAUSE_MS);
        await pause(PAUSE_MS);
      }
    });
    const openLost = killed.lost.open + pooled.lost.open;
    return {
      ok: first.ok && second.ok && openLost > 0,
      figures: { kills, ...first.figures, ...second.figures },
      control: { broke: openLost > 0, 'updates lost without the guard': openLost },
    };
  },
};

/** Waits until the clients are at work again, so that every kill meets them in the middle of it. */
async function busy(crowd: Crowd): Promise<void> {
  const wanted = crowd.tally.acknowledged.length + 6;
  await pause(300);
  for (let i = 0; i < 100 && crowd.tally.acknowledged.length < wanted; i++) await pause(50);
}

interface Outcome {
  readonly ok: boolean;
  readonly figures: Figures;
}

async function round(
  context: Context,
  server: Postgres,
  label: string,
  crowd: Crowd,
  url: string,
  direct: boolean,
  faults: () => Promise<void>,
): Promise<Outcome> {
  await crowd.start(label, CLIENTS);
  const observers = await observe(context, [
    ['notified', server.url, true],
    ['polling', url, false],
  ]);
  await crowd.phase(url, direct, TTL_MS);
  await faults();
  await crowd.stop();
  crowd.end();
  return await judge(label, server, crowd, observers);
}

interface Observer {
  readonly name: string;
  readonly engine: Engine;
  readonly consumer: Consumer;
  readonly from: number;
}

async function observe(
  context: Context,
  ways: readonly (readonly [string, string, boolean])[],
): Promise<readonly Observer[]> {
  const observers: Observer[] = [];
  for (const [name, url, direct] of ways) {
    const engine = await open(url, { direct, connections: 2, retainRevisions: 0 });
    context.cleanup(() => engine.close());
    const from = (await engine.status()).header.revision + 1;
    observers.push({ name, engine, from, consumer: new Consumer(engine, from) });
  }
  return observers;
}

/** Compares what was promised and told with what the database holds. */
async function judge(
  label: string,
  server: Pick<Postgres, 'psql'>,
  crowd: Crowd,
  observers: readonly Observer[],
): Promise<Outcome> {
  const { tally, lost } = crowd;
  const { engine } = observers[0]!;
  const { kvs, header } = await engine.range(prefixRange(utf8('acked/')));
  const versions = new Map(kvs.map((kv) => [text(kv.key), kv.version]));
  const missing = tally.acknowledged.filter((key) => !versions.has(key)).length;
  const twice = [...versions.values()].filter((version) => version !== 1).length;
  let disturbed = 0;
  for (const { consumer, from } of observers) {
    for (let i = 0; i < 200 && consumer.revision < header.revision; i++) await pause(50);
    const truth = await history(server, from);
    const upTo = (line: string): boolean => Number(line.split(' ')[0]) <= header.revision;
    const told = consumer.told.filter(upTo);
    if (told.join('\n') !== truth.filter(upTo).join('\n')) disturbed++;
    await consumer.stop();
  }
  const ok =
    tally.staleAccepted === 0 &&
    lost.guarded === 0 &&
    missing === 0 &&
    twice === 0 &&
    disturbed === 0 &&
    tally.trouble.length === 0 &&
    tally.pauses > 0 &&
    tally.acknowledged.length > 0;
  const named = (name: string): string => `${label}: ${name}`;
  return {
    ok,
    figures: {
      [named('writes accepted')]: tally.accepted,
      [named('stale writes refused')]: tally.refused,
      [named('stale writes accepted')]: tally.staleAccepted,
      [named('updates lost')]: lost.guarded,
      [named('holders stopped past their lease')]: tally.pauses,
      [named('keys acknowledged')]: tally.acknowledged.length,
      [named('acknowledged keys lost')]: missing,
      [named('keys applied twice')]: twice,
      [named('outcomes left unknown')]: tally.unknown,
      [named('events per watch')]: observers[0]!.consumer.told.length,
      [named('watches with a gap, a double or a disorder')]: disturbed,
      [named('unexpected errors')]: tally.trouble.slice(0, 3).join(' | ') || 0,
    },
  };
}

/** Every change from a revision on, as the database itself has it. */
async function history(server: Pick<Postgres, 'psql'>, from: number): Promise<readonly string[]> {
  const { stdout } = await server.psql(
    "select revision || case when deleted then ' delete ' else ' put ' end || " +
      `convert_from(key, 'UTF8') from holdfast.log where revision >= ${from} ` +
      'order by revision, sub',
  );
  return stdout.split('\n').filter((line) => line.length > 0);
}

/** Kills one backend hard; the server then ends all others and recovers. */
async function killBackend(server: Postgres): Promise<void> {
  const { stdout } = await server.psql(
    "select pid from pg_stat_activity where backend_type = 'client backend' " +
      'and pid <> pg_backend_pid() limit 1',
  );
  const pid = Number(stdout);
  if (pid > 0) process.kill(pid, 'SIGKILL');
}

/** Kills the server and all its processes at once, and starts it again on the same files. */
async function killServer(server: Postgres): Promise<Postgres> {
  const children = childrenOf(server.pid);
  await server.kill();
  for (const pid of children) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It went with its parent.
    }
  }
  return await server.restart();
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
      } catch {
        return false;
      }
    })
    .map(Number);
}
