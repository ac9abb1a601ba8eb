/** `npm run docs`: writes the documents that are made from the sources. */
import { ready } from './setup.mjs';
import { runSource } from './tsx.mjs';

ready();
process.exitCode = await runSource('scripts/write-documents.ts');
