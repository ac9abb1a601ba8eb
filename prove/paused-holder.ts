/**
 * Five processes take turns under the real lock on a real etcd (TTL 2 s) and change a real resource.
 * Every few seconds the holder is stopped (SIGSTOP) between reading and writing, until its lease has
 * run out and others have acted; then it goes on and writes. Without the guard that write takes
 * effect: acknowledged work is lost. With the guard it is refused.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { install } from '../scripts/packages.mjs';
import { startEtcd } from '../test/servers/etcd.ts';
import { PLACES, type Stage } from './guards/places.ts';
import { type Entry, GUARDS, type GuardName } from './guards/subjects.ts';
import type { Task, Told } from './guards/worker.ts';

const PROCESSES = 5;
const TTL_MS = 2_000;
const STOPPED_MS = [TTL_MS + 400, TTL_MS + 1_200] as const;
const BETWEEN_MS = 600;

const PACKAGES: Readonly<Partial<Record<GuardName, Readonly<Record<string, string>>>>> = {
  postgres: { initdb: 'postgresql-15' },
  redis: { 'redis-server': 'redis-server' },
  cache: { varnishd: 'varnish' },
};

export const experiment: Experiment = {
  about:
    'a holder stopped past its TTL writes late: --guard postgres|redis|file|http|object|stream|cache',
  needs: { etcd: 'etcd-server' },
  async run(context: Context): Promise<Report> {
    const { options, long, log } = context;
    const guard = (options.guard ?? 'file') as GuardName;
    if (!GUARDS.includes(guard)) throw new Error(`--guard is one of ${GUARDS.join(', ')}`);
    const lacking = install({ ...PACKAGES[guard] });
    if (lacking.length > 0) throw new Error(`not installed: ${lacking.join(', ')}`);
    const etcd = await startEtcd();
    context.cleanup(() => etcd.stop());
    const authority = `etcd://127.0.0.1:${etcd.port}`;

    log(`${guard}: control, without the guard`);
    const control = await phase(context, guard, false, authority, long ? 30_000 : 7_000);
    log(`${guard}: with the guard`);
    const guarded = await phase(context, guard, true, authority, long ? 300_000 : 12_000);
    const broke = control['stale effects'] > 0 && control['lost acknowledged effects'] > 0;
    const held =
      guarded['stale effects'] === 0 &&
      guarded['lost acknowledged effects'] === 0 &&
      guarded['late writes refused'] > 0 &&
      guarded['acknowledged effects'] > 0;
    return { ok: held && broke, figures: { guard, ...guarded }, control: { broke, ...control } };
  },
};

type Outcome = Record<
  | 'seconds'
  | 'times stopped'
  | 'acknowledged effects'
  | 'late writes refused'
  | 'stale effects'
  | 'lost acknowledged effects',
  number
>;

interface Worker {
  readonly child: ChildProcess;
  readonly name: string;
}

async function phase(
  context: Context,
  guard: GuardName,
  guarded: boolean,
  authority: string,
  durationMs: number,
): Promise<Outcome> {
  const directory = join(context.scratch, `${guard}-${guarded ? 'guarded' : 'plain'}`);
  const stage = await PLACES[guard](guarded, directory);
  const workers: Worker[] = [];
  const done: Entry[] = [];
  const failures = new Map<string, number>();
  let refused = 0;
  let onThinking: ((worker: Worker) => void) | undefined;
  const hear = (worker: Worker, told: Told): void => {
    if (told.type === 'thinking') onThinking?.(worker);
    else if (told.type === 'done') done.push(told);
    else if (told.type === 'refused') refused++;
    else failures.set(told.message, (failures.get(told.message) ?? 0) + 1);
  };
  try {
    for (let i = 0; i < PROCESSES; i++) {
      const name = `${guarded ? 'g' : 'c'}${i}`;
      workers.push(start({ place: stage.place, authority, name, ttlMs: TTL_MS }, name, hear));
    }
    // The first acknowledged effect: all is up.
    for (let waited = 0; done.length === 0 && waited < 20_000; waited += 50) await pause(50);
    const begun = performance.now();
    let stopped = 0;
    while (performance.now() - begun < durationMs) {
      const victim = await new Promise<Worker | undefined>((resolve) => {
        onThinking = resolve;
        setTimeout(resolve, 5_000, undefined);
      });
      onThinking = undefined;
      if (!victim) continue;
      victim.child.kill('SIGSTOP');
      stopped++;
      const [from, to] = STOPPED_MS;
      await pause(from + Math.random() * (to - from));
      victim.child.kill('SIGCONT');
      await pause(BETWEEN_MS);
    }
    const seconds = Math.round((performance.now() - begun) / 1_000);
    await end(workers);
    for (const [message, times] of failures) context.log(`  ${times} × ${message.slice(0, 160)}`);
    const verdict = judge(await stage.history(), done, stage);
    return {
      seconds,
      'times stopped': stopped,
      'acknowledged effects': done.length,
      'late writes refused': refused,
      ...verdict,
    };
  } finally {
    await end(workers);
    await stage.stop();
  }
}

function start(task: Task, name: string, hear: (worker: Worker, told: Told) => void): Worker {
  const flags = ['--conditions=holdfast/source', '--import', 'tsx'];
  const child = spawn(
    process.execPath,
    [...flags, join(import.meta.dirname, 'guards/worker.ts'), JSON.stringify(task)],
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  const worker = { child, name };
  child.on('message', (told) => hear(worker, told as Told));
  child.on('error', () => {});
  return worker;
}

/** Asks first, so that nothing is cut off in the middle; then by process id. */
async function end(workers: readonly Worker[]): Promise<void> {
  await Promise.all(
    workers.map(async ({ child }) => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGCONT');
      if (child.connected) child.send('stop', () => {});
      const timer = setTimeout(() => child.kill('SIGKILL'), 6_000);
      await ended;
      clearTimeout(timer);
    }),
  );
}

/**
 * Stale: it took effect after one with a greater token. Lost: acknowledged, and then overwritten by
 * a write that had not seen it.
 */
function judge(
  history: readonly Entry[],
  done: readonly Entry[],
  { sampled }: Stage,
): Pick<Outcome, 'stale effects' | 'lost acknowledged effects'> {
  let greatest = 0n;
  let stale = 0;
  const standing: Entry[] = [];
  const overwritten = new Set<string>();
  for (const entry of history) {
    const token = BigInt(entry.token);
    if (token < greatest) stale++;
    else greatest = token;
    while (standing.length > 0 && standing.at(-1)!.n >= entry.n) {
      overwritten.add(standing.pop()!.operation);
    }
    standing.push(entry);
  }
  const kept = new Set(standing.map(({ operation }) => operation));
  const lost = done.filter(({ operation }) =>
    sampled ? overwritten.has(operation) : !kept.has(operation),
  );
  return { 'stale effects': stale, 'lost acknowledged effects': lost.length };
}
