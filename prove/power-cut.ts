/**
 * Cuts the power: the store stands on an ext4 image on a loop device, the process is stopped under
 * load, and a copy of the image (what reached the "disk") is mounted and opened. Everything that
 * had been acknowledged when the copy was begun must be there.
 *
 * Two controls. Of two files written just before the cut the synced one must be in the copy and the
 * other not: the cut cuts. And with `fdatasync` turned into nothing the same load must lose.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { seededRandom } from '../src/base/random.ts';
import type { Script } from './durability/child.ts';
import { judge, start, strace } from './durability/witness.ts';

const IMAGE_BYTES = 96 * 2 ** 20;

export const experiment: Experiment = {
  about: 'cut the power under load; nothing acknowledged is lost (needs root)',
  needs: { 'mkfs.ext4': 'e2fsprogs', losetup: 'mount', strace: 'strace' },
  run,
};

interface Tally {
  cuts: number;
  acknowledged: number;
  lost: number;
  reused: number;
  refused: number;
  syncedThere: number;
  unsyncedThere: number;
}

function fresh(): Tally {
  return {
    cuts: 0,
    acknowledged: 0,
    lost: 0,
    reused: 0,
    refused: 0,
    syncedThere: 0,
    unsyncedThere: 0,
  };
}

async function run(context: Context): Promise<Report> {
  if (process.getuid?.() !== 0) throw new Error('a loop device needs root');
  const random = seededRandom(context.seed);
  const cuts = Number(context.options.cuts ?? (context.long ? 60 : 4));
  const tally = fresh();
  for (let i = 0; i < cuts; i++) {
    await cut(context, random.integer(150, 1_200), [], tally);
    if (i % 10 === 9) context.log(`  ${i + 1} cuts, ${tally.lost} lost`);
  }
  const control = fresh();
  for (let i = 0; i < (context.long ? 8 : 3); i++) {
    await cut(context, random.integer(300, 900), strace('fdatasync', 'retval=0'), control);
  }
  const sharp = tally.syncedThere === cuts && tally.unsyncedThere < cuts;
  const ok =
    tally.lost === 0 && tally.reused === 0 && tally.refused === 0 && sharp && control.lost > 0;
  return {
    ok,
    figures: {
      cuts: tally.cuts,
      'acknowledged writes': tally.acknowledged,
      'acknowledged writes lost': tally.lost,
      'revisions reused': tally.reused,
      'stores refused': tally.refused,
      'synced files in the copy': tally.syncedThere,
      'files written without sync in the copy': tally.unsyncedThere,
    },
    control: {
      what: 'fdatasync does nothing',
      cuts: control.cuts,
      acknowledged: control.acknowledged,
      lost: control.lost,
      'stores refused': control.refused,
      broke: control.lost > 0,
    },
  };
}

function must(command: string, ...args: string[]): SpawnSyncReturns<string> {
  const ran = spawnSync(command, args, { encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${ran.stderr}`);
  return ran;
}

/** One image, one load, one cut, one look at the copy. */
async function cut(
  context: Context,
  afterMs: number,
  prefix: readonly string[],
  tally: Tally,
): Promise<void> {
  const image = join(context.scratch, 'disk.img');
  const copy = join(context.scratch, 'crash.img');
  const disk = join(context.scratch, 'disk');
  const crash = join(context.scratch, 'crash');
  mkdirSync(disk, { recursive: true });
  mkdirSync(crash, { recursive: true });
  must('truncate', '-s', String(IMAGE_BYTES), image);
  must('mkfs.ext4', '-q', '-F', image);
  // No commit of the journal by itself, which could fall into the middle of the copy.
  must('mount', '-o', 'loop,commit=300', image, disk);
  try {
    const acknowledged = await load(disk, afterMs, prefix, () =>
      must('cp', '--sparse=always', image, copy),
    );
    must('mount', '-o', 'loop', copy, crash);
    try {
      if (whole(join(crash, 'synced'))) tally.syncedThere++;
      if (whole(join(crash, 'unsynced'))) tally.unsyncedThere++;
      const verdict = await judge(join(crash, 'store'), acknowledged);
      tally.cuts++;
      tally.acknowledged += acknowledged.size;
      tally.lost += verdict.lost;
      tally.reused += verdict.reused;
      if (verdict.refused !== undefined) {
        tally.refused++;
        context.log(`  ${verdict.refused.slice(0, 100)}`);
      }
    } finally {
      must('umount', crash);
    }
  } finally {
    must('umount', disk);
    rmSync(image, { force: true });
    rmSync(copy, { force: true });
  }
}

/** Runs the load, stops it dead, takes the copy, and answers what had been acknowledged before. */
async function load(
  disk: string,
  afterMs: number,
  prefix: readonly string[],
  copy: () => void,
): Promise<ReadonlyMap<number, number>> {
  const script: Script = {
    path: join(disk, 'store'),
    from: 0,
    count: 1_000_000,
    outstanding: 16,
    ack: 'after',
    valueBytes: 100,
  };
  const running = start(script, prefix);
  try {
    while (running.acknowledged.size === 0 && running.child.exitCode === null) await pause(5);
    // Early, since syncing it makes other things durable by the way.
    touch(join(disk, 'synced'), true);
    await pause(afterMs);
    touch(join(disk, 'unsynced'), false);
    running.signal('SIGSTOP');
    await standstill(running.child.pid!);
    const before = new Map(running.acknowledged);
    copy();
    if (before.size === 0) throw new Error('the load acknowledged nothing');
    return before;
  } finally {
    running.signal('SIGKILL');
    await running.finished;
  }
}

/**
 * Waits until no thread of the process group runs or waits for the disk: a thread inside a write or a
 * sync stops only when that is over, and a copy taken before would mix two moments, which no power
 * cut does. (Behind a stopped strace idle threads sleep on instead of stopping.)
 */
async function standstill(group: number): Promise<void> {
  const giveUpAt = performance.now() + STANDSTILL_MS_MAX;
  while (threadStates(group).some((state) => state === 'R' || state === 'D')) {
    if (performance.now() > giveUpAt) throw new Error('the load does not come to a stop');
    await pause(2);
  }
}

function threadStates(group: number): string[] {
  const states: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (fieldsOf(`/proc/${pid}/stat`)[2] !== String(group)) continue;
      for (const task of readdirSync(`/proc/${pid}/task`)) {
        states.push(fieldsOf(`/proc/${pid}/task/${task}/stat`)[0]!);
      }
    } catch {
      // It ended while we looked.
    }
  }
  return states;
}

/** The fields behind the name of the program, which may hold anything: state, parent, group, … */
function fieldsOf(path: string): string[] {
  const line = readFileSync(path, 'utf8');
  return line.slice(line.lastIndexOf(')') + 2).split(' ');
}

const TOUCHED_BYTES = 100;

/** With its bytes: the name alone may have come to the disk with a sync of something else. */
function whole(path: string): boolean {
  return existsSync(path) && statSync(path).size === TOUCHED_BYTES;
}

function touch(path: string, sync: boolean): void {
  const fd = openSync(path, 'w');
  writeSync(fd, 'x'.repeat(TOUCHED_BYTES));
  if (sync) fsyncSync(fd);
  closeSync(fd);
}

const STANDSTILL_MS_MAX = 10_000;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
