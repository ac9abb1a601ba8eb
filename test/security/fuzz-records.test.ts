/** The short form of `npm run prove -- fuzz-records`: a different seed is a bug report. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Bytes } from '../../src/base/bytes.ts';
import { judged } from '../fuzz-judge.ts';
import { FAULTY_READERS, plantInReader, readSegmentWith } from './fuzz-journal.ts';
import { fuzzRecords, type RecordsTarget, recordsTargets } from './fuzz-records.ts';

let scratch: string;
let targets: readonly RecordsTarget[];

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
  targets = await recordsTargets(scratch);
});

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.each(['data file', 'journal', 'segments', 'changes', 'backup'])('%s', (name) => {
  test('altered, it is what it was or is refused; a careless reader is found out', async () => {
    const target = targets.find((one) => one.name === name)!;
    const { result, holdsMemory } = await judged(
      name,
      () => fuzzRecords(target, 1, { inputs: 50 }),
      () => fuzzRecords(target, 20_261, { inputs: 300 }),
    );
    expect(result).toMatchObject({ finding: undefined, inputs: 300 });
    expect(holdsMemory).toBe(false);
    const careless = await fuzzRecords(target, 20_261, { inputs: 300 }, target.careless);
    expect(careless.finding).toBeDefined();
  });
});

describe('control: a reader of the journal with one fault is found out', () => {
  test.each(Object.keys(FAULTY_READERS))('it %s', async (name) => {
    const format = await plantInReader(scratch, name);
    const target = targets.find((one) => one.name === 'journal')!;
    const read = async (bytes: Bytes): Promise<string> => readSegmentWith(format, bytes);
    expect((await fuzzRecords(target, 20_261, { inputs: 1_000 }, read)).finding).toBeDefined();
  });
});
