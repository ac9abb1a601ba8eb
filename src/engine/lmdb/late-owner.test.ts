/**
 * An owner that is replaced between two of its own instructions: another process takes the store
 * over while this one's loop stands, in the middle of a work or right before its look.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { claimElsewhere } from './claim.ts';
import { Folder } from './folder.ts';
import { type OpenedStore, openStore, verifyStore } from './opening.ts';
import { sweepSockets } from './owner.ts';

/** Takes the store over from an owner that does not answer, writes, and ends by a crash. */
const SUCCESSOR = `
const { openStore, lastOwner } = await import(process.argv[1]);
const path = process.argv[2];
const standing = lastOwner(path).socket;
const opened = await openStore(path, { shared: true, standing });
const key = new TextEncoder().encode('successor');
await opened.store.commit((table) => table.put(key, key));
process.kill(process.pid, 'SIGKILL');
`;
const OPENING = pathToFileURL(join(import.meta.dirname, 'opening.ts')).href;
const TAKEOVER_MS_MAX = 30_000;

let path: string;
const stores: OpenedStore[] = [];

beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'holdfast-late-'));
});

afterEach(async () => {
  for (const opened of stores.splice(0)) await opened.close();
  rmSync(path, { recursive: true, force: true });
});

async function owner(): Promise<OpenedStore> {
  const opened = await openStore(path, { shared: true });
  stores.push(opened);
  return opened;
}

/** Another process owns the store when this returns, has written, and is dead. */
function takeOver(): void {
  const options = ['--conditions=holdfast/source', '--import', 'tsx', '--input-type=module'];
  try {
    execFileSync(process.execPath, [...options, '--eval', SUCCESSOR, OPENING, path], {
      timeout: TAKEOVER_MS_MAX,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
  } catch (error) {
    if ((error as { signal?: unknown }).signal !== 'SIGKILL') throw error;
  }
}

const put = (opened: OpenedStore, key: string): Promise<void> =>
  opened.store.commit((table) => table.put(utf8(key), utf8(key)));

/** What the next owner finds, and the one after it. */
async function found(...keys: string[]): Promise<string[]> {
  const look = async (): Promise<string[]> => {
    const opened = await openStore(path);
    const there = keys.filter((key) => opened.store.committed.get(utf8(key)) !== undefined);
    await opened.close();
    return there;
  };
  const first = await look();
  expect(await look()).toEqual(first);
  await verifyStore(path);
  return first;
}

describe('an owner that is replaced while it stands still', () => {
  it('does not acknowledge a batch that it writes too late, and the batch never comes back', async () => {
    const late = await owner();
    await put(late, 'before');
    const write = late.store.commit((table) => {
      takeOver();
      table.put(utf8('late'), utf8('late'));
    });
    await expect(write).rejects.toMatchObject({ code: 'storage-failed', outcome: 'unknown' });
    expect(await found('before', 'successor', 'late')).toEqual(['before', 'successor']);
  }, 90_000);

  it('control: without the look before the answer that batch is acknowledged, and lost', async () => {
    const late = await owner();
    late.tree.ensureOwned = () => {};
    await late.store.commit((table) => {
      takeOver();
      table.put(utf8('late'), utf8('late'));
    });
    expect(await found('successor', 'late')).toEqual(['successor']);
  }, 90_000);

  it('says that it does not know of a batch that was on the disk before: the successor has it', async () => {
    const late = await owner();
    const look = late.tree.ensureOwned.bind(late.tree);
    let looks = 0;
    late.tree.ensureOwned = () => {
      // The first is before the work, the second after the sync.
      if (++looks === 2) takeOver();
      look();
    };
    await expect(put(late, 'late')).rejects.toMatchObject({ outcome: 'unknown' });
    expect(await found('successor', 'late')).toEqual(['successor', 'late']);
  }, 90_000);

  it('reads nothing of what its successor wrote, nor anything of its own', async () => {
    const late = await owner();
    await put(late, 'mine');
    await late.store.settle();
    takeOver();
    for (const key of ['mine', 'successor']) {
      expect(() => late.store.committed.get(utf8(key))).toThrow(HoldfastError);
    }
    expect(() => late.store.ensureOwned()).toThrow(/fenced out|stopped/);
  }, 90_000);

  it('folds nothing any more, and takes missing segments for no damage', async () => {
    const late = await owner();
    await put(late, 'mine');
    const { ownerEpoch } = late.store.head;
    takeOver();
    const folder = new Folder({ path, ownerEpoch });
    const mark = { epoch: ownerEpoch, segment: 2, sequence: 3, previous: 1 };
    await expect(folder.fold(mark)).rejects.toMatchObject({
      code: 'storage-failed',
      message: expect.stringContaining('fenced out'),
    });
    await folder.close();
  }, 90_000);

  it('is not replaced by whoever has seen an older state', async () => {
    const present = await owner();
    const { sequence, ownerEpoch } = present.store.head;
    const rival = { pid: 1, host: 'here', socket: 'shared-00.sock' };
    const claim = claimElsewhere(path, { sequence: sequence - 1, ownerEpoch }, rival);
    await expect(claim).rejects.toMatchObject({ code: 'store-in-use' });
    await put(present, 'a');
    expect(text(present.store.committed.get(utf8('a'))!)).toBe('a');
  }, 30_000);

  it('removes no socket that came after its claim, however late it sweeps', async () => {
    const { owner: socket } = await owner();
    sweepSockets(path, ['owner-00.sock'], 'shared-01.sock');
    expect(readdirSync(path)).toContain(socket.record.socket);
  });
});

describe('the strict form', () => {
  it('is never replaced, however long it says nothing', async () => {
    const strict = await openStore(path);
    stores.push(strict);
    const { socket } = strict.owner.record;
    await expect(openStore(path, { shared: true, standing: socket })).rejects.toMatchObject({
      code: 'store-in-use',
    });
  });

  it('replaces nobody', async () => {
    await owner();
    await expect(openStore(path)).rejects.toMatchObject({ code: 'store-in-use' });
  });
});
