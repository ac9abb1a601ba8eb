import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connect } from '../src/client.ts';
import { FencedDirectory } from '../src/guard/file.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-grant-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

describe('a grant at a guard', () => {
  it('is presented as it is, and refused once a later one has acted', async () => {
    await using client = await connect('memory:');
    await using directory = await FencedDirectory.open(root);
    const first = await client.lock('file').acquire();
    await directory.write(first, 'f', 'one');
    await first.release();
    const second = await client.lock('file').acquire();
    await directory.write(second, 'f', 'two');
    await expect(directory.write(first, 'f', 'late')).rejects.toMatchObject({
      code: 'stale',
      details: { token: first.token, mark: second.token },
    });
    await second.release();
  });

  it('that is fresh and yet refused lifts the era, and the next grant passes the mark', async () => {
    const marks: bigint[] = [];
    await using directory = await FencedDirectory.open(root, {
      onFreshRefused: ({ mark }) => marks.push(mark),
    });
    // What an authority granted that was then restored from an old backup.
    await directory.write(900_000n, 'f', 'before the restore');
    await using client = await connect('memory:');
    const grant = await client.lock('file').acquire();
    await expect(
      directory.write({ token: grant.token, fresh: true }, 'f', 'x'),
    ).rejects.toMatchObject({ code: 'stale' });
    expect(marks).toEqual([900_000n]);
    expect(await grant.reportStale(marks[0]!)).toMatchObject({ lifted: true });
    await grant.release();
    const next = await client.lock('file').acquire();
    await directory.write(next, 'f', 'after');
    expect((await directory.read('f')).toString()).toBe('after');
    await next.release();
  });
});
