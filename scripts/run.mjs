/** `npm run prove|bench|example -- NAME …`: sets up what is missing and hands over to runner.ts. */
import { ready } from './setup.mjs';
import { runSource } from './tsx.mjs';

ready();
process.exitCode = await runSource('scripts/runner.ts', process.argv.slice(2));
