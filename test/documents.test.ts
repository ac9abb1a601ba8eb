/** The documents keep up with the sources and lead where they say. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { expect, test } from 'vitest';
import { DOCUMENTS } from '../scripts/documents.ts';

test.each(Object.entries(DOCUMENTS))('%s is current (npm run docs)', (path, make) => {
  expect(readFileSync(path, 'utf8')).toBe(make());
});

const pages = [
  ...readdirSync('.').filter((name) => name.endsWith('.md')),
  ...['docs', 'bench', 'examples']
    .filter((folder) => existsSync(folder))
    .flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.md'))
        .map((name) => posix.join(folder, name)),
    ),
];

function deadLinks(page: string, text: string): string[] {
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map((match) => match[1]!.split('#')[0]!)
    .filter((target) => target !== '' && !/^[a-z]+:/.test(target))
    .filter((target) => !existsSync(join(posix.dirname(page), target)))
    .map((target) => `${page} links to ${target}, which does not exist`);
}

test('every link between documents leads somewhere', () => {
  expect(pages.flatMap((page) => deadLinks(page, readFileSync(page, 'utf8')))).toEqual([]);
});

test('control: a link to nothing is named', () => {
  const text = 'See [one](gone.md), [two](https://example.com) and [three](LICENSE#top).';
  expect(deadLinks('README.md', text)).toEqual([
    'README.md links to gone.md, which does not exist',
  ]);
});

test('every decision record has a number of its own and a title', () => {
  const records = readdirSync('docs/adr').filter((name) => /^\d{4}-/.test(name));
  const numbers = records.map((name) => name.slice(0, 4));
  expect(numbers.filter((number, i) => numbers.indexOf(number) !== i)).toEqual([]);
  for (const name of records) {
    expect(readFileSync(join('docs/adr', name), 'utf8')).toMatch(/^# \S/);
  }
});
