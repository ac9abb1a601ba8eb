import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { checkFileSystem, DATA_FILE, readEra, writeEra } from './directory.ts';
import { encodeHead, HEAD_KEY, seal } from './format.ts';
import { openNative } from './native.ts';
import { openStore, verifyStore } from './opening.ts';

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
    // The claim, and the beginning of the journal.
    expect(opened.store.head.sequence).toBe(2);
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
