/**
 * Four processes share one directory without a server, under locks and writes, while the owner of the
 * directory is killed or stopped again and again. Nothing acknowledged may be lost, tokens may only
 * rise, no late holder may write, and a killed owner must be replaced within a second.
 *
 * Control: the same writes, in the same order, on a register without a guard; a holder that was
 * stopped past its lease overwrites what others wrote.
 */
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { seededRandom } from '../src/base/random.ts';
import { openEngine } from '../src/client.ts';
import { lastOwner } from '../src/engine/lmdb/opening.ts';
import { type Acknowledged, Judge, nowMs } from './shared/judge.ts';

const PROCESSES = 4;
const TTL_MS = 1_500;
const TAKEOVER_MS_MAX = 1_000;
/** Longer than this, and nobody took over at all. */
const PATIENCE_MS = 20_000;
/** Between two disturbances, for everybody to be back at work. */
const CALM_MS = 400;

export const experiment: Experiment = {
  about: 'processes on one directory lose nothing while its owner is killed and stopped',
  run,
};

async function run(context: Context): Promise<Report> {
  const disturbances = Number(context.options.times ?? (context.long ? 50 : 6));
  const holders = context.long ? 10 : 2;
  const directory = join(context.scratch, 'data');
  const judge = new Judge(directory, TTL_MS);
  context.cleanup(() => judge.killAll());
  await Promise.all(Array.from({ length: PROCESSES }, () => judge.start()));
  const random = seededRandom(context.seed);
  const takeovers: number[] = [];
  let stops = 0;
  for (let at = 0; at < disturbances; at++) {
    await pause(CALM_MS + random.integer(0, 200));
    const owner = ownerOf(directory);
    if (at % 2 === 0) {
      takeovers.push(await kill(judge, owner));
      context.log(`owner ${owner} killed: ${takeovers.at(-1)!.toFixed(0)} ms to the next write`);
      await judge.start();
    } else {
      const stoppedMs = random.integer(200, context.long ? 3_500 : 2_500);
      stops++;
      await stop(owner, stoppedMs);
      context.log(`owner ${owner} stopped for ${stoppedMs} ms`);
      await within(judge.acknowledgedSince(nowMs()), 'work after a stop');
    }
  }
  for (let at = 0; at < holders; at++) await stopHolder(judge, directory);
  await pause(CALM_MS);
  await judge.finish();
  return report(context, judge, { directory, takeovers, stops, holders });
}

function ownerOf(directory: string): number {
  const owner = lastOwner(directory);
  if (!owner) throw new Error('nobody owns the directory');
  return owner.pid;
}

async function kill(judge: Judge, pid: number): Promise<number> {
  const killedAtMs = nowMs();
  const next = judge.acknowledgedSince(killedAtMs);
  process.kill(pid, 'SIGKILL');
  return (await within(next, 'takeover')) - killedAtMs;
}

async function stop(pid: number, forMs: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  try {
    await pause(forMs);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

/** A holder that is not the owner stands still, past its lease, between its look and its write. */
async function stopHolder(judge: Judge, directory: string): Promise<void> {
  for (;;) {
    const pid = await within(judge.nextHolder(), 'a holder');
    if (pid === ownerOf(directory)) continue;
    await stop(pid, TTL_MS * 2);
    return;
  }
}

async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  const over = new AbortController();
  const late = pause(PATIENCE_MS, undefined, { signal: over.signal }).then(
    () => Promise.reject(new Error(`${what} did not come within ${PATIENCE_MS / 1_000} s`)),
    () => new Promise<never>(() => {}),
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    over.abort();
  }
}

interface Done {
  readonly directory: string;
  readonly takeovers: readonly number[];
  readonly stops: number;
  readonly holders: number;
}

async function report(context: Context, judge: Judge, done: Done): Promise<Report> {
  const missing = await lostWrites(done.directory, judge.acknowledged);
  for (const line of [...missing.slice(0, 5), ...judge.trouble.slice(0, 5)]) context.log(line);
  const sorted = [...done.takeovers].sort((a, b) => a - b);
  const worst = sorted.at(-1) ?? Number.POSITIVE_INFINITY;
  const figures = {
    'owners killed': done.takeovers.length,
    'owners stopped': done.stops,
    'holders stopped past their lease': done.holders,
    'takeover ms, median': Math.round(sorted[Math.floor(sorted.length / 2)] ?? 0),
    'takeover ms, max': Math.round(worst),
    grants: judge.grants,
    'tokens that did not rise': judge.fallen,
    'writes acknowledged': judge.acknowledged.length,
    'writes with an unknown outcome': judge.unknown,
    'acknowledged writes lost': missing.length,
    'register updates accepted': judge.accepted,
    'late writes refused': judge.refused,
    'register updates lost': judge.lost.guarded,
    'two-holder moments': judge.twoHolders,
    'unexpected errors': judge.trouble.length,
  };
  const control = { 'register updates lost without a guard': judge.lost.open };
  const ok =
    missing.length === 0 &&
    judge.fallen === 0 &&
    judge.lost.guarded === 0 &&
    judge.twoHolders === 0 &&
    judge.trouble.length === 0 &&
    worst <= TAKEOVER_MS_MAX &&
    judge.lost.open > 0;
  return { ok, figures, control };
}

/** Looks for every acknowledged key at the revision it was acknowledged with. */
async function lostWrites(
  directory: string,
  acknowledged: readonly Acknowledged[],
): Promise<string[]> {
  const engine = await openEngine(`lmdb:${directory}`, { exclusive: true });
  const missing: string[] = [];
  try {
    for (const { key, revision } of acknowledged) {
      const { kvs } = await engine.range({ key: utf8(key) });
      if (kvs[0]?.modRevision === revision) continue;
      missing.push(`${key} of revision ${revision}: ${kvs[0]?.modRevision ?? 'gone'}`);
    }
  } finally {
    await engine.close();
  }
  return missing;
}
