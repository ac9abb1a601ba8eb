/** The store against a model: any works, any folds, any crash, any view. */
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Bytes, compareBytes, text, utf8 } from '../../base/bytes.ts';
import { type Random, seededRandom } from '../../base/random.ts';
import type { Table, TableReader } from '../../mvcc/table.ts';
import { type OpenedStore, openStore, verifyStore } from './opening.ts';
import type { SyncPlace } from './pace.ts';

let directory: string;
const undo: (() => Promise<void>)[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-layers-'));
});

afterEach(async () => {
  syncs = undefined;
  for (const step of undo.splice(0).reverse()) await step();
  rmSync(directory, { recursive: true, force: true });
});

/** Segments so small that every few batches one is full and folded. */
const JOURNAL = { firstBytes: 8_192, mostBytes: 16_384 };

/** Who waits for syncs: both ways lead to the same. */
const PLACES: readonly SyncPlace[] = ['here', 'elsewhere'];
let syncs: SyncPlace | undefined;

async function opened(path: string): Promise<OpenedStore> {
  const store = await openStore(path, { journal: JOURNAL, ...(syncs ? { syncs } : {}) });
  undo.push(() => store.close());
  return store;
}

type Model = Map<string, string>;

/** Keys that only rise and are cut off at their beginning, as those of a log. */
let lines = 0;

function line(number: number): string {
  return `m${String(number).padStart(6, '0')}`;
}

function content(reader: TableReader, from = '', to?: string, reverse = false): string[][] {
  const found: string[][] = [];
  const visit = (key: Bytes, value: Bytes): boolean => {
    found.push([text(key), text(value)]);
    return true;
  };
  reader.scan(utf8(from), to === undefined ? undefined : utf8(to), visit, { reverse });
  return found;
}

function expected(model: Model, from = '', to?: string): string[][] {
  return [...model]
    .filter(([key]) => key >= from && (to === undefined || key < to))
    .sort(([a], [b]) => compareBytes(utf8(a), utf8(b)));
}

function keyBy(random: Random): string {
  if (random.chance(0.2)) return line(random.integer(Math.max(0, lines - 30), lines + 2));
  return `${random.pick(['a', 'b', 'r'])}${random.integer(0, 40)}`;
}

/** One random step, on the table and on the model alike. */
function change(random: Random, table: Table, model: Model): void {
  const key = keyBy(random);
  const kind = random.integer(0, 24);
  if (kind < 3) {
    const value = String(lines);
    table.put(utf8(line(lines)), utf8(value));
    model.set(line(lines++), value);
  } else if (kind < 5) {
    const log: [string, string] = [line(0), line(Math.max(0, lines - random.integer(0, 20)))];
    const any = [key, keyBy(random)].sort() as [string, string];
    const [from, to] = kind === 3 ? log : any;
    table.cut(utf8(from), utf8(to));
    for (const name of [...model.keys()]) if (name >= from && name < to) model.delete(name);
  } else if (kind < 10) {
    table.remove(utf8(key));
    model.delete(key);
  } else {
    const value = String(random.integer(0, 1e6)).repeat(random.integer(1, 40));
    table.put(utf8(key), utf8(value));
    model.set(key, value);
  }
}

function expectSame(random: Random, reader: TableReader, model: Model): void {
  const [from, to] = [keyBy(random), keyBy(random)].sort() as [string, string];
  expect(content(reader, from, to)).toEqual(expected(model, from, to));
  expect(content(reader, from, to, true)).toEqual(expected(model, from, to).reverse());
  const key = keyBy(random);
  const found = reader.get(utf8(key));
  expect(found && text(found)).toEqual(model.get(key));
}

/** What the disk would hold after a crash now; another process' view of the same files. */
function copyOf(path: string, to: string): void {
  cpSync(path, to, { recursive: true, filter: (name) => !name.endsWith('.sock') });
}

function both(seeds: readonly number[]): [number, SyncPlace][] {
  return seeds.flatMap((seed) => PLACES.map((place): [number, SyncPlace] => [seed, place]));
}

