/**
 * Judges what a fuzzer does beside its findings: does it come to an end, and is memory given back?
 *
 * An input that hangs cannot be judged by the thread that it hangs. So every fuzzer tells with
 * `heartbeat` which input it begins, and another thread looks whether that goes on: if not, it
 * prints the input and ends the process, which is the finding.
 */
import { memoryUsage } from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { HoldfastError } from '../src/model/errors.ts';

/** What may be kept after the collector has run: a few bytes of every input soon are more. */
export const RETAINED_BYTES_MAX: number = 16 * 2 ** 20;
/** What the process may grow by, garbage and all. */
export const GROWN_BYTES_MAX: number = 256 * 2 ** 20;
/** Longer than any input takes on a busy machine. */
const STALL_MS = 60_000;

/** How many inputs were begun, and the seed of the last. */
const beats = new Int32Array(new SharedArrayBuffer(8));

/** Every fuzzer calls this before each input. */
export function heartbeat(seed: number): void {
  beats[1] = seed;
  Atomics.add(beats, 0, 1);
}

/** The target of that name, or all of them; a name that is none is said, not passed over. */
export function wantedTargets<T extends { readonly name: string }>(
  all: readonly T[],
  name: string | true | undefined,
): readonly T[] {
  if (name === undefined) return all;
  const wanted = all.filter((target) => target.name === name);
  if (wanted.length > 0) return wanted;
  const names = all.map((target) => target.name).join(', ');
  throw new HoldfastError('invalid-argument', `--target is one of ${names}, not ${name}`);
}

export interface Judged<T> {
  readonly result: T;
  readonly retainedBytes: number;
  readonly grownBytes: number;
  readonly holdsMemory: boolean;
}

/** `warmUp` first takes what is taken once. A hang ends the process. */
export async function judged<T>(
  name: string,
  warmUp: () => unknown,
  work: () => T | Promise<T>,
  stallMs: number = STALL_MS,
): Promise<Judged<T>> {
  const stop = watch(name, stallMs);
  try {
    await warmUp();
    const before = retained();
    const rss = memoryUsage.rss();
    const result = await work();
    const grownBytes = memoryUsage.rss() - rss;
    const retainedBytes = retained() - before;
    const holdsMemory = retainedBytes > RETAINED_BYTES_MAX || grownBytes > GROWN_BYTES_MAX;
    return { result, retainedBytes, grownBytes, holdsMemory };
  } finally {
    await stop();
  }
}

export const mebibytes = (bytes: number): number => Math.round((bytes / 2 ** 20) * 10) / 10;

let collect: (() => void) | undefined;

function retained(): number {
  if (!collect) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  collect();
  collect();
  const { heapUsed, external } = memoryUsage();
  return heapUsed + external;
}

/** Plain JavaScript: it must run whether or not sources are loaded as TypeScript. */
const WATCHMAN = `
  const { workerData: { beats, name, stallMs } } = require('node:worker_threads');
  const { writeSync } = require('node:fs');
  let seen = -1;
  let sinceMs = performance.now();
  setInterval(() => {
    const now = Atomics.load(beats, 0);
    if (now !== seen) {
      seen = now;
      sinceMs = performance.now();
    } else if (performance.now() - sinceMs > stallMs) {
      writeSync(2, 'HANGS in ' + name + ', seed ' + Atomics.load(beats, 1) + '\\n');
      process.kill(process.pid, 'SIGKILL');
    }
  }, Math.min(1_000, stallMs / 4));
`;

function watch(name: string, stallMs: number): () => Promise<unknown> {
  const workerData = { beats, name, stallMs };
  const watchman = new Worker(WATCHMAN, { eval: true, workerData, execArgv: [] });
  watchman.unref();
  return () => watchman.terminate();
}
