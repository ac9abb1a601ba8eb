import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { missing } from '../../scripts/packages.mjs';
import { type Certificate, certificate, TOOLS } from './harness.ts';
import { PEER_CHECKS } from './peers.ts';

const lacking = missing(TOOLS);
const reason = lacking.length > 0 ? ` (skipped: ${lacking.join(', ')} not installed)` : '';

describe.skipIf(lacking.length > 0)(`we and another implementation agree${reason}`, () => {
  let scratch: string;
  let made: Certificate;
  const steps: (() => unknown)[] = [];

  beforeAll(() => {
    scratch = mkdtempSync(join(tmpdir(), 'holdfast-peers-'));
    made = certificate(scratch);
  });
  afterEach(async () => {
    for (const step of steps.splice(0).reverse()) await step();
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  it.each(PEER_CHECKS.map((check) => [check.peer, check.role, check.what, check] as const))(
    '%s, we as %s: %s',
    async (_peer, _role, _what, check) => {
      const undo = (step: () => unknown): void => {
        steps.push(step);
      };
      const bench = { undo, scratch, certificate: made, scale: 1 };
      await expect(check.run(bench)).resolves.toBeUndefined();
    },
    30_000,
  );
});
