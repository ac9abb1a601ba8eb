import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bytes, toHex, utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import { seededRandom } from '../../base/random.ts';
import { HoldfastError } from '../../model/errors.ts';
import { scrubInBackground } from './background.ts';
import { DATA_FILE } from './directory.ts';
import { openStore, verifyStore } from './opening.ts';
import { listenAsOwner } from './owner.ts';
import { META_TRANSACTION, PageFile } from './pages.ts';
import { inspect, scrubNow, withDataFile } from './scrub.ts';
import { PageMap, walkTree } from './walk.ts';

const SEED = 20_261_121;
let directory: string;
let path: string;
let file: string;
let original: Buffer;
let contents: string;

/** A store with a history: overwritten, removed, large values, several commits. */
async function makeStore(at: string): Promise<void> {
  const random = seededRandom(SEED);
  const { store, close } = await openStore(at);
  for (let commit = 0; commit < 90; commit++) {
    await store.commit((table) => {
      for (let i = 0; i < 6; i++) {
        const key = utf8(`k${random.integer(0, 400)}`);
        if (random.chance(0.2)) table.remove(key);
        else table.put(key, random.bytes(random.integer(0, random.chance(0.05) ? 9_000 : 200)));
      }
    });
  }
  await close();
}

/** What the file holds, read without LMDB, after a scrub; throws when the scrub objects. */
function readChecked(at: string): string {
  return withDataFile(at, (fd, bytes) => {
    const seen = inspect(fd, bytes);
    const pages = new PageFile(fd, bytes, seen.pageSize, true);
    scrubNow(pages, seen, true);
    let all = `${seen.head?.sequence}`;
    const take = (key: Bytes, data: Bytes): void => {
      all += `|${toHex(key)}=${toHex(data)}`;
    };
    const walk = walkTree(pages, seen.meta, seen.meta.main, new PageMap(seen.meta.lastPage), take);
    while (!walk.next().done);
    return all;
  });
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-damage-'));
  path = join(directory, 'store');
  file = join(path, DATA_FILE);
  await makeStore(path);
  original = readFileSync(file);
  contents = readChecked(file);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

function put(bytes: Buffer, position: number): void {
  const fd = openSync(file, 'r+');
  try {
    writeSync(fd, bytes, 0, bytes.length, position);
  } finally {
    closeSync(fd);
  }
}

/** Flips one bit, looks, puts it back. True: refused; false: the contents were right. */
function flip(bit: number): boolean {
  const position = bit >>> 3;
  put(Buffer.from([original[position]! ^ (1 << (bit & 7))]), position);
  try {
    const seen = readChecked(file);
    if (seen !== contents) throw new Error(`bit ${bit} changed the answer and was not noticed`);
    return false;
  } catch (error) {
    if (!HoldfastError.is(error)) throw error;
    return true;
  } finally {
    put(Buffer.from([original[position]!]), position);
  }
}

describe('one flipped bit', () => {
  it('in either root is refused or does not matter', () => {
    let refused = 0;
    for (let bit = 0; bit < 200 * 8; bit += 7) {
      if (flip(bit)) refused++;
      if (flip(bit + 4_096 * 8)) refused++;
    }
    expect(refused).toBeGreaterThan(200);
  });

  it('anywhere in the file is refused or does not matter', () => {
    const random = seededRandom(SEED);
    let refused = 0;
    for (let i = 0; i < 400; i++) if (flip(random.integer(0, original.length * 8))) refused++;
    // What is left are pages that nobody uses, and the room between nodes.
    expect(refused).toBeGreaterThan(40);
  });

  it('in a transaction number never takes back the newest commit', () => {
    let refused = 0;
    for (const slot of [0, 1]) {
      for (let bit = 0; bit < 64; bit++) {
        if (flip((slot * 4_096 + META_TRANSACTION) * 8 + bit)) refused++;
      }
    }
    // The others look like a root that the disk refused, and are completed to the same contents.
    expect(refused).toBeGreaterThanOrEqual(120);
  });
});

describe('damage', () => {
  it('by a whole page that went back to an older state is noticed', () => {
    const random = seededRandom(SEED);
    let noticed = 0;
    for (let i = 0; i < 40; i++) {
      const from = random.integer(2, original.length / 4_096);
      const to = random.integer(2, original.length / 4_096);
      put(original.subarray(from * 4_096, from * 4_096 + 4_096), to * 4_096);
      try {
        expect(readChecked(file)).toBe(contents);
      } catch (error) {
        if (!HoldfastError.is(error)) throw error;
        noticed++;
      } finally {
        put(original.subarray(to * 4_096, to * 4_096 + 4_096), to * 4_096);
      }
    }
    expect(noticed).toBeGreaterThan(3);
  });

  it('is refused at the start with what to do, and nothing is changed', async () => {
    const random = seededRandom(7);
    let bit = 0;
    do bit = random.integer(4_096 * 16, original.length * 8);
    while (!flip(bit));
    const position = bit >>> 3;
    put(Buffer.from([original[position]! ^ (1 << (bit & 7))]), position);
    const damaged = readFileSync(file);
    await expect(openStore(path)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('restore a backup'),
    });
    await expect(verifyStore(path)).rejects.toMatchObject({ code: 'corrupt' });
    expect(readFileSync(file).equals(damaged)).toBe(true);
    put(original.subarray(position, position + 1), position);
    expect(readChecked(file)).toBe(contents);
  });

  it('in a large store is found while it serves, and ends the serving', async () => {
    const large = join(directory, 'large');
    await makeStore(large);
    const copy = readFileSync(join(large, DATA_FILE));
    // Inside a value, where only a checksum can notice it.
    const target = valueByte(join(large, DATA_FILE));
    copy[target]! ^= 1;
    const fd = openSync(join(large, DATA_FILE), 'r+');
    writeSync(fd, copy.subarray(target, target + 1), 0, 1, target);
    closeSync(fd);
    const opened = await openStore(large, { scrubBytesAtStart: 0 });
    expect(opened.scrubbed).toBe(false);
    const { store } = opened;
    const scrub = scrubInBackground({ path: large, store, clock: new ManualClock() });
    await expect(scrub.done).rejects.toMatchObject({ code: 'corrupt' });
    expect(() => store.committed.get(utf8('k1'))).toThrow(HoldfastError);
    await expect(store.commit((table) => table.put(utf8('k1'), utf8('x')))).rejects.toMatchObject({
      code: 'corrupt',
    });
    await opened.close();
  });

  it('is not seen where there is none, while commits go on beside the scrub', async () => {
    const large = join(directory, 'busy');
    await makeStore(large);
    const opened = await openStore(large, { scrubBytesAtStart: 0 });
    const { store } = opened;
    const clock = new ManualClock();
    const scrub = scrubInBackground({ path: large, store, clock, pagesPerSlice: 2 });
    let running = true;
    const end = scrub.done.finally(() => {
      running = false;
    });
    for (let i = 0; running; i++) {
      await store.commit((table) => table.put(utf8(`k${i % 400}`), new Uint8Array(150).fill(i)));
      clock.advance(10);
    }
    expect((await end)?.records).toBeGreaterThan(100);
    await opened.close();
    await verifyStore(large);
  });
});

