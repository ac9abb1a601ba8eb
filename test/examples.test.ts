/** The stories that need no server of Debian, run as a reader runs them. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { Report } from '../scripts/experiment.ts';
import { names } from '../scripts/runner.ts';

const run = promisify(execFile);

async function outcome(name: string): Promise<Report> {
  const args = ['scripts/run.mjs', 'example', name, '--json'];
  const { stdout } = await run(process.execPath, args, { timeout: 100_000 });
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Report;
}

describe('a story ends well with the guard and badly without', () => {
  test('two clients and a storage: the update of neither is lost', async () => {
    const { ok, figures, control } = await outcome('storage-and-the-paused-client');
    expect({ ok, figures }).toEqual({
      ok: true,
      figures: { 'updates lost': 0, 'late writes refused': 1 },
    });
    expect(control).toEqual({ 'updates lost': 1, 'late writes refused': 0 });
  }, 120_000);

  test('two gates and lost confirmations: each ticket lets one person in', async () => {
    const { ok, figures, control } = await outcome('ticket-gates');
    expect({ ok, figures }).toEqual({
      ok: true,
      figures: {
        'persons let in': '24',
        'tickets that let two in': 0,
        'tickets that let nobody in': 0,
      },
    });
    expect(control['tickets that let two in']).toBeGreaterThan(0);
    expect(control['tickets that let nobody in']).toBeGreaterThan(0);
  }, 120_000);

  test('a printer and a charging pad under a split network: late commands are refused', async () => {
    const { ok, figures, control } = await outcome('printer-and-charging-pad');
    expect({ ok, watts: figures['watts into the phone'] }).toEqual({ ok: true, watts: 15 });
    expect(control['watts into the phone']).toBe(3_000);
  }, 120_000);

  test('a release by laptops that sleep: it is whole', async () => {
    const { ok, figures, control } = await outcome('artifact-publishing');
    expect({ ok, mixed: figures['releases mixed'] }).toEqual({ ok: true, mixed: 1 });
    expect(control['releases mixed']).toBe(2);
  }, 120_000);
});

test('every story is listed in examples/README.md', async () => {
  const text = readFileSync('examples/README.md', 'utf8');
  const missing = (await names('example')).filter((name) => !text.includes(`(${name}.ts)`));
  expect(missing).toEqual([]);
});
