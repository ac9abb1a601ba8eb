/** Compiles what comparisons need into `.cache/bench`, as the repository is laid out. */
import { copyFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { tool } from './checks.mjs';

const PLACE = join('.cache', 'bench');

/** Answers the compiled runner. */
export function compile() {
  rmSync(PLACE, { recursive: true, force: true });
  const complaint = tool('tsc', '-p', 'tsconfig.bench.json');
  if (complaint !== undefined) throw new Error(complaint);
  // Plain JavaScript and data are no business of the compiler.
  for (const name of readdirSync('scripts')) {
    if (/\.(mjs|json)$/.test(name))
      copyFileSync(join('scripts', name), join(PLACE, 'scripts', name));
  }
  return join(PLACE, 'scripts', 'runner.js');
}
