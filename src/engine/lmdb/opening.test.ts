import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { checkFileSystem, DATA_FILE, readEra, writeEra } from './directory.ts';
import { encodeHead, HEAD_KEY, seal } from './format.ts';
import { recover } from './journal.ts';
import { openNative } from './native.ts';
import { openStore, verifyStore } from './opening.ts';
import { restore } from './restore.ts';
import { Tree } from './tree.ts';

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-opening-'));
  path = join(directory, 'store');
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe('opening', () => {
  it('makes a private directory with private files', async () => {
    const opened = await openStore(path);
    await opened.close();
    expect(statSync(path).mode & 0o777).toBe(0o700);
    for (const name of [DATA_FILE, 'lock.mdb', 'era']) {
      expect(statSync(join(path, name)).mode & 0o077, name).toBe(0);
    }
  });

  it('makes a directory private that others could reach, and says so', async () => {
    mkdirSync(path);
    chmodSync(path, 0o755);
    const said: string[] = [];
    await (await openStore(path, { warn: (message) => said.push(message) })).close();
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(said).toEqual([expect.stringContaining('mode 755')]);
  });

  it('says that there is no store where none may be made', async () => {
    await expect(openStore(path, { create: false })).rejects.toMatchObject({
      code: 'store-not-found',
      message: expect.stringContaining(path),
    });
    await expect(verifyStore(path)).rejects.toMatchObject({ code: 'store-not-found' });
  });

  it('says that a file is no store', async () => {
    writeFileSync(path, 'hello');
    await expect(openStore(path)).rejects.toMatchObject({ code: 'not-a-store' });
  });

  it('says that no directory can be made where the store is to stand', async () => {
    writeFileSync(path, '');
    const below = join(path, 'store');
    const refused = { code: 'storage-failed', message: expect.stringContaining(below) };
    await expect(openStore(below)).rejects.toMatchObject(refused);
    await expect(restore([], below)).rejects.toMatchObject(refused);
  });

  it('says what was in its way', async () => {
    mkdirSync(join(path, 'journal-1-1'), { recursive: true, mode: 0o700 });
    await expect(openStore(path)).rejects.toMatchObject({
      code: 'storage-failed',
      outcome: 'rejected',
      message: expect.stringMatching(/could not be opened.*journal-1-1/),
    });
  });

  it('says that an LMDB of another program is no store', async () => {
    const foreign = openNative(path);
    foreign.transactionSync(() => foreign.putSync(utf8('a'), utf8('b')));
    await foreign.close();
    await expect(openStore(path)).rejects.toMatchObject({ code: 'not-a-store' });
  });

  it('begins anew where a creation was interrupted before its first commit', async () => {
    mkdirSync(path, { mode: 0o700 });
    await openNative(path).close();
    const opened = await openStore(path);
    // The claim, in two commits, and the beginning of the journal.
    expect(opened.store.head.sequence).toBe(3);
    await opened.close();
    rmSync(path, { recursive: true });
    mkdirSync(path, { mode: 0o700 });
    writeFileSync(join(path, DATA_FILE), '', { mode: 0o600 });
    await (await openStore(path, { warn: () => {} })).close();
  });

  it('says which format a newer store has and what to do', async () => {
    const opened = await openStore(path);
    const head = encodeHead({ ...opened.store.head, formatVersion: 9, sequence: 2 });
    const { native } = opened;
    native.transactionSync(() => native.putSync(HEAD_KEY, seal(HEAD_KEY, head)));
    await opened.close();
    const before = readFileSync(join(path, DATA_FILE));
    await expect(openStore(path)).rejects.toMatchObject({
      code: 'store-too-new',
      message: expect.stringMatching(/format 9.*upgrade/),
    });
    expect(readFileSync(join(path, DATA_FILE)).equals(before)).toBe(true);
  });

  it('refuses file systems that other machines share, and FUSE unless it is allowed', () => {
    for (const magic of [0x6969, 0xff534d42, 0xfe534d42, 0x01021997, 0x00c36400, 0x7461636f]) {
      expect(() => checkFileSystem('/x', true, magic)).toThrow(
        expect.objectContaining({ code: 'filesystem-unsuitable' }),
      );
      // Node may give the number as a signed one.
      expect(() => checkFileSystem('/x', true, magic | 0)).toThrow();
    }
    expect(() => checkFileSystem('/x', false, 0x65735546)).toThrow('allow it by option');
    expect(() => checkFileSystem('/x', true, 0x65735546)).not.toThrow();
    expect(() => checkFileSystem('/x', false, 0xef53)).not.toThrow();
  });
});

