/** Writes every generated document to its place. */
import { writeFileSync } from 'node:fs';
import { DOCUMENTS } from './documents.ts';

for (const [path, make] of Object.entries(DOCUMENTS)) {
  writeFileSync(path, make());
  console.log(path);
}
