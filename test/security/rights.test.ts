/** What a right covers: every operation by itself, whichever request carries it. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Bytes, text, utf8 } from '../../src/base/bytes.ts';
import { interval, isEmptyInterval } from '../../src/model/range.ts';
import { covers } from '../../src/server/access/permission.ts';
import {
  AuthService,
  KVService,
  LeaseService,
  WatchService,
} from '../../src/wire/messages/services.ts';
import type { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { type Denial, refusedCall, Stage } from './stage.ts';

const DENIED = 'etcdserver: permission denied';

let stage: Stage;
let ann: GrpcClient;

beforeEach(async () => {
  stage = await (await Stage.open()).guarded();
  ann = await stage.as('ann');
});

afterEach(() => stage[Symbol.asyncDispose]());

const put = (key: string, more: object = {}): object => ({
  requestPut: { key: utf8(key), value: utf8('x'), ...more },
});
const nest = (inner: object, depth: number): object =>
  depth === 0 ? inner : { requestTxn: { failure: [nest(inner, depth - 1)] } };
const refusedTxn = (operation: object): Promise<Denial | undefined> =>
  refusedCall(ann, KVService.Txn, { success: [operation] });
const perm = (type: number, key: string, end?: string): object => ({
  name: 'ab',
  perm: { permType: type, key: utf8(key), ...(end === undefined ? {} : { rangeEnd: utf8(end) }) },
});
/** Changes ann's rights; her token is of an older revision then, so she logs in again. */
async function allow(type: number, key: string, end?: string): Promise<void> {
  const root = await stage.as('root');
  await root.unary(AuthService.RoleGrantPermission, perm(type, key, end));
  ann = await stage.as('ann');
}

describe('transactions', () => {
  test('a nested transaction is authorized operation by operation, at any depth', async () => {
    for (const depth of [0, 1, 2, 5, 20]) {
      expect(await refusedTxn(nest(put('a'), depth))).toBeUndefined();
      expect((await refusedTxn(nest(put('z'), depth)))?.message).toBe(DENIED);
      const compare = { requestTxn: { compare: [{ key: utf8('z') }] } };
      expect((await refusedTxn(nest(compare, depth)))?.message).toBe(DENIED);
    }
    expect(await stage.values('z')).toEqual([]);
  });

  test('nesting deeper than the limit is refused', async () => {
    const said = await refusedTxn(nest(put('a'), 400));
    expect(said?.code).toBe(3);
    // The server goes on.
    expect(await refusedTxn(put('a'))).toBeUndefined();
  });

  test('prev_kv in a transaction needs read permission', async () => {
    await allow(1, 'w');
    for (const depth of [0, 1, 3]) {
      expect(await refusedTxn(nest(put('w'), depth))).toBeUndefined();
      const showing = put('w', { prevKv: true });
      expect((await refusedTxn(nest(showing, depth)))?.message).toBe(DENIED);
      const removing = { requestDeleteRange: { key: utf8('w'), prevKv: true } };
      expect((await refusedTxn(nest(removing, depth)))?.message).toBe(DENIED);
    }
    expect((await refusedCall(ann, KVService.Put, { key: utf8('w'), prevKv: true }))?.message).toBe(
      DENIED,
    );
  });

  test('attaching a lease needs permission on the lease and its keys', async () => {
    const root = await stage.as('root');
    const { ID } = await root.unary(LeaseService.LeaseGrant, { TTL: 60 });
    await root.unary(KVService.Put, { key: utf8('z'), lease: ID });
    for (const depth of [0, 1, 3]) {
      expect((await refusedTxn(nest(put('a', { lease: ID }), depth)))?.message).toBe(DENIED);
    }
    const { ID: own } = await ann.unary(LeaseService.LeaseGrant, { TTL: 60 });
    expect(await refusedTxn(put('a', { lease: own }))).toBeUndefined();
  });

  test('a transaction is allowed only if each of its operations alone would be', async () => {
    const range = (key: string, end = ''): object => ({ key: utf8(key), rangeEnd: utf8(end) });
    const word = fc.constantFrom('a', 'ab', 'b', 'bz', 'c', 'z');
    const single = fc.oneof(
      word.map((key) => [KVService.Put, 'requestPut', { key: utf8(key) }] as const),
      fc
        .tuple(word, fc.constantFrom('', 'b', 'c', 'd', '\0'))
        .map(([key, end]) => [KVService.Range, 'requestRange', range(key, end)] as const),
      fc
        .tuple(word, fc.constantFrom('', 'b', 'c', '\0'))
        .map(([a, b]) => [KVService.DeleteRange, 'requestDeleteRange', range(a, b)] as const),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(single, { minLength: 1, maxLength: 3 }), async (operations) => {
        const alone = await Promise.all(
          operations.map(([method, , request]) => refusedCall(ann, method, request)),
        );
        const success = operations.map(([, name, request]) => ({ [name]: request }));
        const together = await refusedCall(ann, KVService.Txn, { success });
        const denied = alone.some((one) => one?.message === DENIED);
        expect(together?.message === DENIED).toBe(denied);
      }),
      { numRuns: 60 },
    );
  });
});