describe('the witness of the era', () => {
  it('only rises, and is refused when it is damaged', () => {
    mkdirSync(path);
    expect(readEra(path)).toBeUndefined();
    writeEra(path, 3);
    writeEra(path, 2);
    expect(readEra(path)).toBe(3);
    const text = readFileSync(join(path, 'era'), 'utf8');
    writeFileSync(join(path, 'era'), text.replace('3', '1'));
    expect(() => readEra(path)).toThrow(expect.objectContaining({ code: 'corrupt' }));
  });
});

describe('a journal', () => {
  /** The files of a store in use, as a crash would leave them. */
  async function crashed(batches: number): Promise<string> {
    const copy = join(directory, 'crashed');
    const opened = await openStore(path);
    for (let i = 0; i < batches; i++) {
      await opened.store.commit((table) => table.put(utf8(`key/${i}`), utf8('value')));
    }
    cpSync(path, copy, { recursive: true, filter: (name) => !name.endsWith('.sock') });
    await opened.close();
    return copy;
  }

  it('that is missing or cut is not passed over', async () => {
    path = await crashed(3);
    expect(await verifyStore(path)).toMatchObject({ journalSegments: 1, journalBatches: 3 });
    truncateSync(join(path, 'journal-1-1'), 4_096);
    await expect(openStore(path)).rejects.toMatchObject({ code: 'store-truncated' });
    await expect(verifyStore(path)).rejects.toMatchObject({ code: 'store-truncated' });
    rmSync(join(path, 'journal-1-1'));
    await expect(openStore(path)).rejects.toMatchObject({ code: 'store-truncated' });
  });

  it('of a later owner than the data file beside it is not thrown away', async () => {
    path = await crashed(3);
    cpSync(join(path, 'journal-1-1'), join(path, 'journal-7-1'));
    await expect(openStore(path)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('older copy'),
    });
    expect(existsSync(join(path, 'journal-7-1'))).toBe(true);
  });

  it('with a changed byte is kept as it is', async () => {
    path = await crashed(3);
    const file = join(path, 'journal-1-1');
    const bytes = readFileSync(file);
    bytes[1_000]! ^= 1;
    writeFileSync(file, bytes);
    for (let attempt = 0; attempt < 2; attempt++) {
      await expect(openStore(path)).rejects.toMatchObject({ code: 'corrupt' });
      expect(readFileSync(file).equals(bytes)).toBe(true);
    }
  });

  it('whose segment lost its end, but goes on in the next, is not cut short', async () => {
    const rooms = { firstBytes: 8_192, mostBytes: 8_192 };
    const copy = join(directory, 'crashed');
    const opened = await openStore(path, { journal: rooms });
    for (let i = 0; i < 12; i++) {
      await opened.store.commit((table) => table.put(utf8(`key/${i}`), new Uint8Array(500)));
    }
    cpSync(path, copy, { recursive: true, filter: (name) => !name.endsWith('.sock') });
    await opened.close();
    const before = await verifyStore(copy);
    expect(before.journalSegments).toBeGreaterThan(1);
    const [first = ''] = readdirSync(copy)
      .filter((name) => name.startsWith('journal'))
      .sort();
    const bytes = readFileSync(join(copy, first));
    const last = [...bytes.keys()].filter((at) => at % 512 === 0 && bytes.readUInt32BE(at) !== 0);
    bytes.fill(0, last.at(-1), last.at(-1)! + 512);
    writeFileSync(join(copy, first), bytes);
    await expect(verifyStore(copy)).rejects.toThrow('the journal ends before it');
    await expect(openStore(copy)).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('of an owner who was taken over is read by the next, who acknowledges nothing more', async () => {
    const { store, native, close } = await openStore(path);
    await store.commit((table) => table.put(utf8('before'), utf8('1')));
    const owner = { pid: 1, host: 'elsewhere', socket: 'owner-00.sock' };
    let next = store.head;
    // On the disk, and refused: the claim came before the look at it.
    await expect(
      store.commit((table) => {
        next = Tree.claim(native, store.head, store.head, owner).head;
        table.put(utf8('after'), utf8('1'));
      }),
    ).rejects.toMatchObject({ code: 'storage-failed' });
    await expect(store.commit(() => 1)).rejects.toMatchObject({ code: 'storage-failed' });
    expect(recover(path, next).batches).toHaveLength(2);
    // Who knows that there is more than the disk gives back does not go on without it.
    const more = { epoch: 1, segment: 2, sequence: 4, previous: 0 };
    expect(() => recover(path, store.head, more)).toThrow('ends at batch 3');
    await close();
    expect(existsSync(join(path, 'journal-1-1'))).toBe(true);
  });
});
