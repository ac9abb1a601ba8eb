/** `npm run build`: a clean `dist/` by the compiler alone. */
import { build } from './checks.mjs';
import { ready } from './setup.mjs';

ready();
const complaint = build();
if (complaint !== undefined) {
  console.error(complaint.trimEnd());
  process.exitCode = 1;
}
