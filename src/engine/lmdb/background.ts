/**
 * Scrubs a large store while it already serves: walks the tree of one moment, in slices that leave
 * the loop to its other work, and condemns the store when it finds damage.
 *
 * A read transaction of LMDB keeps the pages of that moment from being used again meanwhile. Which
 * root belongs to it is known because no commit fell between looking at the roots and pinning.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import { DATA_FILE } from './directory.ts';
import { decodeHead, HEAD_KEY } from './format.ts';
import { PageFile } from './pages.ts';
import { type Inspection, inspect, type Summary, scrub } from './scrub.ts';
import type { LmdbStore } from './store.ts';

export interface BackgroundScrub {
  /** Resolves when the walk is over: undefined when it was stopped before its end. */
  readonly done: Promise<Summary | undefined>;
  stop(): void;
}

export interface BackgroundOptions {
  readonly path: string;
  readonly store: LmdbStore;
  readonly clock: Clock;
  /** Pages per slice, and the pause after it: what the scrub may take from the loop. */
  readonly pagesPerSlice?: number;
  readonly pauseMs?: number;
}

export function scrubInBackground(options: BackgroundOptions): BackgroundScrub {
  let stopped = false;
  let wake: () => void = () => {};
  const { clock, store, pauseMs = 10 } = options;
  const pause = (): Promise<void> =>
    new Promise((resolve) => {
      const cancel = clock.wakeAt(clock.now() + pauseMs, resolve);
      wake = () => {
        cancel();
        resolve();
      };
    });
  const run = async (): Promise<Summary | undefined> => {
    try {
      return await walkSlices(options, () => stopped, pause);
    } catch (error) {
      if (stopped) return undefined;
      store.condemn(HoldfastError.from(error));
      throw error;
    }
  };
  const done = run();
  // Whoever does not ask still hears of it: from the store, with every call.
  done.catch(() => {});
  return {
    done,
    stop: () => {
      stopped = true;
      wake();
    },
  };
}

async function walkSlices(
  options: BackgroundOptions,
  stopped: () => boolean,
  pause: () => Promise<void>,
): Promise<Summary | undefined> {
  const { path, store, pagesPerSlice = 500 } = options;
  const fd = openSync(join(path, DATA_FILE), 'r');
  const pinned = pin(fd, store);
  try {
    const file = new PageFile(fd, pinned.seen.bytes, pinned.seen.pageSize, false);
    const steps = scrub(file, pinned.seen, true);
    while (!stopped()) {
      for (let i = 0; i < pagesPerSlice; i++) {
        const step = steps.next();
        if (step.done) return step.value;
      }
      await pause();
    }
    return undefined;
  } finally {
    pinned.release();
    closeSync(fd);
  }
}

/** A root and a read transaction on it. Bounded tries: a commit may fall between the looks. */
function pin(fd: number, store: LmdbStore): { seen: Inspection; release(): void } {
  for (let attempt = 1; ; attempt++) {
    const snapshot = store.snapshot();
    try {
      // Read first: it is what makes the package take its place among the readers.
      const head = snapshot.get(HEAD_KEY);
      const seen = inspect(fd, fstatSync(fd).size);
      if (head && seen.head?.sequence === decodeHead(head).sequence) {
        return { seen, release: () => snapshot.release() };
      }
    } catch (error) {
      if (attempt === 20) {
        snapshot.release();
        throw error;
      }
    }
    snapshot.release();
    if (attempt === 20) throw new Error('no quiet moment was found to begin a scrub');
  }
}
