/** `npm start [-- OPTIONS]`: sets up and serves, from the sources. */
import { ready } from './setup.mjs';
import { runSource } from './tsx.mjs';

ready();
console.error('to see what it is for: npm run example -- first-minute');
process.exitCode = await runSource('src/cli/main.ts', ['serve', ...process.argv.slice(2)]);
