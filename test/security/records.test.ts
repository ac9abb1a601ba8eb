/** What stands on the disk may have been written by anybody. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { seededRandom } from '../../src/base/random.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import { openMemoryEngine } from '../../src/engine/memory/engine.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { serve } from '../../src/server/serve.ts';
import { AuthService, KVService } from '../../src/wire/messages/services.ts';
import { Stage } from './stage.ts';

/** Where the server keeps users and roles. */
const ACCESS_KEY = Uint8Array.of(0, 0x61, 0x75, 0x74, 0x68);

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-records-'));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

const CRAFTED = [
  '',
  'null',
  '[]',
  '{}',
  '{"enabled":true}',
  '{"enabled":"no","revision":1,"users":[],"roles":[]}',
  '{"enabled":false,"revision":1e400,"users":[],"roles":[]}',
  '{"enabled":true,"revision":1,"users":5,"roles":{}}',
  '{"enabled":true,"revision":1,"users":[],"roles":[{"name":"x"}]}',
  '{"enabled":true,"revision":1,"users":[null],"roles":[]}',
];

describe('records', () => {
  test('a crafted record is refused without a crash: a server does not start on one', async () => {
    for (const record of CRAFTED) {
      const engine = await openMemoryEngine();
      await engine.txn({ success: [{ type: 'put', key: ACCESS_KEY, value: utf8(record) }] });
      await expect(serve({ engine, listen: { port: 0 } })).rejects.toMatchObject({
        code: 'corrupt',
      });
      await engine.close();
    }
  });

  test('a crafted record is refused without a crash: a running server keeps what it knew', async () => {
    await using stage = await (await Stage.open()).guarded();
    const before = stage.server.backend.access.state;
    for (const record of CRAFTED) {
      await stage.engine.txn({ success: [{ type: 'put', key: ACCESS_KEY, value: utf8(record) }] });
    }
    const said = await stage
      .client()
      .unary(KVService.Range, { key: utf8('a') })
      .catch(String);
    expect(said).toContain('user name is empty');
    expect(stage.server.backend.access.state).toBe(before);
  });

  test('random bytes in the place of users and roles never open the door', async () => {
    const random = seededRandom(20_260);
    for (let round = 0; round < 200; round++) {
      const value = Uint8Array.from({ length: random.integer(0, 60) }, () =>
        random.integer(0, 256),
      );
      const engine = await openMemoryEngine();
      await engine.txn({ success: [{ type: 'put', key: ACCESS_KEY, value }] });
      const started = await serve({ engine, listen: { port: 0 } }).catch((error: unknown) => error);
      expect(HoldfastError.is(started, 'corrupt')).toBe(true);
      await engine.close();
    }
  });

  test('users can reach neither the record nor another tenant through their own keys', async () => {
    await using stage = await Stage.open();
    const client = stage.client();
    await client.unary(AuthService.RoleAdd, { name: 'x' });
    for (const key of [ACCESS_KEY, Uint8Array.of(0), utf8('\0t/a/k/x')]) {
      await expect(client.unary(KVService.Put, { key })).rejects.toMatchObject({
        code: 'invalid-argument',
      });
    }
    const everything = { key: Uint8Array.of(0), rangeEnd: Uint8Array.of(0) };
    expect((await client.unary(KVService.Range, everything)).kvs).toEqual([]);
    await client.unary(KVService.DeleteRange, everything);
    expect(stage.server.backend.access.state.roles.has('x')).toBe(true);
    expect((await stage.engine.range({ key: ACCESS_KEY })).kvs).toHaveLength(1);
  });
});

describe('directories', () => {
  test('a data directory or file with wider permissions is refused or repaired, and said so', async () => {
    const path = join(directory, 'data');
    mkdirSync(path, { mode: 0o755 });
    chmodSync(path, 0o755);
    const warnings: string[] = [];
    const warn = (message: string): void => void warnings.push(message);
    await (await openLmdbEngine(path, { warn })).close();
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(warnings).toEqual([expect.stringContaining('others could reach')]);
    chmodSync(join(path, 'data.mdb'), 0o644);
    await (await openLmdbEngine(path, { warn })).close();
    expect(statSync(join(path, 'data.mdb')).mode & 0o777).toBe(0o600);
    expect(warnings).toHaveLength(2);
  });
});
