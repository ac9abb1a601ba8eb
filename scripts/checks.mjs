/** The checks beside the tests: format and lint, types, the build and the package made from it. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { checkConsumer } from './consumer.mjs';

const CHECK_MS_MAX = 120_000;

/** Runs a tool of this repository; its output is shown only when it fails. */
export function tool(name, ...args) {
  const run = spawnSync(join('node_modules', '.bin', name), args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
    timeout: CHECK_MS_MAX,
    shell: process.platform === 'win32',
  });
  return run.status === 0 ? undefined : `${run.stdout}${run.stderr}${run.error?.message ?? ''}`;
}

export function build() {
  rmSync('dist', { recursive: true, force: true });
  return tool('tsc', '-p', 'tsconfig.build.json');
}

/** name → what runs; each answers undefined when all is well, the complaint otherwise. */
const CHECKS = {
  'format and lint': () => tool('biome', 'ci', '--colors=off', '.'),
  types: () => tool('tsc', '-p', 'tsconfig.json'),
  build,
  publint: () => tool('publint', '--strict'),
  attw: () => tool('attw', '--profile', 'esm-only', '--pack', '.'),
  'installed package': checkConsumer,
};

/** Runs all, whatever fails, and answers how many passed and failed. */
export function runChecks() {
  let failed = 0;
  for (const [name, check] of Object.entries(CHECKS)) {
    const complaint = check();
    console.log(`${complaint === undefined ? 'ok    ' : 'FAILED'} ${name}`);
    if (complaint === undefined) continue;
    failed++;
    console.log(complaint.trimEnd());
  }
  return { passed: Object.keys(CHECKS).length - failed, failed };
}
