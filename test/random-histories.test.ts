/** Random histories against the model: the short form of what `prove conformance` runs at length. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MUTANTS } from '../prove/conformance/mutants.ts';
import type { Open } from '../src/testing/conformance/suite.ts';
import { agreeWithModel, describeAgreement } from '../src/testing/random-histories.ts';
import { openLmdbIn, openMemory } from './engines.ts';

const seed = Date.now() % 2 ** 31;

describe('random histories', () => {
  it('on the memory engine agree with the model', async () => {
    const options = { open: openMemory, histories: 150, length: 100, seed };
    const agreement = await agreeWithModel(options);
    expect(agreement.agreed, describeAgreement(agreement)).toBe(true);
    expect([agreement.histories, agreement.steps]).toEqual([150, 15_000]);
  });

  it('on the embedded engine, closed and opened on the way, agree with the model', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-histories-'));
    try {
      const options = { open: openLmdbIn(folder), histories: 10, length: 100, seed };
      const agreement = await agreeWithModel(options);
      expect(agreement.agreed, describeAgreement(agreement)).toBe(true);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('find a known bug, shrink it to a few steps and find it again from the seed', async () => {
    const mutant = MUTANTS.find(({ bug }) => bug === 'deletes the keys of a lease one by one')!;
    const open: Open = async (options) => {
      const fixture = await openMemory(options);
      return { ...fixture, engine: mutant.wrap(fixture.engine), patienceMs: 200 };
    };
    const options = { open, histories: 300, length: 60, seed: 7 };
    const found = await agreeWithModel(options);
    expect(found.agreed).toBe(false);
    const steps = found.counterexample!.steps.map(({ type }) => type);
    expect(steps.length).toBeLessThanOrEqual(6);
    expect(steps).toEqual(expect.arrayContaining(['grant', 'revoke']));
    expect(describeAgreement(found)).toContain('seed 7');
    expect(await agreeWithModel(options)).toEqual(found);
  });
});