/** Where in the file some value stands that is in use. */
function valueByte(at: string): number {
  return withDataFile(at, (fd, bytes) => {
    const seen = inspect(fd, bytes);
    const pages = new PageFile(fd, bytes, seen.pageSize, true);
    const start = pages.pages(0, 1).byteOffset;
    let found = 0;
    const take = (key: Bytes, data: Bytes): void => {
      if (key[0] !== 0 && data.length > 50) found = data.byteOffset - start + 10;
    };
    const walk = walkTree(pages, seen.meta, seen.meta.main, new PageMap(seen.meta.lastPage), take);
    while (!walk.next().done);
    return found;
  });
}

describe('a commit whose root the disk refused', () => {
  it('is completed at the next start, for it may have been acknowledged', async () => {
    const half = join(directory, 'half');
    await makeStore(half);
    const data = join(half, DATA_FILE);
    const before = withDataFile(data, inspect);
    const expected = readChecked(data);
    // What LMDB leaves when the write of a root fails: the new roots under the old number.
    const slot = before.meta.slot;
    const number = Buffer.alloc(8);
    number.writeBigUInt64LE(BigInt(before.meta.transaction - 2));
    const fd = openSync(data, 'r+');
    writeSync(fd, number, 0, 8, slot * 4_096 + META_TRANSACTION);
    closeSync(fd);
    expect((await verifyStore(half)).unfinished).toBe(true);
    // Somebody else may be at it: what looks like this may be a root that is being written.
    const other = await listenAsOwner(half);
    await expect(openStore(half)).rejects.toMatchObject({ code: 'store-in-use' });
    await other.close();
    expect((await verifyStore(half)).unfinished).toBe(true);
    const opened = await openStore(half);
    await opened.close();
    expect((await verifyStore(half)).unfinished).toBe(false);
    const strip = (all: string): string =>
      all
        .split('|')
        .filter((part) => !part.startsWith('00'))
        .slice(1)
        .join('|');
    expect(strip(readChecked(data))).toBe(strip(expected));
  });
});

describe('a file that is not whole or not ours', () => {
  it('is told apart: cut short, foreign, empty', async () => {
    const at = async (name: string, spoil: (data: string) => void): Promise<unknown> => {
      const one = join(directory, name);
      await makeStore(one);
      spoil(join(one, DATA_FILE));
      return openStore(one).then(
        () => 'opened',
        (error: unknown) => (error as HoldfastError).code,
      );
    };
    expect(await at('cut', (data) => truncateSync(data, 5 * 4_096))).toBe('store-truncated');
    expect(await at('meta', (data) => truncateSync(data, 4_100))).toBe('store-truncated');
    expect(await at('empty', (data) => truncateSync(data, 0))).toBe('store-truncated');
    const foreign = (data: string): void => {
      truncateSync(data, 0);
      const fd = openSync(data, 'r+');
      writeSync(fd, Buffer.from(seededRandom(3).bytes(20_000)));
      closeSync(fd);
    };
    expect(await at('foreign', foreign)).toBe('not-a-store');
    expect(await at('gone', (data) => rmSync(data))).toBe('store-truncated');
  });
});
