/** Control: the judge of the fuzzers finds an input that hangs, and one that leaves something behind. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { heartbeat, judged } from './fuzz-judge.ts';

test('a little that is kept of every input is found', async () => {
  const kept: Uint8Array[] = [];
  const inputs = (keep: boolean): void => {
    for (let seed = 0; seed < 100_000; seed++) {
      heartbeat(seed);
      const bytes = new Uint8Array(300);
      if (keep) kept.push(bytes);
    }
  };
  const leaking = await judged(
    'leaking',
    () => inputs(false),
    () => inputs(true),
  );
  expect(kept).toHaveLength(100_000);
  expect(leaking.holdsMemory).toBe(true);
  const sound = await judged(
    'sound',
    () => inputs(false),
    () => inputs(false),
  );
  expect(sound.holdsMemory).toBe(false);
});

test.each([
  'for (;;);',
  'for (;;) await undefined;',
  'await new Promise(() => setInterval(() => {}, 9));',
])('an input that hangs is found with its seed, and ends the run: %s', (hang) => {
  const judge = new URL('./fuzz-judge.ts', import.meta.url).href;
  const source = `
      import { heartbeat, judged } from '${judge}';
      await judged('planted', () => {}, async () => {
        heartbeat(41);
        heartbeat(42);
        ${hang}
      }, 400);
      console.log('came to its end');`;
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-judge-'));
  const file = join(directory, 'hanging.mts');
  writeFileSync(file, source);
  const flags = ['--conditions=holdfast/source', '--import', 'tsx'];
  const run = spawnSync(process.execPath, [...flags, file], { timeout: 30_000 });
  rmSync(directory, { recursive: true });
  expect(run.signal).toBe('SIGKILL');
  expect(run.stderr.toString()).toContain('HANGS in planted, seed 42');
  expect(run.stdout.toString()).toBe('');
});
