/**
 * `npm test [-- FILTER]`: sets up, runs every test, ends with one line `N passed, N failed`.
 * `--checks` runs format, lint, types, build and package checks first and counts them too.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runChecks } from './checks.mjs';
import { install } from './packages.mjs';
import { ready } from './setup.mjs';
import { whereTheyStand } from './standstill.mjs';
import { afterword, closingLine, tally } from './tally.mjs';

/** An idle machine of two cores needs a fraction of it; a busy one must still come to an end. */
const TESTS_MS_MAX = 1_500_000;
/** No test has ended for so long: what is under way will not end. */
const STANDSTILL_MS_MAX = 300_000;
const LOOK_MS = 1_000;

const args = process.argv.slice(2);
const filters = args.filter((arg) => arg !== '--checks');

ready();
const lacking = install(JSON.parse(readFileSync('scripts/packages-needed.json', 'utf8')));
if (lacking.length > 0) {
  console.log(`not installed: ${lacking.join(', ')} (Debian packages; installing needs root)`);
  console.log('tests that need them are skipped');
}
const failedChecks = args.includes('--checks') ? runChecks() : { passed: 0, failed: 0 };
const { report, ended } = await runTests(filters);
for (const line of afterword(report)) console.log(line);
const result = tally(report, ended, failedChecks);
console.log(closingLine(result));
process.exitCode = result.failed > 0 || result.passed === 0 ? 1 : 0;

async function runTests(words) {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
  const output = join(folder, 'report.json');
  try {
    const ended = await vitest(folder, [
      'run',
      '--reporter=default',
      '--reporter=json',
      '--reporter=./scripts/under-way.mjs',
      `--outputFile.json=${output}`,
      ...words,
    ]);
    return { report: existsSync(output) ? JSON.parse(readFileSync(output, 'utf8')) : null, ended };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Answers the exit code, or undefined when the tests did not come to an end. */
function vitest(folder, words) {
  const underWay = join(folder, 'under-way');
  // A group of its own, so that workers end with it when the time is up.
  const child = spawn(process.execPath, ['node_modules/vitest/vitest.mjs', ...words], {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
    env: { ...process.env, HOLDFAST_UNDER_WAY: underWay },
  });
  const end = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended by itself meanwhile.
    }
  };
  const stop = () => {
    end();
    process.exit(130);
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  return new Promise((resolve) => {
    const began = Date.now();
    let late;
    const timer = setInterval(() => {
      const changed = existsSync(underWay) ? statSync(underWay).mtimeMs : began;
      const stands = Date.now() - changed > STANDSTILL_MS_MAX;
      if (!stands && Date.now() - began < TESTS_MS_MAX) return;
      clearInterval(timer);
      console.log(stands ? 'the tests do not go on' : 'the tests take too long');
      if (existsSync(underWay)) console.log(readFileSync(underWay, 'utf8'));
      late = whereTheyStand(child.pid).finally(end);
    }, LOOK_MS);
    child.on('exit', async (code) => {
      clearInterval(timer);
      await late;
      resolve(late ? undefined : (code ?? 1));
    });
  });
}
