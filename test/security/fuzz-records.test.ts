/** The short form of `npm run prove -- fuzz-records`: a different seed is a bug report. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fuzzRecords, type RecordsTarget, recordsTargets } from './fuzz-records.ts';

let scratch: string;
let targets: readonly RecordsTarget[];

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
  targets = await recordsTargets(scratch);
});

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.each(['data file', 'journal', 'changes', 'backup'])('%s', (name) => {
  test('altered, it is what it was or is refused; a careless reader is found out', async () => {
    const target = targets.find((one) => one.name === name)!;
    expect(await fuzzRecords(target, 20_261, { inputs: 300 })).toMatchObject({
      finding: undefined,
      inputs: 300,
    });
    const careless = await fuzzRecords(target, 20_261, { inputs: 300 }, target.careless);
    expect(careless.finding).toBeDefined();
  });
});