describe('ranges', () => {
  test('watch, range and delete agree on authorization for every (key, end)', async () => {
    const bytes = fc.constantFrom('', '\0', 'a', 'a\0', 'b', 'b\u007f', 'c', 'z').map(utf8);
    const verdict = async (method: typeof KVService.Range, request: object): Promise<boolean> =>
      (await refusedCall(ann, method as never, request))?.message.includes('permission denied') ===
      true;
    await fc.assert(
      fc.asyncProperty(bytes, bytes, async (key: Bytes, rangeEnd: Bytes) => {
        const range = { key, rangeEnd };
        const [read, removed, watched] = [
          await verdict(KVService.Range, range),
          await verdict(KVService.DeleteRange as never, range),
          await verdict(WatchService.Watch as never, { createRequest: { ...range } }),
        ];
        // An empty key means the first one to a watch, and nothing to the others.
        const empty = isEmptyInterval(interval({ key, end: rangeEnd }));
        if (key.length === 0) expect(watched).toBe(true);
        // A watch of nothing is refused as such, whoever asks.
        else if (empty) expect(removed).toBe(read);
        else expect([read, removed]).toEqual([watched, watched]);
      }),
      { numRuns: 80 },
    );
  });

  test('a range delete that leaves the permitted range deletes nothing', async () => {
    const root = await stage.as('root');
    for (const key of ['a', 'b', 'c', 'd']) {
      await root.unary(KVService.Put, { key: utf8(key), value: utf8(key) });
    }
    for (const end of ['d', 'c\0', '\0']) {
      const range = { key: utf8('a'), rangeEnd: utf8(end) };
      expect((await refusedCall(ann, KVService.DeleteRange, range))?.message).toBe(DENIED);
    }
    expect(await stage.values('a', '\0')).toEqual(['a', 'b', 'c', 'd']);
  });

  test('an empty permission range grants nothing', async () => {
    const root = await stage.as('root');
    for (const [key, end] of [
      ['z', 'z'],
      ['z', 'y'],
      ['', ''],
      ['', 'z'],
    ] as const) {
      const said = await refusedCall(root, AuthService.RoleGrantPermission, perm(2, key, end));
      expect(said?.message).toBe('etcdserver: invalid auth management');
    }
    expect((await refusedTxn(put('z')))?.message).toBe(DENIED);
    const nothing = [{ type: 'readwrite' as const, key: utf8('z'), end: utf8('a') }];
    expect(covers(nothing, 'read', interval({ key: utf8('b') }))).toBe(false);
  });

  test('lease queries show only keys the caller may read', async () => {
    const root = await stage.as('root');
    const { ID } = await root.unary(LeaseService.LeaseGrant, { TTL: 60 });
    await root.unary(KVService.Put, { key: utf8('a'), lease: ID });
    const own = await ann.unary(LeaseService.LeaseTimeToLive, { ID, keys: true });
    expect(own.keys.map(text)).toEqual(['a']);
    await root.unary(KVService.Put, { key: utf8('z'), lease: ID });
    const said = await refusedCall(ann, LeaseService.LeaseTimeToLive, { ID, keys: true });
    expect(said?.message).toBe(DENIED);
    const without = await ann.unary(LeaseService.LeaseTimeToLive, { ID });
    expect(without.keys).toEqual([]);
  });

  test('a negative lease id is refused', async () => {
    for (const ID of [-1n, -(2n ** 63n)]) {
      const said = await refusedCall(ann, LeaseService.LeaseGrant, { ID, TTL: 10 });
      expect(said).toBeDefined();
      expect((await refusedTxn(put('a', { lease: ID })))?.message).toContain('lease not found');
    }
  });
});

