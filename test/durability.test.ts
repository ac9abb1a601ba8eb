/**
 * The durability experiments in their shortest form: that they hold, that their controls break, and
 * so that they do not rot. The numbers that count come from `npm run prove -- NAME --long`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { experiment as bitFlips } from '../prove/bit-flips.ts';
import { experiment as killAtSync } from '../prove/kill-at-sync.ts';
import { experiment as powerCut } from '../prove/power-cut.ts';
import { experiment as restoreEra } from '../prove/restore-era.ts';
import { experiment as syncError } from '../prove/sync-error.ts';
import { experiment as visibleAfterSync } from '../prove/visible-after-sync.ts';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { locate } from '../scripts/packages.mjs';

async function perform(
  experiment: Experiment,
  options: Context['options'] = {},
): Promise<{ report: Report; log: string[] }> {
  const scratch = mkdtempSync(join(tmpdir(), 'holdfast-durability-'));
  const undo: (() => unknown)[] = [];
  const log: string[] = [];
  try {
    const report = await experiment.run({
      long: false,
      options,
      scratch,
      seed: 20_261_120,
      log: (line) => log.push(line),
      cleanup: (step) => undo.push(step),
    });
    return { report, log };
  } finally {
    for (const step of undo.reverse()) await step();
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function holds(experiment: Experiment, options?: Context['options']): Promise<void> {
  const { report, log } = await perform(experiment, options);
  expect(report, log.join('\n')).toMatchObject({ ok: true, control: { broke: true } });
}

describe('what was acknowledged', () => {
  it('is above every token of a lost history after any restore', () =>
    holds(restoreEra, { rounds: '12' }));

  it('is answered rightly or not at all after a flipped bit', () =>
    holds(bitFlips, { flips: '80' }));
});

// Needs the Debian package strace, which makes system calls fail, slow or deadly.
describe.skipIf(locate('strace') === undefined)('what was acknowledged, on a bad disk', () => {
  it(
    'is there after a kill at any sync or write',
    () => holds(killAtSync, { transactions: '3' }),
    180_000,
  );

  it('is all that is acknowledged once the disk has failed', () => holds(syncError), 120_000);

  it('was not seen by anyone before it was durable', () => holds(visibleAfterSync));
});

const mayMount =
  process.getuid?.() === 0 && locate('mkfs.ext4') !== undefined && locate('strace') !== undefined;

// Needs root, strace, and loop devices.
describe.skipIf(!mayMount)('what was acknowledged before the power was cut', () => {
  it('is on the disk', () => holds(powerCut, { cuts: '1' }), 120_000);
});
