/**
 * One lock and one election on a real etcd, taken by `etcdctl` and by us in turn.
 *
 * Two of each side raise a number in a file, 50 times each: read it, wait a little, write it back.
 * Nothing but the lock (the leadership) keeps them apart. The control does the same without, and
 * loses increments.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { locate } from '../scripts/packages.mjs';
import { text } from '../src/base/bytes.ts';
import { type Client, connect } from '../src/client.ts';
import { startEtcd } from '../test/servers/etcd.ts';

const SIDES = 2;
const EACH = 50;
const TOTAL = 2 * SIDES * EACH;
/** Between reading the number and writing it back. */
const WORK_MS = 4;

type Way = (side: number, round: number) => Promise<void>;

interface Outcome {
  readonly total: number;
  /** How often one side had it after the other. */
  readonly turns: number;
}

export const experiment: Experiment = {
  about: 'etcdctl lock and elect against ours on one name: 200 increments by both are 200',
  needs: { etcd: 'etcd-server', etcdctl: 'etcd-client' },
  async run(context): Promise<Report> {
    const server = await startEtcd();
    context.cleanup(() => server.stop());
    const client = await connect(`etcd://${new URL(server.url).host}`, { ttl: 10_000 });
    context.cleanup(() => client.close());
    const place = new Place(context, server.url);
    const locked = await place.contend('lock', place.theirLock(), place.ourLock(client));
    const elected = await place.contend('elect', place.theirElect(client), place.ourElect(client));
    const free = await place.contend('neither', place.theirs(), place.ours());
    const broke = free.total < TOTAL;
    return {
      ok:
        broke &&
        locked.total === TOTAL &&
        elected.total === TOTAL &&
        locked.turns > 1 &&
        elected.turns > 1 &&
        place.leadersUnseen === 0,
      figures: {
        increments: TOTAL,
        'counted under the lock': locked.total,
        'lock: handovers between the two': locked.turns,
        'counted under the election': elected.total,
        'election: handovers between the two': elected.turns,
        'leaders of etcdctl that we did not see': place.leadersUnseen,
      },
      control: { broke, 'counted without either': free.total },
    };
  },
};

class Place {
  leadersUnseen = 0;
  readonly #context: Context;
  readonly #endpoint: string;
  #number = '';
  #log = '';

  constructor(context: Context, endpoint: string) {
    this.#context = context;
    this.#endpoint = endpoint;
  }

  async contend(name: string, theirs: Way, ours: Way): Promise<Outcome> {
    this.#number = join(this.#context.scratch, `${name}.number`);
    this.#log = join(this.#context.scratch, `${name}.log`);
    writeFileSync(this.#number, '0');
    writeFileSync(this.#log, '');
    const run = async (way: Way, side: number): Promise<void> => {
      for (let round = 0; round < EACH; round++) await way(side, round);
    };
    const sides = Array.from({ length: SIDES }, (_, side) => [run(theirs, side), run(ours, side)]);
    await Promise.all(sides.flat());
    const who = readFileSync(this.#log, 'utf8').trim().split('\n');
    const total = Number(readFileSync(this.#number, 'utf8'));
    const turns = who.filter((one, i) => i > 0 && one !== who[i - 1]).length;
    this.#context.log(`${name}: ${who.length} increments, ${total} counted, ${turns} handovers`);
    return { total, turns };
  }

  theirLock(): Way {
    return async () => await ended(this.#etcdctl('lock', 'interop/lock', '--', ...this.#script()));
  }

  ourLock(client: Client): Way {
    return async () => await client.lock('interop/lock').run(() => this.#increment('ours'));
  }

  /** Leads until it is interrupted; while it leads, we raise the number in its name. */
  theirElect(client: Client): Way {
    return async (side, round) => {
      const proposal = `etcdctl-${side}-${round}`;
      const child = this.#etcdctl('elect', 'interop/elect', proposal);
      await printed(child, proposal);
      const leader = await client.election('interop/elect').leader();
      if (!leader || text(leader.value) !== proposal) this.leadersUnseen++;
      await this.#increment('etcdctl');
      child.kill('SIGINT');
      await ended(child);
    };
  }

  ourElect(client: Client): Way {
    return async () => {
      await client.election('interop/elect').run(() => this.#increment('ours'), { value: 'ours' });
    };
  }

  theirs(): Way {
    return async () => {
      const [command = 'sh', ...args] = this.#script();
      await ended(this.#spawn(command, args));
    };
  }

  ours(): Way {
    return () => this.#increment('ours');
  }

  async #increment(who: string): Promise<void> {
    const number = Number(readFileSync(this.#number, 'utf8'));
    await pause(WORK_MS);
    writeFileSync(this.#number, String(number + 1));
    writeFileSync(this.#log, `${who}\n`, { flag: 'a' });
  }

  /** The same for a shell. */
  #script(): readonly string[] {
    const script = 'n=$(cat "$0"); sleep 0.004; printf %s $((n + 1)) > "$0"; echo etcdctl >> "$1"';
    return ['sh', '-c', script, this.#number, this.#log];
  }

  #etcdctl(...args: string[]): ChildProcess {
    return this.#spawn(locate('etcdctl') ?? 'etcdctl', ['--endpoints', this.#endpoint, ...args]);
  }

  #spawn(command: string, args: readonly string[]): ChildProcess {
    const env = { ...process.env, ETCDCTL_API: '3' };
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#context.cleanup(() => child.kill('SIGKILL'));
    return child;
  }
}

async function printed(child: ChildProcess, word: string): Promise<void> {
  let output = '';
  for await (const chunk of child.stdout!.iterator({ destroyOnReturn: false })) {
    output += String(chunk);
    if (output.includes(word)) return;
  }
  throw new Error(`etcdctl ended without leading: ${output}`);
}

async function ended(child: ChildProcess): Promise<void> {
  let complaint = '';
  child.stderr?.on('data', (chunk) => {
    complaint += String(chunk);
  });
  child.stdout?.resume();
  if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
  if (child.exitCode !== 0) throw new Error(`it ended with ${child.exitCode}: ${complaint}`);
}
