import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Bytes, concatBytes, text, utf8 } from '../../base/bytes.ts';
import { makeToken } from '../../model/token.ts';
import type { Engine } from '../contract.ts';
import { DATA_FILE, readEra } from './directory.ts';
import { type LmdbEngine, openLmdbEngine } from './engine.ts';
import { open } from './open.ts';
import { verifyStore } from './opening.ts';
import { restore } from './restore.ts';

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-engine-'));
  path = join(directory, 'store');
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function put(engine: Engine, key: string, value: string): Promise<bigint> {
  const { header } = await engine.txn({
    success: [{ type: 'put', key: utf8(key), value: utf8(value) }],
  });
  return makeToken(header.era, header.revision);
}

async function valueAt(engine: Engine, key: string): Promise<string | undefined> {
  const { kvs } = await engine.range({ key: utf8(key) });
  return kvs[0] && text(kvs[0].value);
}

async function collect(stream: AsyncIterable<Bytes>): Promise<Bytes> {
  const chunks: Bytes[] = [];
  for await (const chunk of stream) {
    expect(chunk.length).toBeLessThanOrEqual(32 * 1_024);
    chunks.push(chunk);
  }
  return concatBytes(...chunks);
}

async function using<T>(work: (engine: LmdbEngine) => Promise<T>): Promise<T> {
  const engine = await openLmdbEngine(path);
  try {
    return await work(engine);
  } finally {
    await engine.close();
  }
}

