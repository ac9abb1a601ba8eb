/** The recipe suite on every engine that needs nothing but this process. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, it } from 'vitest';
import { ManualClock } from '../src/base/clock.ts';
import type { Open } from '../src/testing/conformance/suite.ts';
import { passOn } from '../src/testing/recipes/manual-stage.ts';
import { runRecipes } from '../src/testing/recipes/run.ts';
import type { OpenStage } from '../src/testing/recipes/world.ts';
import { openLmdbIn, openMemory } from './engines.ts';

function staged(open: Open): OpenStage {
  return async () => {
    const { engine, clock, dispose } = await open({});
    if (!(clock instanceof ManualClock)) throw new Error('expected a clock in our hands');
    const pass = passOn(clock);
    return { engine, clock, namespace: 'suite/', ttlMs: 1_000, pass, dispose };
  };
}

const folder = await mkdtemp(join(tmpdir(), 'holdfast-recipes-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

runRecipes({ describe, it }, { name: 'memory', open: staged(openMemory) });
runRecipes({ describe, it }, { name: 'lmdb', open: staged(openLmdbIn(folder)) });
