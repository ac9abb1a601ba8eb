/** The scripts that run everything else. */
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseArguments } from '../scripts/arguments.ts';
import { install, locate, missing } from '../scripts/packages.mjs';
import { KINDS, type Kind, load, names } from '../scripts/runner.ts';
import { afterword, closingLine, tally } from '../scripts/tally.mjs';

describe('arguments', () => {
  test('bare words are words, an option takes the next bare word as its value', () => {
    expect(parseArguments(['paused-holder', '--guard', 'redis', '--seed=7'])).toEqual({
      words: ['paused-holder'],
      options: { guard: 'redis', seed: '7' },
    });
  });

  test('a flag never swallows the word after it', () => {
    expect(parseArguments(['--long', 'engine', '--json'])).toEqual({
      words: ['engine'],
      options: { long: true, json: true },
    });
  });

  test('an option at the end or before another option is on', () => {
    expect(parseArguments(['--fast', '--slow']).options).toEqual({ fast: true, slow: true });
  });

  test('a value may contain an equals sign', () => {
    expect(parseArguments(['--url=postgres://h/?a=b']).options).toEqual({
      url: 'postgres://h/?a=b',
    });
  });
});

describe('packages', () => {
  test('a command on the path is found, an invented one is not', () => {
    expect(existsSync(locate('node') ?? '')).toBe(true);
    expect(locate('holdfast-no-such-command')).toBeUndefined();
  });

  test('a path is looked for as it stands', () => {
    expect(locate(process.execPath)).toBe(process.execPath);
    expect(locate('/no/such/path')).toBeUndefined();
  });

  test('each missing package is named once', () => {
    const needs = { node: 'nodejs', 'no-such-a': 'brings-both', 'no-such-b': 'brings-both' };
    expect(missing(needs)).toEqual(['brings-both']);
  });

  test('nothing is installed when nothing is missing', () => {
    expect(install({ node: 'nodejs' })).toEqual([]);
  });
});

describe('the closing line', () => {
  const report = (over: object): object => ({
    numPassedTests: 3,
    numFailedTests: 0,
    numPendingTests: 0,
    numTodoTests: 0,
    testResults: [],
    ...over,
  });

  test('counts what passed and failed, and names skipped tests only if there are any', () => {
    expect(closingLine(tally(report({}), 0))).toBe('3 passed, 0 failed');
    expect(closingLine(tally(report({ numPendingTests: 2 }), 0))).toBe(
      '3 passed, 0 failed, 2 skipped',
    );
  });

  test('a file that does not load counts as a failure and is named', () => {
    const broken = report({
      testResults: [
        { status: 'failed', name: 'a.test.ts', message: 'no such import', assertionResults: [] },
      ],
    });
    expect(tally(broken, 1).failed).toBe(1);
    expect(afterword(broken)).toEqual(['failed to load a.test.ts: no such import']);
  });

  test('a failed test counts once and is shown with its first line', () => {
    const assertion = { status: 'failed', fullName: 'x holds', failureMessages: ['no\n at …'] };
    const failed = report({
      numFailedTests: 1,
      testResults: [{ status: 'failed', name: 'a.test.ts', assertionResults: [assertion] }],
    });
    expect(tally(failed, 1).failed).toBe(1);
    expect(afterword(failed)).toEqual(['failed: a.test.ts › x holds', '  no']);
  });

  test('a skipped group is named once', () => {
    const test = { status: 'skipped', ancestorTitles: ['etcd (not installed)'], fullName: 'x' };
    const file = { status: 'passed', name: 'a.test.ts', assertionResults: [test, test] };
    expect(afterword(report({ testResults: [file] }))).toEqual([
      'skipped: a.test.ts › etcd (not installed)',
    ]);
  });

  test('an error outside every test, a stopped run and a missing report are failures', () => {
    expect(tally(report({}), 1).failed).toBe(1);
    expect(tally(report({}), undefined).failed).toBe(1);
    expect(tally(null, 0)).toEqual({ passed: 0, failed: 1, skipped: 0 });
  });

  test('checks are counted with the tests', () => {
    expect(tally(report({}), 0, { passed: 5, failed: 1 })).toEqual({
      passed: 8,
      failed: 1,
      skipped: 0,
    });
  });
});

const programs = await Promise.all(
  (Object.keys(KINDS) as Kind[]).map(async (kind) =>
    (await names(kind)).map((name) => [kind, name] as const),
  ),
).then((kinds) => kinds.flat());

describe.skipIf(programs.length === 0)('programs', () => {
  test.each(programs)('%s %s loads, says what it is about and can be run', async (kind, name) => {
    const program = await load(kind, name);
    expect(program.about).toMatch(/^.{10,100}$/);
    expect(program.run).toBeTypeOf('function');
    for (const [command, name] of Object.entries(program.needs ?? {})) {
      expect([command, name]).toEqual([expect.stringMatching(/\S/), expect.stringMatching(/\S/)]);
    }
  });
});
