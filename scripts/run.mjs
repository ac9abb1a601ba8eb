/**
 * `npm run prove|bench|example -- NAME …`: sets up what is missing and hands over to runner.ts.
 * Comparisons run compiled: what a loader adds to functions would be measured as ours.
 */
import { compile } from './compile.mjs';
import { ready } from './setup.mjs';
import { runNode, runSource } from './tsx.mjs';

ready();
const args = process.argv.slice(2);
process.exitCode = await (args[0] === 'bench'
  ? runNode([compile(), ...args])
  : runSource('scripts/runner.ts', args));
