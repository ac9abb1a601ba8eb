import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { open } from 'lmdb';
import { afterEach, describe, expect, it } from 'vitest';
import { admit, type Rule } from './fence.ts';
import type { Claim } from './gate.ts';
import { LmdbMarks } from './mark-table.ts';
import { MemoryMarks } from './marks.ts';

const roots: string[] = [];
const fresh = (): string => {
  roots.push(mkdtempSync(join(tmpdir(), 'holdfast-marks-')));
  return roots.at(-1)!;
};
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true });
});

const claim = (token: bigint, resource = 'r'): Claim => ({
  resource,
  token,
  holder: 'h',
  fresh: false,
});

describe('stored marks', () => {
  it('follow the pure rule, in memory and on disk alike', async () => {
    const attempts = fc.array(
      fc.record({
        token: fc.bigInt(1n, 6n),
        rule: fc.constantFrom<Rule>('reign', 'once'),
        resource: fc.constantFrom('a', 'b'),
      }),
      { maxLength: 12 },
    );
    await fc.assert(
      fc.asyncProperty(attempts, async (list) => {
        for (const store of [new MemoryMarks(), LmdbMarks.open(fresh())]) {
          const marks = { a: 0n, b: 0n };
          for (const { token, rule, resource } of list) {
            const expected = admit(marks[resource as 'a'], token, rule);
            const verdict = await store.raise(claim(token, resource), rule, 1);
            expect(verdict.admitted).toBe(expected.admitted);
            expect(verdict.mark.token).toBe(expected.mark);
            marks[resource as 'a'] = expected.mark;
          }
          expect((await store.mark('a')).token).toBe(marks.a);
          await store.close();
        }
      }),
      { numRuns: 20 },
    );
  });

  it('are there after closing and opening again', async () => {
    const root = fresh();
    const first = LmdbMarks.open(root);
    await first.raise(claim(34n), 'reign', 7);
    await first.close();
    const second = LmdbMarks.open(root);
    expect(await second.mark('r')).toEqual({ token: 34n, holder: 'h', atMs: 7 });
    expect((await second.raise(claim(33n), 'reign', 8)).admitted).toBe(false);
    await second.close();
  });

  it('stop the guard when a record is damaged, instead of letting a stale token pass', async () => {
    const root = fresh();
    const first = LmdbMarks.open(root);
    await first.raise(claim(34n), 'reign', 7);
    await first.close();
    const raw = open<string>({ path: root, noSubdir: false, encoding: 'string' } as object);
    const stored = raw.get('mark/r')!;
    await raw.put('mark/r', stored.replace('"34"', '"14"'));
    await raw.close();
    const second = LmdbMarks.open(root);
    await expect(second.raise(claim(33n), 'reign', 8)).rejects.toMatchObject({ code: 'corrupt' });
    await second.close();
  });
});
