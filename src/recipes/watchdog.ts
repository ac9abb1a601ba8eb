/**
 * A watchdog in a thread of its own: at the holder's deadline it strikes even if the main thread's
 * event loop stands still, when no timer and no signal of the session can.
 *
 * The main thread writes the deadline into shared memory with each confirmed renewal; the watcher
 * only reads it. The thread waits a little past the deadline, within the margin that the session
 * keeps before the authority's expiry, so that a main thread that runs ends the matter itself.
 */
import { Worker } from 'node:worker_threads';
import { HoldfastError } from '../model/errors.ts';
import type { DeadlineGuard } from './session.ts';

export interface WatchdogOptions {
  /**
   * `kill` (the default) ends the process with SIGKILL. A function is run *in the watchdog's
   * thread*: it is passed as source text and sees only its argument and what it imports itself.
   */
  readonly strike?: 'kill' | ((info: { readonly pid: number }) => void) | undefined;
}

/** Grace after the deadline for a main thread that is alive. */
const GRACE_MS = 10;

/** Plain JavaScript, because it is passed as text and so works from sources and from a build. */
const WATCHER = `
const { parentPort, workerData } = require('node:worker_threads');
const { uptime } = require('node:os');
const view = new BigInt64Array(workerData.memory);
const turns = new Int32Array(workerData.turns);
const strike = workerData.strike && eval('(' + workerData.strike + ')');
parentPort.postMessage('ready');
for (;;) {
  const turn = Atomics.load(turns, 0);
  if (turn < 0) break;
  const monotonic = Atomics.load(view, 0);
  const boot = Atomics.load(view, 1);
  if (monotonic === 0n) { Atomics.wait(turns, 0, turn); continue; }
  const left = Math.min(
    Number(monotonic - process.hrtime.bigint()) / 1e6,
    Number(boot) - uptime() * 1e3,
  );
  if (left > 0) { Atomics.wait(turns, 0, turn, Math.min(left, 1000)); continue; }
  if (Atomics.load(turns, 0) !== turn) continue;
  if (strike) strike({ pid: process.pid });
  else process.kill(process.pid, 'SIGKILL');
  Atomics.store(view, 0, 0n);
}
`;

export async function startWatchdog(options: WatchdogOptions = {}): Promise<DeadlineGuard> {
  const { strike = 'kill' } = options;
  const memory = new SharedArrayBuffer(16);
  const turns = new SharedArrayBuffer(4);
  const view = new BigInt64Array(memory);
  const turn = new Int32Array(turns);
  const { uptime } = await import('node:os');
  const worker = new Worker(WATCHER, {
    eval: true,
    // Loaders of the main thread would tie this one to its event loop.
    execArgv: [],
    workerData: { memory, turns, strike: strike === 'kill' ? undefined : String(strike) },
  });
  await new Promise<void>((resolve, reject) => {
    worker.once('message', () => resolve());
    worker.once('error', (cause) =>
      reject(new HoldfastError('internal', 'the watchdog did not start', { cause })),
    );
  });
  // A strike that throws ends the thread; the session's own deadline remains.
  worker.on('error', () => {});
  worker.unref();
  const next = (): void => {
    Atomics.add(turn, 0, 1);
    Atomics.notify(turn, 0);
  };
  return {
    extend: (remainingMs) => {
      const atMs = remainingMs + GRACE_MS;
      Atomics.store(view, 1, BigInt(Math.ceil(uptime() * 1_000 + atMs)));
      Atomics.store(view, 0, process.hrtime.bigint() + BigInt(Math.ceil(atMs * 1e6)));
      next();
    },
    disarm: () => {
      Atomics.store(view, 0, 0n);
      next();
    },
    close: async () => {
      Atomics.store(turn, 0, -1);
      Atomics.notify(turn, 0);
      await worker.terminate();
    },
  };
}
