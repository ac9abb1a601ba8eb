/** Transactions in one request on a real etcd: same answers as one by one, same outcomes, same refusals. */
import { spawnSync } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { locate } from '../../../scripts/packages.mjs';
import { installed } from '../../../test/servers/daemon.ts';
import { type Etcd, startEtcd } from '../../../test/servers/etcd.ts';
import { startProxy } from '../../../test/servers/proxy.ts';
import { binaryString, text, utf8 } from '../../base/bytes.ts';
import { type Random, seededRandom } from '../../base/random.ts';
import { Client } from '../../client.ts';
import { HoldfastError } from '../../model/errors.ts';
import { prefixRange } from '../../model/range.ts';
import type {
  Compare,
  KeyValue,
  Operation,
  OperationResult,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Engine } from '../contract.ts';
import type { EtcdOptions } from './config.ts';
import { open } from './open.ts';

const seed = Date.now() % 2 ** 31;
const SHARE = { shareRevision: true } as const;

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function server(args: readonly string[] = []): Promise<Etcd> {
  const started = await startEtcd({ args });
  undo.push(() => started.stop());
  return started;
}

async function engineAt(port: number | string, options: EtcdOptions = {}): Promise<Engine> {
  const at = typeof port === 'number' ? `127.0.0.1:${port}` : port;
  const engine = await open(`etcd://${at}`, options);
  undo.push(() => engine.close());
  return engine;
}

/** Below all the others, where no range of theirs reaches. */
const FIRST = '0';

/** Makes those that follow in this turn travel together. */
async function together<T>(engine: Engine, calls: () => readonly Promise<T>[]) {
  const first = engine.txn({ success: [{ type: 'put', key: utf8(FIRST) }] }, SHARE);
  first.catch(() => {});
  return await Promise.allSettled(calls());
}

function put(engine: Engine, key: string, value = ''): Promise<TxnResult> {
  return engine.txn({ success: [{ type: 'put', key: utf8(key), value: utf8(value) }] }, SHARE);
}

function codeOf(result: PromiseSettledResult<TxnResult>): string {
  if (result.status === 'fulfilled') return 'done';
  const { code, outcome } = HoldfastError.from(result.reason);
  return `${code} ${outcome}`;
}