describe('watches', () => {
  interface Seen {
    readonly messages: { watchId: number; canceled: boolean; created: boolean; keys: string[] }[];
    readonly call: ReturnType<GrpcClient['stream']>;
    until(done: () => boolean): Promise<void>;
  }

  function watching(client: GrpcClient): Seen {
    const call = client.stream(WatchService.Watch);
    const messages: Seen['messages'] = [];
    let wake = (): void => {};
    void (async () => {
      for await (const { watchId, canceled, created, events } of call.responses()) {
        messages.push({ watchId, canceled, created, keys: events.map(({ kv }) => text(kv!.key)) });
        wake();
      }
    })().catch(() => {});
    const until = async (done: () => boolean): Promise<void> => {
      while (!done()) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    return { messages, call: call as never, until };
  }

  test('a watch is closed before the revocation of its role is answered', async () => {
    const seen = watching(ann);
    seen.call.send({ createRequest: { key: utf8('a'), rangeEnd: utf8('b') } });
    await seen.until(() => seen.messages.length === 1);
    const root = await stage.as('root');
    await root.unary(AuthService.UserRevokeRole, { name: 'ann', role: 'ab' });
    const writer = await stage.as('root');
    await writer.unary(KVService.Put, { key: utf8('a'), value: utf8('after') });
    await seen.until(() => seen.messages.length === 2);
    expect(seen.messages[1]).toMatchObject({ watchId: 0, canceled: true, keys: [] });
    seen.call.cancel();
  });

  test('a watch event is authorized when it is sent, not only when the watch is created', async () => {
    const seen = watching(ann);
    seen.call.send({ createRequest: { key: utf8('a'), rangeEnd: utf8('c') } });
    await seen.until(() => seen.messages.length === 1);
    const root = await stage.as('root');
    await root.unary(KVService.Put, { key: utf8('a') });
    await seen.until(() => seen.messages.length === 2);
    await root.unary(AuthService.RoleRevokePermission, {
      role: 'ab',
      key: utf8('a'),
      rangeEnd: utf8('c'),
    });
    const again = await stage.as('root');
    await again.unary(KVService.Put, { key: utf8('b') });
    await seen.until(() => seen.messages.some(({ canceled }) => canceled));
    expect(seen.messages.flatMap(({ keys }) => keys)).toEqual(['a']);
    seen.call.cancel();
  });

  test('watch id 0 is an id like any other', async () => {
    const seen = watching(ann);
    for (const key of ['a', 'b']) seen.call.send({ createRequest: { key: utf8(key) } });
    await seen.until(() => seen.messages.length === 2);
    expect(seen.messages.map(({ watchId }) => watchId)).toEqual([0, 1]);
    seen.call.send({ cancelRequest: { watchId: 0 } });
    await seen.until(() => seen.messages.length === 3);
    expect(seen.messages[2]).toMatchObject({ watchId: 0, canceled: true });
    await ann.unary(KVService.Put, { key: utf8('a') });
    await ann.unary(KVService.Put, { key: utf8('b') });
    await seen.until(() => seen.messages.length === 4);
    expect(seen.messages[3]).toMatchObject({ watchId: 1, keys: ['b'] });
    seen.call.cancel();
  });
});
