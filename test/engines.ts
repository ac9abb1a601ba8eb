/** Engines opened for one test each, with their time in the test's hands. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { utf8 } from '../src/base/bytes.ts';
import { ManualClock } from '../src/base/clock.ts';
import { seededRandom } from '../src/base/random.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import type { Open } from '../src/testing/conformance/suite.ts';

const PREFIX = utf8('test/');

export const openMemory: Open = async ({ quotaBytes = 0 }) => {
  const clock = new ManualClock();
  const engine = await openMemoryEngine({ clock, random: seededRandom(1), quotaBytes });
  return { engine, clock, prefix: PREFIX, dispose: () => engine.close() };
};

/** Opens stores below `folder`, each removed when its test is over. */
export function openLmdbIn(folder: string): Open {
  return async ({ quotaBytes = 0 }) => {
    const path = join(folder, randomUUID());
    const clock = new ManualClock();
    const options = { clock, random: seededRandom(1), quotaBytes };
    let engine = await openLmdbEngine(path, options);
    return {
      engine,
      clock,
      prefix: PREFIX,
      reopen: async () => {
        await engine.close();
        engine = await openLmdbEngine(path, options);
        return engine;
      },
      dispose: async () => {
        await engine.close();
        await rm(path, { recursive: true, force: true });
      },
    };
  };
}
