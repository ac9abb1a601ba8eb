import { cpSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { type OpenedStore, openStore } from './opening.ts';

const JOURNAL = { firstBytes: 8_192, mostBytes: 16_384 };

let directory: string;
let path: string;
let opened: OpenedStore;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-spares-'));
  path = join(directory, 'store');
  opened = await openStore(path, { journal: JOURNAL });
});

afterEach(async () => {
  await opened.close();
  rmSync(directory, { recursive: true, force: true });
});

const named = (beginning: string, where = path): string[] =>
  readdirSync(where).filter((name) => name.startsWith(beginning));

/** A file under whatever name; its number alone may have been another's. */
const fileOf = (name: string): string => {
  const { ino, birthtimeMs } = statSync(join(path, name));
  return `${ino} of ${birthtimeMs}`;
};

/** So much that several segments are filled and folded. */
async function write(letter: string): Promise<void> {
  for (let i = 0; i < 60; i++) {
    const value = utf8(letter.repeat(1_000));
    await opened.store.commit((table) => table.put(utf8(`key/${i}`), value));
  }
  await opened.store.settle();
}

describe('segments that are folded', () => {
  it('become later ones: the same files, under new names', async () => {
    await write('a');
    const spares = new Set(named('spare-').map(fileOf));
    expect(spares.size).toBeGreaterThan(0);
    const before = named('');
    await write('b');
    const later = named('').filter((name) => !before.includes(name));
    expect(later.some((name) => spares.has(fileOf(name)))).toBe(true);
    expect(text(opened.store.committed.get(utf8('key/7'))!)).toBe('b'.repeat(1_000));
  });

  it('are gone when the store is closed', async () => {
    await write('a');
    await opened.close();
    expect(named('')).not.toEqual([]);
    expect([...named('spare-'), ...named('journal-')]).toEqual([]);
  });

  it('are nothing to a later owner, whatever a crash has left in them', async () => {
    await write('a');
    await write('b');
    const copy = join(directory, 'copy');
    cpSync(path, copy, { recursive: true, filter: (from) => !from.endsWith('.sock') });
    const [spare] = named('spare-', copy);
    writeFileSync(join(copy, spare!), new Uint8Array(5_000).fill(9));
    const again = await openStore(copy, { journal: JOURNAL });
    expect(named('spare-', copy)).toEqual([]);
    expect(text(again.store.committed.get(utf8('key/7'))!)).toBe('b'.repeat(1_000));
    await again.close();
  });
});