function etcdctl(etcd: Etcd, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(
    locate('etcdctl') ?? 'etcdctl',
    ['--endpoints', etcd.url, ...args],
    { env: { ...process.env, ETCDCTL_API: '3' }, encoding: 'utf8', timeout: 30_000 },
  );
  if (status !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${stderr}`);
}

const KEYS = [...'abcdefghijkl'].flatMap((x) => [...'123456'].map((y) => x + y));

/** Random transactions; each writes its own name, so that a value tells who wrote it. */
class Maker {
  readonly #random: Random;
  readonly #lease: bigint;

  constructor(random: Random, lease: bigint) {
    this.#random = random;
    this.#lease = lease;
  }

  txn(name: string): TxnRequest {
    // What is refused must not depend on who came first.
    if (this.#upTo(60) === 0) return { success: [this.#refused()] };
    return this.#level(name, 2);
  }

  #upTo(count: number): number {
    return Math.floor(this.#random.next() * count);
  }

  #key(): Uint8Array {
    return utf8(KEYS[this.#upTo(KEYS.length)]!);
  }

  #range(): { key: Uint8Array; end?: Uint8Array } {
    const key = this.#key();
    const kind = this.#upTo(80);
    if (kind === 0) return { key, end: Uint8Array.of(0) };
    if (kind < 3) return { key, end: this.#key() };
    return kind < 20 ? { key, end: utf8(`${text(key)[0]}9`) } : { key };
  }

  #refused(): Operation {
    return [
      { type: 'put', key: this.#key(), lease: 1n } as const,
      { type: 'put', key: utf8('never there'), ignoreValue: true } as const,
      { type: 'range', key: this.#key(), revision: 2 ** 40 } as const,
      { type: 'put', key: utf8('never there'), ignoreLease: true, value: utf8('x') } as const,
    ][this.#upTo(4)]!;
  }

  #level(name: string, depth: number): TxnRequest {
    return {
      compare: this.#list(1, () => this.#compare()),
      success: [this.#operation(name, 0), ...this.#list(1, () => this.#operation(name, depth))],
      failure: this.#list(2, () => this.#operation(name, depth)),
    };
  }

  #list<T>(count: number, make: () => T): T[] {
    return Array.from({ length: this.#upTo(count + 1) }, make);
  }

  #compare(): Compare {
    const range = this.#range();
    const result = (['=', '!=', '<', '>'] as const)[this.#upTo(4)]!;
    const kind = this.#upTo(4);
    if (kind === 0) return { ...range, target: 'create', result: '=', value: 0 };
    if (kind === 1) return { ...range, target: 'mod', result: '>', value: 0 };
    if (kind === 2) return { ...range, target: 'lease', result, value: this.#lease };
    return { ...range, target: 'version', result, value: this.#upTo(3) };
  }

  #operation(name: string, depth: number): Operation {
    const value = utf8(name);
    const prevKv = this.#upTo(2) === 0;
    const kind = this.#upTo(depth > 0 ? 8 : 6);
    if (kind < 2) return { type: 'put', key: this.#key(), value, prevKv };
    if (kind === 2) return { type: 'put', key: this.#key(), value, prevKv, lease: this.#lease };
    if (kind === 3) return { type: 'delete', ...this.#range(), prevKv };
    if (kind < 6) return { type: 'range', ...this.#range(), limit: this.#upTo(3) };
    return { type: 'txn', ...this.#level(name, depth - 1) };
  }
}

/** Without what depends on how the history is counted. */
function seen(results: readonly OperationResult[]): unknown {
  return results.map((result) => {
    switch (result.type) {
      case 'put':
        return ['put', result.prevKv && pair(result.prevKv)];
      case 'delete':
        return ['delete', result.deleted, result.prevKvs.map(pair)];
      case 'range':
        return ['range', result.count, result.more, result.kvs.map(pair)];
      default:
        return ['txn', result.succeeded, seen(result.results)];
    }
  });
}

function pair({ key, value, version, lease }: KeyValue): string {
  return `${text(key)}=${text(value)} v${version} ${lease > 0n ? 'leased' : ''}`;
}

function verdict(result: PromiseSettledResult<TxnResult>): unknown {
  if (result.status === 'rejected') return codeOf(result);
  return [result.value.succeeded, seen(result.value.results)];
}

function changed(results: readonly OperationResult[]): boolean {
  return results.some(
    (result) =>
      result.type === 'put' ||
      (result.type === 'delete' && result.deleted > 0) ||
      (result.type === 'txn' && changed(result.results)),
  );
}

describe.skipIf(!installed('etcd', 'etcdctl'))('with a real etcd', () => {
  it(`random transactions together answer as they do one by one (seed ${seed})`, async () => {
    const shared = await engineAt((await server()).port);
    const single = await engineAt((await server()).port, { shareRevisions: false });
    const lease = (await shared.grantLease({ id: 77n, ttlMs: 600_000 })).id;
    await single.grantLease({ id: 77n, ttlMs: 600_000 });
    const make = new Maker(seededRandom(seed), lease);
    const count = { committed: 0, revisions: new Set<number>(), refused: 0 };
    for (let round = 0; round < 40; round++) {
      const requests = Array.from({ length: 24 }, (_, i) => make.txn(`${round}.${i}`));
      const results = await together(shared, () => requests.map((one) => shared.txn(one, SHARE)));
      await put(single, FIRST);
      for (const at of inOrder(results)) {
        const result = results[at]!;
        const [alone] = await Promise.allSettled([single.txn(requests[at]!)]);
        expect(verdict(result), `transaction ${at} of round ${round}`).toEqual(verdict(alone!));
        if (result.status === 'rejected') count.refused++;
        else if (changed(result.value.results)) {
          count.committed++;
          count.revisions.add(result.value.header.revision);
          await expectWritten(shared, `${round}.${at}`, result.value.header.revision);
        }
      }
      const [ours, theirs] = await Promise.all(
        [shared, single].map((engine) => engine.range(prefixRange(utf8('')))),
      );
      expect(ours!.kvs.map(pair)).toEqual(theirs!.kvs.map(pair));
    }
    expect(count.committed).toBeGreaterThan(1.5 * count.revisions.size);
    expect(count.refused).toBeGreaterThan(5);
  }, 120_000);

  it('a refusal for one reaches that one, and the others are carried out', async () => {
    const engine = await engineAt((await server()).port);
    for (let i = 0; i < 5; i++) await put(engine, 'x');
    await engine.compact(4);
    const watch = engine.watch({ ...prefixRange(utf8('')), startRevision: 7 });
    await watch.created;
    const requests: TxnRequest[] = [
      { success: [{ type: 'put', key: utf8('1') }] },
      { success: [{ type: 'put', key: utf8('2'), lease: 4_711n }] },
      { success: [{ type: 'put', key: utf8('3'), ignoreValue: true }] },
      {
        success: [
          { type: 'put', key: utf8('4') },
          { type: 'range', key: utf8('x'), revision: 2 },
        ],
      },
      {
        success: [
          { type: 'put', key: utf8('5') },
          { type: 'range', key: utf8('x'), revision: 99 },
        ],
      },
      { success: [{ type: 'put', key: utf8('6') }] },
    ];
    const results = await together(engine, () => requests.map((one) => engine.txn(one, SHARE)));
    expect(results.map(codeOf)).toEqual([
      ...['done', 'lease-not-found rejected', 'key-not-found rejected'],
      ...['compacted rejected', 'future-revision rejected', 'done'],
    ]);
    // Each of the others once, and of the refused ones nothing at all.
    await put(engine, 'last');
    const told: string[] = [];
    for await (const { events } of watch) {
      told.push(...events.map(({ kv }) => text(kv.key)));
      if (told.includes('last')) break;
    }
    expect(told.sort()).toEqual([FIRST, '1', '6', 'last']);
  });

  it('a watch tells the changes of one revision in one piece', async () => {
    const engine = await engineAt((await server()).port);
    const watch = engine.watch(prefixRange(utf8('k')));
    await watch.created;
    const keys = Array.from({ length: 30 }, (_, i) => `k${i}`);
    await together(engine, () => keys.map((key) => put(engine, key)));
    const step = await watch[Symbol.asyncIterator]().next();
    const events = step.done ? [] : step.value.events;
    expect(events.map(({ kv }) => text(kv.key)).sort()).toEqual(keys.sort());
    expect(new Set(events.map(({ kv }) => kv.modRevision)).size).toBe(1);
  });

  it('a lost answer is unknown for all, and nothing is sent twice', async () => {
    const etcd = await server();
    const proxy = await startProxy(etcd.port);
    undo.push(() => proxy.close());
    const engine = await engineAt(proxy.port);
    const keys = Array.from({ length: 10 }, (_, i) => `k${i}`);
    await put(engine, 'warm');
    await etcd.standStill();
    const results = together(engine, () => keys.map((key) => put(engine, key)));
    // They leave after ten milliseconds without an answer to the one before them.
    await new Promise((resolve) => setTimeout(resolve, 200));
    proxy.cut();
    expect(new Set((await results).map(codeOf))).toEqual(new Set(['unavailable unknown']));
    etcd.signal('SIGCONT');
    await put(engine, 'after');
    const { kvs } = await (await engineAt(etcd.port)).range(prefixRange(utf8('k')));
    // All in one step or none; a second sending would show in the version.
    expect([0, keys.length]).toContain(kvs.length);
    expect(
      new Set(kvs.map(({ version, modRevision }) => `${version} at ${modRevision}`)).size,
    ).toBe(kvs.length > 0 ? 1 : 0);
    expect(kvs.every(({ version }) => version === 1)).toBe(true);
  });

  it('grants that travel together meet a lifted era together, and none gets an old token', async () => {
    const etcd = await server();
    const [one, other] = [await engineAt(etcd.port), await engineAt(etcd.port)];
    const { id } = await one.grantLease({ ttlMs: 60_000 });
    await other.liftEra(3);
    const claim = (key: string): TxnRequest => ({
      compare: [{ key: utf8(key), target: 'create', result: '=', value: 0 }],
      success: [{ type: 'put', key: utf8(key), lease: id }],
    });
    const results = await together(one, () =>
      ['a', 'b', 'c'].map((key) => one.txn(claim(key), SHARE)),
    );
    const headers = results.map((result) =>
      result.status === 'fulfilled' ? result.value.header : undefined,
    );
    expect(headers.map((header) => header?.era)).toEqual([3, 3, 3]);
    expect(new Set(headers.map((header) => header?.revision)).size).toBe(1);
  });

  it('as many go together as the server takes, and no more', async () => {
    const engine = await engineAt((await server(['--max-txn-ops', '16'])).port, {
      operationsMax: 16,
    });
    const { id } = await engine.grantLease({ ttlMs: 60_000 });
    const claim = (name: string): TxnRequest => {
      const key = utf8(name);
      const nested: Operation = {
        type: 'txn',
        success: [
          { type: 'put', key },
          { type: 'range', key },
        ],
      };
      const compare: Compare[] = [{ key, target: 'create', result: '=', value: 0 }];
      return { compare, success: [{ type: 'put', key, lease: id }], failure: [nested] };
    };
    const names = Array.from({ length: 60 }, (_, i) => `k${i}`);
    const results = await together(engine, () =>
      names.map((name) => engine.txn(claim(name), SHARE)),
    );
    const revisions = results.map((result) =>
      result.status === 'fulfilled' ? result.value.header.revision : 0,
    );
    expect(revisions).not.toContain(0);
    // One for the bundle, three for what a claim nests: twelve. Refused, each would have gone alone.
    expect(new Set(revisions).size).toBe(60 / 12);
  });

  it('with no space left, puts are refused together as alone, and deletes still free some', async (context) => {
    const engine = await engineAt((await server(['--quota-backend-bytes', '4000000'])).port);
    await put(engine, 'old');
    const filler = 'x'.repeat(400_000);
    const filled = async (): Promise<string> => {
      // The server looks at its size ten times a second.
      for (let i = 0; i < 200; i++) {
        const [result] = await Promise.allSettled([put(engine, `filler${i}`, filler)]);
        if (codeOf(result!) !== 'done') return codeOf(result!);
      }
      return 'never';
    };
    expect(await filled()).toBe('no-space rejected');
    const del: TxnRequest = { success: [{ type: 'delete', key: utf8('old') }] };
    const results = await together(engine, () => [
      ...['a', 'b', 'c'].map((key) => put(engine, key)),
      engine.txn(del, SHARE),
    ]);
    expect(results.map(codeOf)).toEqual([...Array(3).fill('no-space rejected'), 'done']);
    const nested: Operation = { type: 'txn', success: [{ type: 'put', key: utf8('hole') }] };
    const [bare] = await Promise.allSettled([engine.txn({ success: [nested] })]);
    if (codeOf(bare!) !== 'done') context.skip('this etcd looks into nested transactions');
  });

  it('where the caller has rights, transactions go one by one unless told otherwise', async (context) => {
    const etcd = await server();
    etcdctl(etcd, 'user', 'add', 'root:secret');
    etcdctl(etcd, 'user', 'grant-role', 'root', 'root');
    etcdctl(etcd, 'user', 'add', 'jo:secret');
    etcdctl(etcd, 'role', 'add', 'own');
    etcdctl(etcd, 'role', 'grant-permission', '--prefix', 'own', 'readwrite', 'jo/');
    etcdctl(etcd, 'role', 'grant-permission', 'own', 'readwrite', '.holdfast/era');
    etcdctl(etcd, 'user', 'grant-role', 'jo', 'own');
    etcdctl(etcd, 'auth', 'enable');
    const at = `jo:secret@127.0.0.1:${etcd.port}`;
    const keys = ['jo/1', 'jo/2', 'secret/1', 'jo/3'];
    const tried = async (options: EtcdOptions): Promise<string[]> => {
      const engine = await engineAt(at, options);
      await put(engine, 'jo/0');
      void put(engine, 'jo/first').catch(() => {});
      return (await Promise.allSettled(keys.map((key) => put(engine, key)))).map(codeOf);
    };
    const right = ['done', 'done', 'permission-denied rejected', 'done'];
    expect(await tried({})).toEqual(right);
    const asked = await tried({ shareRevisions: true });
    if (asked[2] !== 'done') context.skip('this etcd looks into nested transactions');
  });

  it('locks with names of their own share revisions, and claims that are ordered do not', async () => {
    const engine = await engineAt((await server()).port);
    const client = new Client(engine, { ttl: 20_000 }, false);
    undo.push(() => client.close());
    await (await client.lock('warm').acquire()).release();
    const names = Array.from({ length: 32 }, (_, i) => `n${i}`);
    const plain = await Promise.all(names.map((name) => client.lock(name).acquire()));
    const owned = await Promise.all(
      names.map((name) => client.lock(`owned/${name}`).acquire({ owner: name })),
    );
    const readers = await Promise.all(names.map(() => client.readWriteLock('rw').acquire('read')));
    const members = await Promise.all(names.map(() => client.group('g').join()));
    const different = (grants: readonly { readonly token: bigint }[]): number =>
      new Set(grants.map(({ token }) => token)).size;
    expect(different(plain)).toBeLessThan(names.length);
    expect([owned, readers, members].map(different)).toEqual(Array(3).fill(names.length));
  });

  it('tokens of each lock only rise while many locks change hands at once', async () => {
    const etcd = await server();
    const last = new Map<string, bigint>();
    let cycles = 0;
    const work = async (client: Client, turns: number): Promise<void> => {
      for (let i = 0; i < turns; i++) {
        const name = `line${(i * 7) % 5}`;
        await client.lock(name).run(({ token }) => {
          expect(token, name).toBeGreaterThan(last.get(name) ?? 0n);
          last.set(name, token);
          cycles++;
        });
      }
    };
    const clients = await Promise.all(
      [1, 2, 3].map(async () => new Client(await engineAt(etcd.port), { ttl: 20_000 }, false)),
    );
    for (const client of clients) undo.push(() => client.close());
    await Promise.all(
      clients.flatMap((client) => Array.from({ length: 8 }, () => work(client, 15))),
    );
    expect(cycles).toBe(3 * 8 * 15);
  }, 60_000);
});

/** By revision; of one revision, those that changed something before those that found it so. */
function inOrder(results: readonly PromiseSettledResult<TxnResult>[]): number[] {
  const place = (at: number): number => {
    const result = results[at]!;
    if (result.status === 'rejected') return 0;
    const { header, results: own } = result.value;
    return 2 * header.revision + (changed(own) ? 0 : 1);
  };
  return [...results.keys()].sort((a, b) => place(a) - place(b));
}

/** What a transaction wrote, if it still stands, stands at the revision it was told. */
async function expectWritten(engine: Engine, name: string, revision: number): Promise<void> {
  const { kvs } = await engine.range({ ...prefixRange(utf8('')), revision });
  const own = kvs.filter(({ value }) => binaryString(value) === name);
  expect(own.every(({ modRevision }) => modRevision === revision)).toBe(true);
}
