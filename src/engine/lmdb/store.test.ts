import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Bytes, compareBytes, concatBytes, text, utf8 } from '../../base/bytes.ts';
import { seededRandom } from '../../base/random.ts';
import type { TableReader } from '../../mvcc/table.ts';
import { HEAD_KEY } from './format.ts';
import { type OpenedStore, openStore, verifyStore } from './opening.ts';

let directory: string;
let opened: OpenedStore;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-lmdb-'));
  opened = await openStore(join(directory, 'store'));
});

afterEach(async () => {
  await opened.close();
  rmSync(directory, { recursive: true, force: true });
});

async function reopen(): Promise<void> {
  await opened.close();
  opened = await openStore(join(directory, 'store'));
}

function keysIn(reader: TableReader, start: Bytes, end?: Bytes, reverse = false): string[] {
  const keys: string[] = [];
  reader.scan(
    start,
    end,
    (key) => {
      keys.push(text(key));
      return true;
    },
    { reverse },
  );
  return keys;
}

describe('a durable table', () => {
  it('keeps what was committed across a close, and shows it only after the commit', async () => {
    const { store } = opened;
    const committed = store.commit((table) => {
      table.put(utf8('a'), utf8('1'));
      expect(text(table.get(utf8('a'))!)).toBe('1');
    });
    expect(store.committed.get(utf8('a'))).toBeUndefined();
    await committed;
    expect(text(store.committed.get(utf8('a'))!)).toBe('1');
    await reopen();
    expect(text(opened.store.committed.get(utf8('a'))!)).toBe('1');
  });

  it('runs the works of one step in order, each on what those before it wrote', async () => {
    const { store } = opened;
    const before = store.head.sequence;
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        store.commit((table) => {
          const seen = Number(text(table.get(utf8('n')) ?? utf8('0')));
          table.put(utf8('n'), utf8(String(seen + 1)));
          return [i, seen];
        }),
      ),
    );
    expect(results).toEqual(Array.from({ length: 50 }, (_, i) => [i, i]));
    expect(store.head.sequence - before).toBeLessThan(5);
  });

  it('scans both ways over any bounds, without the records of the engine', async () => {
    const { store } = opened;
    await store.commit((table) => {
      for (const key of ['a', 'b', 'ba', 'c', 'd']) table.put(utf8(key), utf8(key));
    });
    const { committed } = store;
    const none = new Uint8Array(0);
    expect(keysIn(committed, none)).toEqual(['a', 'b', 'ba', 'c', 'd']);
    expect(keysIn(committed, none, undefined, true)).toEqual(['d', 'c', 'ba', 'b', 'a']);
    expect(keysIn(committed, utf8('b'), utf8('d'))).toEqual(['b', 'ba', 'c']);
    expect(keysIn(committed, utf8('b'), utf8('d'), true)).toEqual(['c', 'ba', 'b']);
    expect(keysIn(committed, utf8('bb'), utf8('cc'), true)).toEqual(['c']);
    expect(keysIn(committed, utf8('c'), utf8('b'))).toEqual([]);
    expect(keysIn(committed, utf8('x'), undefined, true)).toEqual([]);
    expect(committed.get(none)).toBeUndefined();
    await store.commit((table) => {
      expect(keysIn(table, none, utf8('c'), true)).toEqual(['ba', 'b', 'a']);
      expect(() => table.put(HEAD_KEY, none)).toThrow('belongs to the engine');
      expect(table.get(HEAD_KEY)).toBeUndefined();
    });
  });

  it('agrees with a plain map over random puts, removals and values of any size', async () => {
    const random = seededRandom(20_261_120);
    const model = new Map<string, Bytes>();
    for (let round = 0; round < 60; round++) {
      await opened.store.commit((table) => {
        for (let i = 0; i < 30; i++) {
          const name = `${random.pick(['k', 'r', 'z'])}${random.integer(0, 200)}`;
          if (random.chance(0.25)) {
            table.remove(utf8(name));
            model.delete(name);
            continue;
          }
          const large = random.chance(0.03);
          const value = random.bytes(random.integer(0, large ? 200_000 : 300));
          table.put(utf8(name), value);
          model.set(name, value);
        }
      });
      if (round % 20 === 19) await reopen();
    }
    const seen = new Map<string, Bytes>();
    opened.store.committed.scan(new Uint8Array(0), undefined, (key, value) => {
      seen.set(text(key), value);
      return true;
    });
    expect([...seen.keys()].sort()).toEqual([...model.keys()].sort());
    for (const [name, value] of model) {
      expect(compareBytes(seen.get(name)!, value)).toBe(0);
      expect(compareBytes(opened.store.committed.get(utf8(name))!, value)).toBe(0);
    }
    expect(opened.store.head.records).toBe(model.size);
    await opened.close();
    const verified = await verifyStore(join(directory, 'store'));
    expect(verified).toMatchObject({ records: model.size, lostBytes: 0, unfinished: false });
  });

  it('gives bytes that later commits and reads do not change', async () => {
    const { store } = opened;
    await store.commit((table) => {
      table.put(utf8('a'), utf8('first'));
      table.put(utf8('b'), new Uint8Array(100_000).fill(7));
    });
    const first = store.committed.get(utf8('a'))!;
    const large = store.committed.get(utf8('b'))!;
    await store.commit((table) => {
      table.put(utf8('a'), utf8('other'));
      table.put(utf8('b'), new Uint8Array(100_000).fill(8));
    });
    store.committed.get(utf8('b'));
    expect(text(first)).toBe('first');
    expect(large.every((byte) => byte === 7)).toBe(true);
  });

  it('gives way to everything else between its batches, however many follow', async () => {
    const { store } = opened;
    let turns = 0;
    let going = true;
    const count = (): void => {
      turns++;
      if (going) setImmediate(count);
    };
    setImmediate(count);
    for (let i = 0; i < 100; i++) await store.commit((table) => table.put(utf8('a'), utf8(`${i}`)));
    going = false;
    expect(turns).toBeGreaterThan(90);
  });

  it('keeps a snapshot as it was while commits go on', async () => {
    const { store } = opened;
    await store.commit((table) => table.put(utf8('a'), utf8('1')));
    const snapshot = store.snapshot();
    for (let i = 2; i < 40; i++) {
      await store.commit((table) => {
        table.put(utf8('a'), utf8(String(i)));
        table.put(concatBytes(utf8('b'), Uint8Array.of(i)), new Uint8Array(3_000).fill(i));
      });
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(text(snapshot.get(utf8('a'))!)).toBe('1');
    expect(keysIn(snapshot, new Uint8Array(0))).toEqual(['a']);
    expect(text(store.committed.get(utf8('a'))!)).toBe('39');
    snapshot.release();
    snapshot.release();
    expect(() => snapshot.get(utf8('a'))).toThrow('released');
  });
});

