/** The disk refuses a sync or a root of the marks: nothing that was admitted is forgotten. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { locate } from '../../scripts/packages.mjs';
import { LmdbMarks } from './mark-table.ts';

/** Raises a mark eight times, saying what came of it; then a job, which looks at nothing before. */
const PROGRAM = `
// A wait for LMDB that has no end would hold up an exit, too.
setTimeout(() => process.kill(process.pid, 'SIGKILL'), 20_000).unref();
const { LmdbMarks } = await import(process.argv[1] + '/mark-table.ts');
const { LmdbJobs } = await import(process.argv[1] + '/job.ts');
const say = (work) => work.then(() => 'done', ({ code }) => code).then((how) => console.log(how));
const marks = LmdbMarks.open(process.argv[2]);
for (let token = 1n; token <= 8n; token++) {
  await say(marks.raise({ resource: 'r', token, holder: 'h', fresh: false }, 'reign', 1));
}
const jobs = LmdbJobs.open(process.argv[2]);
await say(jobs.update('j', () => ({ answer: 1, next: { token: 1n } })));
console.log('end');
process.exit();
`;

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-bad-disk-'));
});

afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

function disturbed(call: string, at: number): string[] {
  const ran = spawnSync(
    locate('strace')!,
    [
      ...['-f', '-qqq', '-o', '/dev/null', '-P', join(root, 'data.mdb')],
      ...['-e', `trace=${call}`, '-e', `inject=${call}:error=EIO:when=${at}`],
      ...[process.execPath, '--conditions=holdfast/source', '--import', 'tsx'],
      ...['--input-type=module', '--eval', PROGRAM],
      ...[pathToFileURL(import.meta.dirname).href, root],
    ],
    // One thread, so that its N-th call is the N-th of all.
    { encoding: 'utf8', timeout: 30_000, env: { ...process.env, UV_THREADPOOL_SIZE: '1' } },
  );
  // Of a page LMDB would say more than it has room for (docs/adr/0026).
  expect(ran.stderr).not.toContain('Write error');
  return ran.stdout.trim().split('\n');
}

describe.skipIf(locate('strace') === undefined)('marks on a disk that refuses once', () => {
  it.each([
    { what: 'a sync', call: 'fdatasync', at: 4 },
    { what: 'a root', call: 'pwrite64', at: 9 },
  ])('$what: say so, and hold what was admitted', async ({ call, at }) => {
    const said = disturbed(call, at);
    expect(said.at(-1)).toBe('end');
    expect(said).toHaveLength(10);
    expect(new Set(said.slice(0, -1))).toEqual(new Set(['done', 'storage-failed']));
    const admitted = said.slice(0, 8).lastIndexOf('done') + 1;
    const marks = LmdbMarks.open(root);
    expect((await marks.mark('r')).token).toBeGreaterThanOrEqual(BigInt(admitted));
    await marks.close();
  });
});
