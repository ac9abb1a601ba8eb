import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { generateAll } from '../../scripts/generate-messages.mjs';

const FOLDER = new URL('../../src/wire/messages/gen/', import.meta.url);

test('the committed code is what `npm run generate` makes of the .proto files', () => {
  const texts = generateAll();
  expect(readdirSync(FOLDER).sort()).toEqual([...texts.keys()].map((name) => `${name}.ts`).sort());
  for (const [name, text] of texts) {
    expect(readFileSync(new URL(`${name}.ts`, FOLDER), 'utf8') === text, name).toBe(true);
  }
});