describe('a commit that cannot be', () => {
  it('is taken back whole when a work throws, and the store is finished', async () => {
    const { store } = opened;
    await store.commit((table) => {
      table.put(utf8('a'), utf8('1'));
      table.put(utf8('b'), utf8('1'));
    });
    const outcomes = await Promise.allSettled([
      store.commit((table) => {
        table.put(utf8('a'), utf8('2'));
        table.remove(utf8('b'));
        table.put(utf8('c'), utf8('2'));
        throw new Error('a fault in the rules');
      }),
      store.commit((table) => table.put(utf8('d'), utf8('2'))),
    ]);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({
        status: 'rejected',
        reason: { code: 'storage-failed', outcome: 'rejected' },
      });
    }
    await expect(store.commit(() => 1)).rejects.toMatchObject({ code: 'storage-failed' });
    expect(keysIn(store.committed, new Uint8Array(0))).toEqual(['a', 'b']);
    await reopen();
    expect(keysIn(opened.store.committed, new Uint8Array(0))).toEqual(['a', 'b']);
    expect(text(opened.store.committed.get(utf8('a'))!)).toBe('1');
  });

  it('costs no sync when nothing was written', async () => {
    const { store } = opened;
    const before = store.head.sequence;
    expect(await store.commit((table) => table.get(utf8('a')))).toBeUndefined();
    expect(store.head.sequence).toBe(before);
  });

  it('stops a process whose store another one has claimed', async () => {
    const { store, native } = opened;
    await store.commit((table) => table.put(utf8('a'), utf8('1')));
    // What another process would do: write behind our back.
    native.transactionSync(() => native.putSync(utf8('x'), utf8('y')));
    native.transactionSync(() => native.removeSync(HEAD_KEY));
    await expect(store.commit((table) => table.put(utf8('a'), utf8('2')))).rejects.toMatchObject({
      code: 'storage-failed',
    });
    // Nor does it read on: what it would find may be the other's.
    expect(() => store.committed.get(utf8('a'))).toThrow('fenced out');
  });

  it('refuses works after a close and reads inside a work', async () => {
    const { store } = opened;
    await store.commit(() => {
      expect(() => store.committed.get(utf8('a'))).toThrow('its own table');
    });
    await opened.close();
    await expect(store.commit(() => 1)).rejects.toMatchObject({ code: 'closed' });
    expect(() => store.committed.get(utf8('a'))).toThrow('closed');
  });

  it('reports a record that does not match its checksum instead of its bytes', async () => {
    const { store, native } = opened;
    await store.commit((table) => table.put(utf8('b'), utf8('1')));
    native.transactionSync(() => native.putSync(utf8('a'), utf8('wrong')));
    expect(() => store.committed.get(utf8('a'))).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
    expect(() => keysIn(store.committed, utf8('a'))).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
  });
});
