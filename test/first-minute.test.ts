/** The demonstration that a newcomer sees first, run as he runs it. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

test('npm run example -- first-minute: the ghost is refused, and loses a deposit unguarded', async () => {
  const run = promisify(execFile);
  const args = ['scripts/run.mjs', 'example', 'first-minute', '--json'];
  const { stdout } = await run(process.execPath, args, { timeout: 60_000 });
  const report = JSON.parse(stdout.trim().split('\n').at(-1)!) as object;
  expect(report).toMatchObject({
    ok: true,
    figures: { 'balance at the end': 180, 'deposits lost': 0, 'stale writes refused': 1 },
    control: { 'balance at the end': 130, 'deposits lost': 1, 'stale writes refused': 0 },
  });
  expect(stdout).toMatch(/stale: token \d+ < mark \d+/);
});
