import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import type { Engine } from '../../engine/contract.ts';
import type { EmbeddedEngine } from '../../engine/embedded.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import type { TxnRequest } from '../../model/transaction.ts';
import type { TenantLimits } from './meter.ts';
import { Tenants } from './tenants.ts';

let engine: EmbeddedEngine;
let clock: ManualClock;

beforeEach(async () => {
  clock = new ManualClock();
  engine = await openMemoryEngine({ clock });
});

afterEach(() => engine.close());

const tenants = (limits: TenantLimits = {}): Tenants => new Tenants(engine, clock, limits);
const put = (on: Engine, key: string, value = '', lease?: bigint): ReturnType<Engine['txn']> =>
  on.txn({
    success: [{ type: 'put', key: utf8(key), value: utf8(value), ...(lease ? { lease } : {}) }],
  });
const everything = { key: utf8('\0'), end: utf8('\0') };
const keys = async (on: Engine): Promise<string[]> =>
  (await on.range(everything)).kvs.map(({ key }) => text(key));

describe('keys', () => {
  test('of one tenant are invisible to another and to those of no tenant', async () => {
    const all = tenants();
    const [a, b, nobody] = [all.view('a'), all.view('b'), all.view(undefined)];
    await put(a, 'x', 'of a');
    await put(b, 'x', 'of b');
    await put(nobody, 'x', 'of nobody');
    for (const [view, value] of [
      [a, 'of a'],
      [b, 'of b'],
      [nobody, 'of nobody'],
    ] as const) {
      expect(await keys(view)).toEqual(['x']);
      expect(text((await view.range({ key: utf8('x') })).kvs[0]!.value)).toBe(value);
    }
  });

  test('no name of a tenant reaches into another: neither a prefix of it nor one with its signs', async () => {
    const all = tenants();
    await put(all.view('a'), 'k/x', 'hidden');
    for (const name of ['a/k', 'a%2Fk', 'a/', '', 'a\0', 'A', '%61']) {
      expect([name, await keys(all.view(name))]).toEqual([name, []]);
    }
  });

  test("whoever has no tenant reaches the server's own nowhere in a transaction", async () => {
    const all = tenants();
    const [a, nobody] = [all.view('a'), all.view(undefined)];
    await put(a, 'x', 'of a');
    const key = utf8('\0t/a/k/x');
    const other = { key: utf8('mine') };
    const around = (inner: TxnRequest): TxnRequest[] => [
      inner,
      {
        success: [
          { type: 'range', ...other },
          { type: 'txn', ...inner },
        ],
      },
      { failure: [{ type: 'txn', failure: [{ type: 'txn', ...inner }] }] },
    ];
    const named: TxnRequest[] = [
      { compare: [{ key, target: 'version', result: '=', value: 1 }] },
      { success: [{ type: 'put', key, value: utf8('stolen') }] },
      { failure: [{ type: 'delete', key }] },
      { success: [{ type: 'range', key }] },
    ];
    for (const request of named.flatMap(around)) {
      await expect(nobody.txn(request)).rejects.toMatchObject({ code: 'invalid-argument' });
    }
    const reaching: TxnRequest[] = [
      { success: [{ type: 'delete', ...everything }] },
      { success: [{ type: 'range', ...everything }] },
      { compare: [{ ...everything, target: 'version', result: '>', value: 0 }] },
    ];
    for (const request of reaching.flatMap(around)) {
      const { results } = await nobody.txn(request);
      expect(JSON.stringify(results)).not.toMatch(/"(count|deleted)":[1-9]/);
    }
    expect(await keys(a)).toEqual(['x']);
    expect(text((await a.range({ key: utf8('x') })).kvs[0]!.value)).toBe('of a');
  });

  test('a range, a delete and a watch from here to the end stop at the border of the tenant', async () => {
    const all = tenants();
    const [a, b] = [all.view('a'), all.view('b')];
    await put(b, 'x');
    const watch = a.watch({ key: utf8('a'), end: utf8('\0') });
    await watch.created;
    await a.txn({ success: [{ type: 'delete', ...everything }] });
    await put(b, 'y');
    await put(a, 'mine');
    const step = await watch[Symbol.asyncIterator]().next();
    expect(step.done || step.value.events.map(({ kv }) => text(kv.key))).toEqual(['mine']);
    await watch.close();
    expect(await keys(b)).toEqual(['x', 'y']);
    await all.close();
  });
});

describe('leases', () => {
  test('of one tenant do not exist for another, whatever it does to their ids', async () => {
    const all = tenants();
    const [a, b] = [all.view('a'), all.view('b')];
    const { id } = await a.grantLease({ ttlMs: 10_000 });
    await put(a, 'x', '', id);
    for (const attempt of [
      () => b.keepAlive(id),
      () => b.revokeLease(id),
      () => b.leaseInfo(id, { keys: true }),
      () => put(b, 'y', '', id),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ code: 'lease-not-found' });
    }
    expect((await a.leaseInfo(id, { keys: true })).keys?.map(text)).toEqual(['x']);
  });

  test('a replayed message of another tenant changes nothing', async () => {
    const all = tenants();
    const [a, b] = [all.view('a'), all.view('b')];
    const { id } = await a.grantLease({ ttlMs: 10_000 });
    await put(a, 'lock/1', 'a', id);
    const { kvs } = await a.range({ key: utf8('lock/1') });
    const release = {
      compare: [
        {
          key: utf8('lock/1'),
          target: 'create' as const,
          result: '=' as const,
          value: kvs[0]!.createRevision,
        },
      ],
      success: [{ type: 'delete' as const, key: utf8('lock/1') }],
    };
    expect((await b.txn(release)).succeeded).toBe(false);
    expect(await keys(a)).toEqual(['lock/1']);
    // The same message of its own tenant, but of an older life of the key.
    expect((await a.txn(release)).succeeded).toBe(true);
    await put(a, 'lock/1', 'again', id);
    expect((await a.txn(release)).succeeded).toBe(false);
    expect(await keys(a)).toEqual(['lock/1']);
  });

  test('the history belongs to all: a tenant can neither compact it nor lift its era', async () => {
    const a = tenants().view('a');
    await expect(a.compact(1)).rejects.toMatchObject({ code: 'permission-denied' });
    await expect(a.liftEra(3)).rejects.toMatchObject({ code: 'permission-denied' });
    expect(a.operator).toBeUndefined();
  });
});

