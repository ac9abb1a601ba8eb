import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installed } from '../../test/servers/daemon.ts';
import { type Postgres, postgresCommands, startPostgres } from '../../test/servers/postgres.ts';
import { text, utf8 } from '../base/bytes.ts';
import { type Client, connect } from '../client.ts';
import { prefixRange } from '../model/range.ts';
import { makeToken } from '../model/token.ts';
import type { Engine } from './contract.ts';
import { type Copied, copy } from './copy.ts';
import { openMemoryEngine } from './memory/engine.ts';
import { openPostgresEngine } from './postgres/open.ts';

const everything = prefixRange(utf8(''));

/** Keys in the order of their creation, with what stays the same in another house. */
async function contents(engine: Engine): Promise<unknown> {
  const { kvs } = await engine.range({ ...everything, sortTarget: 'create' });
  return kvs.map(({ key, value, lease }) => [text(key), text(value), lease]);
}

describe('moving house', () => {
  test('keeps keys, values, leases and the order of creation, and raises the era', async () => {
    const [from, to] = [await openMemoryEngine(), await openMemoryEngine()];
    const { id } = await from.grantLease({ ttlMs: 60_000 });
    const names = ['z', 'b', 'y', 'a'];
    for (const name of names) {
      await from.txn({ success: [{ type: 'put', key: utf8(name), value: utf8(name), lease: id }] });
    }
    await from.txn({
      success: ['p', 'o'].map((name) => ({ type: 'put', key: utf8(name), value: utf8(name) })),
    });
    await from.liftEra(4);
    const copied = await copy(from, to);
    expect(await contents(to)).toEqual(await contents(from));
    expect(copied).toMatchObject({ keys: 6, leases: 1, source: { era: 4 }, target: { era: 5 } });
    const { kvs } = await to.range({ ...everything, sortTarget: 'create' });
    expect(kvs[4]!.createRevision).toBe(kvs[5]!.createRevision);
    expect((await to.leaseInfo(id, { keys: true })).keys).toHaveLength(4);
    await Promise.all([from.close(), to.close()]);
  });

  test('refuses a target that is lived in, unless told', async () => {
    const [from, to] = [await openMemoryEngine(), await openMemoryEngine()];
    await from.txn({ success: [{ type: 'put', key: utf8('k'), value: utf8('new') }] });
    await to.txn({ success: [{ type: 'put', key: utf8('k'), value: utf8('old') }] });
    await expect(copy(from, to)).rejects.toMatchObject({ code: 'invalid-argument' });
    expect((await to.status()).header.era).toBe(0);
    await copy(from, to, { intoNonEmpty: true });
    expect(await contents(to)).toEqual([['k', 'new', 0n]]);
    await Promise.all([from.close(), to.close()]);
  });

  test('says so when the source changes while it is copied', async () => {
    const [from, to] = [await openMemoryEngine(), await openMemoryEngine()];
    const write = (key: string): Promise<unknown> =>
      from.txn({ success: [{ type: 'put', key: utf8(key) }] });
    await write('a');
    let writing: Promise<unknown> | undefined;
    const onProgress = (): void => {
      writing ??= write('b');
    };
    const moving = copy(from, to, { onProgress });
    await expect(moving).rejects.toMatchObject({ code: 'conflict', outcome: 'unknown' });
    await writing;
    await Promise.all([from.close(), to.close()]);
  });

  describe.skipIf(!installed(...postgresCommands))('with a real PostgreSQL', () => {
    let server: Postgres;
    let pool: pg.Pool;

    beforeAll(async () => {
      server = await startPostgres();
      pool = new pg.Pool({ connectionString: server.url, max: 6 });
    });

    afterAll(async () => {
      await pool?.end();
      await server?.stop();
    });

    test('there and back again, tokens only rise and the line keeps its order', async () => {
      const memory = await openMemoryEngine();
      const houses = [
        memory,
        await openPostgresEngine({ pool }),
        await openMemoryEngine(),
        await openPostgresEngine({ pool, schema: 'second' }),
      ];
      const clients: Client[] = [];
      const queue = async (engine: Engine, holder: string): Promise<Client> => {
        const client = await connect(engine, { holder, ttl: 60_000 });
        clients.push(client);
        return client;
      };
      const first = await (await queue(memory, 'first')).lock('chair').acquire();
      for (const holder of ['second', 'third']) {
        const client = await queue(memory, holder);
        await new Promise<void>((waiting) => {
          const acquiring = client.lock('chair').acquire({ onWait: () => waiting() });
          acquiring.catch(() => {});
        });
      }
      const line = await contents(memory);
      const tokens = [first.token];
      const moves: Copied[] = [];
      for (let i = 1; i < houses.length; i++) {
        const [from, to] = [houses[i - 1]!, houses[i]!];
        moves.push(await copy(from, to));
        expect(await contents(to)).toEqual(line);
        const newcomer = await queue(to, `newcomer-${i}`);
        expect(await newcomer.lock('chair').tryAcquire()).toBeUndefined();
        const { kvs } = await to.range({ ...prefixRange(utf8('chair/')), sortTarget: 'create' });
        const { era } = (await to.status()).header;
        tokens.push(makeToken(era, kvs[0]!.createRevision));
        const other = await newcomer.lock(`other-${i}`).acquire();
        tokens.push(other.token);
        await other.release();
        await newcomer.close();
      }
      expect(tokens).toEqual([...tokens].sort((a, b) => (a < b ? -1 : 1)));
      expect(new Set(tokens).size).toBe(tokens.length);
      expect(moves.map(({ target }) => target.era)).toEqual([1, 2, 3]);
      await Promise.all(clients.map((client) => client.close().catch(() => {})));
      await Promise.all(houses.map((house) => house.close()));
    });
  });
});
