/** Every advisory of `docs/security-advisories.md` has its tests, under the names that it gives. */
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

interface Named {
  readonly advisory: string;
  readonly title: string;
  readonly file: string;
}

const ADVISORY = /CVE-\d{4}-\d+|GHSA(?:-\w{4}){3}|[\w-]+\/[\w-]+#\d+/;

const rows = (page: string): string[][] =>
  page
    .split('\n')
    .filter((line) => /^\| (?!advisory)/.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim()));

/** Lists of titles, each followed by "in" and the file where they stand. */
function testsOf([, advisory = '', , cell = '']: string[]): Named[] {
  return cell.split('; ').flatMap((part) => {
    const [titles = '', file = ''] = part.split(' in ').length < 2 ? [] : splitLast(part, ' in ');
    const names = [...titles.matchAll(/`([^`]+)`/g)].map((match) => match[1]!);
    return names.map((title) => ({ advisory, title, file: file.replaceAll('`', '') }));
  });
}

function splitLast(text: string, by: string): [string, string] {
  const at = text.lastIndexOf(by);
  return [text.slice(0, at), text.slice(at + by.length)];
}

/** Titles of what runs; `test.skip(` and `test.todo(` are not among them. */
function titlesIn(source: string): string[] {
  const pattern = /(?:\b(?:test|it|describe)\(|\)\(|\bname:)\s*(['"`])(.+?)\1/g;
  return [...source.matchAll(pattern)].map((match) => match[2]!);
}

function missing(page: string): string[] {
  return rows(page)
    .flatMap(testsOf)
    .filter(
      ({ file, title }) =>
        !titlesIn(existsSync(file) ? readFileSync(file, 'utf8') : '').some((one) =>
          one.startsWith(title),
        ),
    )
    .map(({ advisory, title, file }) => `${advisory}: no "${title}" in ${file}`);
}

const PAGE = readFileSync('docs/security-advisories.md', 'utf8');

test('every test that is named for an advisory is there', () => {
  expect(missing(PAGE)).toEqual([]);
});

test('every row names an advisory, and at least one test', () => {
  const found = rows(PAGE);
  expect(found.length).toBeGreaterThan(35);
  for (const row of found) {
    expect(row[1]).toMatch(ADVISORY);
    expect([row[1], testsOf(row).length]).not.toEqual([row[1], 0]);
  }
  const ids = found.flatMap((row) => row[1]!.match(new RegExp(ADVISORY, 'g')) ?? []);
  expect(ids.filter((id, i) => ids.indexOf(id) !== i)).toEqual([]);
});

test('control: a test that is not there, one that is skipped, and a file that is gone are named', () => {
  const page =
    '| CVE-1-1 | x | `an absent test` in `test/security/tls.test.ts`; `y` in `test/gone.ts` |';
  expect(missing(page)).toEqual([
    'CVE-1-1: no "an absent test" in test/security/tls.test.ts',
    'CVE-1-1: no "y" in test/gone.ts',
  ]);
  expect(titlesIn("test.skip('a', f); test.todo('b'); it('c', f); test.each(x)('d', f);")).toEqual([
    'c',
    'd',
  ]);
});
