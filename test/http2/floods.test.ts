import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locate } from '../../scripts/packages.mjs';
import { FLOODS, runFlood, type Victim, victim } from './floods.ts';
import { certificate } from './harness.ts';

/** Those that need patience of the server are left to `prove/floods.ts`, but for one. */
const QUICK = FLOODS.filter((flood) => !flood.deaf && (flood.connections ?? 1) === 1);

describe.skipIf(!locate('openssl'))('floods (openssl makes the certificate)', () => {
  const steps: (() => unknown)[] = [];
  const undo = (step: () => unknown): void => {
    steps.push(step);
  };
  let limited: Victim;
  let open: Victim;

  beforeAll(async () => {
    const scratch = mkdtempSync(join(tmpdir(), 'holdfast-floods-'));
    undo(() => rmSync(scratch, { recursive: true, force: true }));
    const made = certificate(scratch);
    [limited, open] = await Promise.all([victim(undo, made, 'limits'), victim(undo, made, 'off')]);
  });
  afterAll(async () => {
    for (const step of steps.reverse()) await step();
  });

  it.each(QUICK.map((flood) => [flood.name, flood] as const))(
    '%s: the attacker loses its connection, and a well-behaved client is served',
    async (_name, flood) => {
      const result = await runFlood(undo, flood, limited, 8_000);
      expect(result.lost).toBe(result.attackers);
      expect(result.grownBytes).toBeLessThan(128 * 2 ** 20);
      expect(result.served).toBeGreaterThan(0);
    },
  );

  it.each(QUICK.slice(0, 6).map((flood) => [flood.name, flood] as const))(
    '%s: without limits the attacker goes on',
    async (_name, flood) => {
      const result = await runFlood(undo, flood, open, 400);
      expect(result.lost).toBe(0);
    },
  );
});
