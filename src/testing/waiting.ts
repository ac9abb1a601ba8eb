/**
 * Waiting in tests: real time bounds how long a test waits for something that must happen, and
 * never decides whether it was right. A hang becomes a failure that says what was missing.
 */
import { sleep } from '../base/clock.ts';
import { systemClock } from '../base/system.ts';

export const PATIENCE_MS = 15_000;

/** Lets everything run that is ready to run, timers and I/O callbacks of this moment included. */
export function turn(): Promise<void> {
  return sleep(systemClock, 0);
}

/** Resolves once `condition` holds; looks again after every turn. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
  patienceMs: number = PATIENCE_MS,
): Promise<void> {
  const giveUpAt = systemClock.now() + patienceMs;
  for (let looks = 0; !(await condition()); looks++) {
    if (systemClock.now() > giveUpAt) throw new Error(`waited ${patienceMs} ms for ${what}`);
    await sleep(systemClock, looks < 20 ? 0 : 10);
  }
}

/** Settles as `work` does, or fails after `patienceMs`. */
export function within<T>(
  work: Promise<T>,
  what: string,
  patienceMs: number = PATIENCE_MS,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = systemClock.wakeAt(systemClock.now() + patienceMs, () =>
      reject(new Error(`waited ${patienceMs} ms for ${what}`)),
    );
    work.then(resolve, reject).finally(cancel);
  });
}
