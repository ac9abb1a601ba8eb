/**
 * Four processes share one directory without a server, under locks and writes, while the owner of the
 * directory is killed again and again, or stopped until another has taken over, and goes on then.
 * Nothing acknowledged may be lost, tokens may only rise, no late holder may write, a killed owner must
 * be replaced within a second, and a stopped one while it stands still, unless it was stopped in the
 * middle of a write of the tree: that is asked for, and counted.
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
import { claimElsewhere } from '../src/engine/lmdb/claim.ts';
import { lastOwner } from '../src/engine/lmdb/opening.ts';
import { HoldfastError } from '../src/model/errors.ts';
import { type Acknowledged, Judge, nowMs } from './shared/judge.ts';

const PROCESSES = 4;
const TTL_MS = 1_500;
const TAKEOVER_MS_MAX = 1_000;
/** A second of patience, and a process to start from sources for the claim. */
const STANDING_MS_MAX = 10_000;
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
  const killed: number[] = [];
  const stopped: Stopped[] = [];
  for (let at = 0; at < disturbances; at++) {
    await pause(CALM_MS + random.integer(0, 200));
    const owner = ownerOf(directory);
    if (at % 2 === 0) {
      killed.push(await kill(judge, owner));
      context.log(`owner ${owner} killed: ${killed.at(-1)!.toFixed(0)} ms to the next write`);
      await judge.start();
    } else {
      stopped.push(await standStill(judge, directory, owner));
      context.log(`owner ${owner} stopped: ${told(stopped.at(-1)!)}`);
      await within(judge.acknowledgedSince(nowMs()), 'work after a stop');
    }
  }
  for (let at = 0; at < holders; at++) await stopHolder(judge, directory);
  await pause(CALM_MS);
  await judge.finish();
  return report(context, judge, { directory, killed, stopped, holders });
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

/** What came of a stopped owner: the time to the next write, or why there was none. */
type Stopped = number | 'in the tree' | 'not replaced';

function told(stopped: Stopped): string {
  return typeof stopped === 'number' ? `${stopped.toFixed(0)} ms to the next write` : stopped;
}

/** Stops the owner until another process's write is acknowledged. */
async function standStill(judge: Judge, directory: string, pid: number): Promise<Stopped> {
  process.kill(pid, 'SIGSTOP');
  const stoppedAtMs = nowMs();
  const next = judge.acknowledgedSince(stoppedAtMs);
  try {
    const outcome = await Promise.race([next, pause(STANDING_MS_MAX)]);
    if (outcome !== undefined) return outcome - stoppedAtMs;
    return (await isTreeHeld(directory)) ? 'in the tree' : 'not replaced';
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

/** Asks for the write lock of the tree, for a claim that fits no state. */
async function isTreeHeld(directory: string): Promise<boolean> {
  const nobody = { pid: 0, host: '', socket: 'shared-00.sock' };
  try {
    await claimElsewhere(directory, { sequence: -1, ownerEpoch: -1 }, nobody);
  } catch (error) {
    return HoldfastError.is(error, 'unavailable') && error.cause === undefined;
  }
  throw new Error('a claim on nothing stands');
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
  readonly killed: readonly number[];
  readonly stopped: readonly Stopped[];
  readonly holders: number;
}

async function report(context: Context, judge: Judge, done: Done): Promise<Report> {
  const missing = await lostWrites(done.directory, judge.acknowledged);
  for (const line of [...missing.slice(0, 5), ...judge.trouble.slice(0, 5)]) context.log(line);
  const killed = spread(done.killed);
  const replaced = done.stopped.filter((one) => typeof one === 'number');
  const standing = spread(replaced);
  const inTree = done.stopped.filter((one) => one === 'in the tree').length;
  const figures = {
    'owners killed': done.killed.length,
    'takeover ms from a killed owner, median': killed.median,
    'takeover ms from a killed owner, max': killed.max,
    'owners stopped': done.stopped.length,
    'owners replaced while they stood still': replaced.length,
    'owners stopped inside a write of the tree': inTree,
    'takeover ms from a standing owner, median': standing.median,
    'takeover ms from a standing owner, max': standing.max,
    'holders stopped past their lease': done.holders,
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
    killed.max <= TAKEOVER_MS_MAX &&
    replaced.length > 0 &&
    replaced.length + inTree === done.stopped.length &&
    judge.lost.open > 0;
  return { ok, figures, control };
}

function spread(takeovers: readonly number[]): { readonly median: number; readonly max: number } {
  const sorted = [...takeovers].sort((a, b) => a - b);
  const at = (index: number): number => Math.round(sorted[index] ?? Number.POSITIVE_INFINITY);
  return { median: at(Math.floor(sorted.length / 2)), max: at(sorted.length - 1) };
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