describe('the embedded engine', () => {
  it('opens by URL, and refuses one without a path', async () => {
    const engine = await open(`lmdb://${path}`);
    await put(engine, 'a', '1');
    expect(engine.capabilities).toMatchObject({ name: 'lmdb', durable: true, shared: false });
    await engine.close();
    const again = await open(`lmdb:${path}`);
    expect(await valueAt(again, 'a')).toBe('1');
    await again.close();
    await again.close();
    await expect(open('lmdb:')).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('counts its terms by the owners it had', async () => {
    const first = await using(async (engine) => (await engine.status()).term);
    const second = await using(async (engine) => (await engine.status()).term);
    expect(second).toBe(first + 1n);
  });

  it('takes keys of the length it states and refuses longer ones', async () => {
    await using(async (engine) => {
      const { keyBytesMax } = engine.capabilities;
      await put(engine, 'k'.repeat(keyBytesMax), '1');
      await put(engine, 'k'.repeat(keyBytesMax), '2');
      const lease = await engine.grantLease({ ttlMs: 60_000 });
      await engine.txn({
        success: [
          { type: 'put', key: utf8('k'.repeat(keyBytesMax)), value: utf8('3'), lease: lease.id },
        ],
      });
      await expect(put(engine, 'k'.repeat(keyBytesMax + 1), '1')).rejects.toMatchObject({
        code: 'key-too-large',
      });
      await engine.revokeLease(lease.id);
    });
    await verifyStore(path);
  });

  it('serves a large store before its leaves are scrubbed, and says when they are', async () => {
    await using(async (engine) => {
      for (let i = 0; i < 100; i++) await put(engine, `k${i}`, 'v'.repeat(500));
    });
    const engine = await openLmdbEngine(path, { scrubBytesAtStart: 0 });
    expect(await valueAt(engine, 'k7')).toHaveLength(500);
    await engine.scrubbed;
    await engine.close();
  });
});

describe('a backup', () => {
  it('is taken while writes go on, and restores one moment', async () => {
    const backup = await using(async (engine) => {
      for (let i = 0; i < 300; i++) await put(engine, `k${i}`, 'v'.repeat(300));
      const revision = (await engine.status()).header.revision;
      let writing = true;
      const writer = (async () => {
        for (let i = 0; writing; i++) await put(engine, `k${i % 300}`, `new${i}`);
      })();
      const bytes = await collect(engine.operator.backup());
      writing = false;
      await writer;
      expect((await engine.status()).header.revision).toBeGreaterThanOrEqual(revision);
      return bytes;
    });
    const other = join(directory, 'other');
    const restored = await restore([backup], other);
    expect(restored.era).toBe(1);
    const engine = await openLmdbEngine(other);
    const { kvs } = await engine.range({ key: utf8('k'), end: utf8('l') });
    expect(kvs).toHaveLength(300);
    await engine.close();
    await verifyStore(other);
  });

  it('restored over its own directory, once or twice, lets tokens only rise', async () => {
    await using((engine) => put(engine, 'a', 'old'));
    // A Buffer, whose slices are no copies: no restore may change what it is given.
    const backup = Buffer.from(await using((engine) => collect(engine.operator.backup())));
    let highest = 0n;
    for (let round = 1; round <= 3; round++) {
      const lost = await using(async (engine) => {
        for (let i = 0; i < 20; i++) await put(engine, 'a', `lost${i}`);
        return put(engine, 'a', 'lost');
      });
      expect(lost).toBeGreaterThan(highest);
      const { era } = await restore([backup], path);
      expect(era).toBe(round);
      highest = await using(async (engine) => {
        expect(await valueAt(engine, 'a')).toBe('old');
        return put(engine, 'b', 'new');
      });
      expect(highest).toBeGreaterThan(lost);
      expect(readEra(path)).toBe(round);
    }
    expect((await restore([backup], path, { eraAtLeast: 40 })).era).toBe(41);
  });

  it('restored into a new directory can be told how far tokens had risen elsewhere', async () => {
    await using((engine) => put(engine, 'a', '1'));
    const backup = await using((engine) => collect(engine.operator.backup()));
    const other = join(directory, 'other');
    expect((await restore([backup], other, { eraAtLeast: 7 })).era).toBe(8);
  });

  it('that is damaged or cut short replaces nothing', async () => {
    await using((engine) => put(engine, 'a', '1'));
    const backup = await using((engine) => collect(engine.operator.backup()));
    await using((engine) => put(engine, 'a', '2'));
    const before = readFileSync(join(path, DATA_FILE));
    const flipped = backup.slice();
    flipped[flipped.length >> 1]! ^= 4;
    await expect(restore([flipped], path)).rejects.toMatchObject({ code: 'corrupt' });
    await expect(restore([backup.subarray(0, -9)], path)).rejects.toMatchObject({
      code: 'store-truncated',
    });
    await expect(restore([utf8('something else entirely')], path)).rejects.toMatchObject({
      code: 'not-a-store',
    });
    expect(readFileSync(join(path, DATA_FILE)).equals(before)).toBe(true);
    expect(readdirSync(path).filter((name) => name.startsWith('restoring'))).toEqual([]);
    expect(await using((engine) => valueAt(engine, 'a'))).toBe('2');
  });

  it('is not restored over a store in use, but over a damaged one', async () => {
    const backup = await using(async (engine) => {
      await put(engine, 'a', '1');
      const bytes = await collect(engine.operator.backup());
      await expect(restore([bytes], path)).rejects.toMatchObject({ code: 'store-in-use' });
      await put(engine, 'a', '2');
      return bytes;
    });
    const data = readFileSync(join(path, DATA_FILE));
    data.fill(0xff, 2 * 4_096, 4 * 4_096);
    writeFileSync(join(path, DATA_FILE), data);
    await restore([backup], path);
    expect(await using((engine) => valueAt(engine, 'a'))).toBe('1');
  });
});

describe('a data file put back by hand from an older copy', () => {
  it('is noticed by the witness when an era was lifted since', async () => {
    await using((engine) => put(engine, 'a', '1'));
    const copy = join(directory, 'copy');
    copyFileSync(join(path, DATA_FILE), copy);
    const lost = await using(async (engine) => {
      await engine.liftEra(5);
      return put(engine, 'a', '2');
    });
    expect(readEra(path)).toBe(5);
    copyFileSync(copy, join(path, DATA_FILE));
    const next = await using((engine) => put(engine, 'a', '3'));
    expect(next).toBeGreaterThan(lost);
  });
});

describe('a process that exits while the journal is being folded', () => {
  it('comes to its end, and leaves a store that is whole', async () => {
    const program = `
      import { openLmdbEngine } from ${JSON.stringify(new URL('./engine.ts', import.meta.url).href)};
      const [path, delayMs] = process.argv.slice(1);
      const value = new Uint8Array(30);
      const journal = { firstBytes: 2 ** 20, mostBytes: 2 ** 20 };
      const engine = await openLmdbEngine(path, { journal });
      let count = 0;
      const put = async () => {
        for (;;) {
          const success = Array.from({ length: 100 }, () => {
            const key = new TextEncoder().encode('key/' + (count++ * 7_919) % 100_000);
            return { type: 'put', key, value };
          });
          await engine.txn({ success });
        }
      };
      for (let i = 0; i < 20; i++) void put();
      // The first fold is done when the first segment goes; from then on the thread is busy.
      const { existsSync } = await import('node:fs');
      while (existsSync(path + '/journal-1-1')) await new Promise((done) => setTimeout(done, 1));
      await new Promise((done) => setTimeout(done, Number(delayMs)));
      process.exit(7);
    `;
    const flags = ['--conditions=holdfast/source', '--import', 'tsx', '--input-type=module'];
    for (let round = 0; round < 5; round++) {
      const ran = spawnSync(
        process.execPath,
        [...flags, '--eval', program, path + round, String(round * 40)],
        {
          timeout: 20_000,
        },
      );
      expect(ran.stderr.toString()).toBe('');
      expect(ran.status).toBe(7);
      expect((await verifyStore(path + round)).journalSegments).toBeGreaterThan(0);
    }
  }, 120_000);
});
