/** The conformance suite on the embedded engine, closed and opened again where a case asks. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, it } from 'vitest';
import { runConformance } from '../src/testing/conformance/run.ts';
import { openLmdbIn } from './engines.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-conformance-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

runConformance({ describe, it }, { name: 'lmdb', open: openLmdbIn(folder) });