describe('limits', () => {
  const exhausted = { code: 'resource-exhausted', outcome: 'rejected' };

  test('the last key within the limit is taken and the next one refused; another tenant has its own', async () => {
    const all = tenants({ keys: 2 });
    const [a, b] = [all.view('a'), all.view('b')];
    await put(a, '1');
    await put(a, '2');
    await expect(put(a, '3')).rejects.toMatchObject(exhausted);
    await put(b, '1');
    await a.txn({ success: [{ type: 'delete', key: utf8('1') }] });
    await put(a, '3');
    await all.close();
  });

  test('the last byte within the limit is taken and one more refused', async () => {
    const all = tenants({ bytes: 10 });
    const a = all.view('a');
    await expect(put(a, 'k', '0123456789')).rejects.toMatchObject(exhausted);
    await put(a, 'k', '012345678');
    await expect(put(a, 'l')).rejects.toMatchObject(exhausted);
    await all.close();
  });

  test('leases and watches are counted, and room comes back when they end', async () => {
    const all = tenants({ leases: 1, watches: 1 });
    const a = all.view('a');
    const { id } = await a.grantLease({ ttlMs: 10_000 });
    await expect(a.grantLease({ ttlMs: 10_000 })).rejects.toMatchObject(exhausted);
    await a.revokeLease(id);
    await a.grantLease({ ttlMs: 10_000 });
    const watch = a.watch({ key: utf8('x') });
    expect(() => a.watch({ key: utf8('x') })).toThrow('1 watches');
    await watch.close();
    await a.watch({ key: utf8('x') }).close();
    await all.close();
  });

  test('requests beyond the rate are refused until time has passed; renewals are no requests', async () => {
    const a = tenants({ requestsPerSecond: 3 }).view('a');
    const { id } = await a.grantLease({ ttlMs: 10_000 });
    for (let at = 0; at < 3; at++) await a.range({ key: utf8('x') });
    await expect(a.range({ key: utf8('x') })).rejects.toMatchObject(exhausted);
    await expect(put(a, 'x')).rejects.toMatchObject(exhausted);
    await a.keepAlive(id);
    clock.advance(1_000);
    await put(a, 'x');
  });
});

describe('turns', () => {
  const LARGE = 'x'.repeat(100_000);
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  /** How many of a tenant's large writes are answered before its next turn, beside another. */
  async function floodBeside(limits: TenantLimits): Promise<{ all: Tenants; answered: string[] }> {
    const all = tenants(limits);
    const [noisy, quiet] = [all.view('noisy'), all.view('quiet')];
    const answered: string[] = [];
    await put(quiet, 'here');
    for (let at = 0; at < 50; at++) {
      const key = `k${at}`;
      put(noisy, key, LARGE).then(
        () => answered.push(key),
        () => {},
      );
    }
    await settle();
    return { all, answered };
  }

  test('a tenant that floods waits, another is answered meanwhile, and nothing is lost', async () => {
    const { all, answered } = await floodBeside({});
    expect(answered.length).toBeLessThan(10);
    const before = answered.length;
    const quiet = all.view('quiet');
    const { id } = await quiet.grantLease({ ttlMs: 60_000 });
    await quiet.keepAlive(id);
    await put(quiet, 'mine', '', id);
    expect(await keys(quiet)).toEqual(['here', 'mine']);
    expect(answered).toHaveLength(before);
    for (let beat = 0; beat < 150; beat++) {
      clock.advance(50);
      await settle();
    }
    expect(answered).toHaveLength(50);
    await all.close();
  });

  test('its ranges and leases wait with its writes, its renewals do not', async () => {
    const all = tenants();
    const [noisy, quiet] = [all.view('noisy'), all.view('quiet')];
    const { id } = await noisy.grantLease({ ttlMs: 60_000 });
    await put(quiet, 'here');
    for (let at = 0; at < 50; at++) put(noisy, `k${at}`, LARGE).catch(() => {});
    const done: string[] = [];
    const note = (what: string) => () => done.push(what);
    const ended = (): void => {};
    noisy.range(everything).then(note('range'), ended);
    noisy.grantLease({ ttlMs: 60_000 }).then(note('lease'), ended);
    await noisy.keepAlive(id);
    await settle();
    expect(done).toEqual([]);
    await all.close();
  });

  test('without them everything goes at once', async () => {
    const { all, answered } = await floodBeside({ turns: false });
    expect(answered).toHaveLength(50);
    await all.close();
  });
});