describe('the journal, the layers and the tree', () => {
  for (const [seed, place] of both([1, 2, 3, 4, 5])) {
    it(`hold together what a plain table holds (seed ${seed}, syncs ${place})`, async () => {
      syncs = place;
      const random = seededRandom(seed);
      const path = join(directory, 'store');
      let { store, close } = await opened(path);
      const model: Model = new Map();
      for (let round = 0; round < 120; round++) {
        const before = new Map(model);
        const committing = store.commit((table) => {
          for (let i = random.integer(1, 25); i > 0; i--) change(random, table, model);
          expectSame(random, table, model);
        });
        // Begun, perhaps evaluated, and not on the disk yet: nobody sees any of it.
        await Promise.resolve();
        await Promise.resolve();
        expectSame(random, store.committed, before);
        await committing;
        expectSame(random, store.committed, model);
        if (random.chance(0.05)) await expectSnapshot(random, store, model);
        if (random.chance(0.03)) {
          await close();
          expect(readdirSync(path).filter((name) => name.startsWith('journal'))).toEqual([]);
          ({ store, close } = await opened(path));
          expectSame(random, store.committed, model);
        }
      }
      expect(content(store.committed)).toEqual(expected(model));
    });
  }

  for (const [seed, place] of both([21, 22, 23])) {
    it(`show what is durable while more is under way (seed ${seed}, syncs ${place})`, async () => {
      syncs = place;
      const random = seededRandom(seed);
      const { store } = await opened(join(directory, 'store'));
      const model: Model = new Map();
      /** As each commit leaves it. */
      const states: Model[] = [];
      let shown = -1;
      const commit = async (index: number): Promise<void> => {
        await store.commit((table) => {
          expect(states.length).toBe(index);
          for (let i = random.integer(1, 12); i > 0; i--) change(random, table, model);
          states.push(new Map(model));
        });
        const found = JSON.stringify(content(store.committed));
        // At least this commit, and nothing that a reader has seen before is gone again.
        shown = Math.max(shown, index);
        while (shown < states.length - 1 && JSON.stringify(expected(states[shown]!)) !== found) {
          shown++;
        }
        expect(found).toBe(JSON.stringify(expected(states[shown]!)));
      };
      const waiting: Promise<void>[] = [];
      for (let index = 0; index < 200; index++) {
        waiting.push(commit(index));
        if (random.chance(0.3)) await Promise.resolve();
        if (random.chance(0.1)) await new Promise(setImmediate);
        if (random.chance(0.05)) await waiting[index];
      }
      await Promise.all(waiting);
      expect(content(store.committed)).toEqual(expected(model));
    });
  }

  it('come back whole after a crash at any moment, also in the middle of a fold', async () => {
    const random = seededRandom(11);
    const path = join(directory, 'store');
    const { store } = await opened(path);
    const model: Model = new Map();
    let journals = 0;
    // Folding goes on beside this: a machine that is busy gets more rounds to see some of it.
    const folded = (): boolean => store.head.sequence > 3;
    for (let round = 0; round < 60 || (!folded() && round < 2_000); round++) {
      await store.commit((table) => {
        for (let i = 0; i < 20; i++) change(random, table, model);
      });
      if (round % 3 !== 0) continue;
      const copy = join(directory, `copy-${round}`);
      copyOf(path, copy);
      const { journalSegments } = await verifyStore(copy);
      journals += journalSegments;
      const again = await opened(copy);
      expect(content(again.store.committed)).toEqual(expected(model));
      await again.close();
      expect(await verifyStore(copy)).toMatchObject({ journalSegments: 0 });
      rmSync(copy, { recursive: true });
    }
    // Otherwise this has shown nothing about the journal, or nothing about folding it.
    expect(journals).toBeGreaterThan(20);
    expect(folded()).toBe(true);
  });

  const short = (store: OpenedStore['store']): (() => string) => {
    const value = store.committed.get(utf8('short'))!;
    return () => text(value);
  };
  const long = (store: OpenedStore['store']): (() => string) => {
    const values: Bytes[] = [];
    store.committed.scan(utf8('long'), utf8('longer'), (_, value) => {
      values.push(value);
      return true;
    });
    return () => text(values[0]!);
  };
  const snapshot = (store: OpenedStore['store']): (() => string) => {
    const taken = store.snapshot();
    return () => JSON.stringify(content(taken));
  };
  for (const keep of [short, long, snapshot]) {
    it(`keep what was read as it was while memory is used again (${keep.name})`, async () => {
      const { store } = await opened(join(directory, 'store'));
      const write = (letter: string): Promise<void> =>
        store.commit((table) => {
          table.put(utf8('short'), utf8(letter.repeat(20)));
          table.put(utf8('long'), utf8(letter.repeat(2_000)));
        });
      const kept: { readonly now: () => string; readonly before: string }[] = [];
      for (const letter of 'abcdef') {
        await write(letter);
        const now = keep(store);
        kept.push({ now, before: now() });
        await store.settle();
        await write(letter.toUpperCase());
        await store.settle();
      }
      expect(kept.map(({ now }) => now())).toEqual(kept.map(({ before }) => before));
      expect(new Set(kept.map(({ before }) => before)).size).toBe(6);
    });
  }

  it('take back what a work did that threw, down to the last range', async () => {
    const { store } = await opened(join(directory, 'store'));
    const put = (table: Table, name: string): void => table.put(utf8(name), utf8(name));
    await store.commit((table) => {
      for (const name of ['a', 'b', 'c']) put(table, name);
    });
    const failing = store.commit((table) => {
      put(table, 'd');
      table.cut(utf8('a'), utf8('c'));
      put(table, 'a');
      table.remove(utf8('c'));
      throw new Error('on purpose');
    });
    await expect(failing).rejects.toThrow('on purpose');
    expect(content(store.committed).map(([key]) => key)).toEqual(['a', 'b', 'c']);
  });
});

async function expectSnapshot(random: Random, store: OpenedStore['store'], model: Model) {
  const snapshot = store.snapshot();
  const then = new Map(model);
  await store.commit((table) => {
    for (let i = 0; i < 30; i++) change(random, table, model);
  });
  expect(content(snapshot)).toEqual(expected(then));
  snapshot.release();
}
