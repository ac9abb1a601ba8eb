/** Every method, every door: who is nobody, or has no right, is denied. */

import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { deferred } from '../../src/base/deferred.ts';
import { clientHeaders } from '../../src/wire/grpc/request.ts';
import type { HeaderList } from '../../src/wire/http2/headers.ts';
import { encodeFramed } from '../../src/wire/messages/codec.ts';
import type { Method } from '../../src/wire/messages/descriptor.ts';
import { KVService, METHOD_BY_PATH, METHODS } from '../../src/wire/messages/services.ts';
import { connect } from '../../src/wire/net/client.ts';
import type { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { refusedCall, refusedJson, Stage } from './stage.ts';

/** Nothing is asked of whoever calls these. */
const OPEN_TO_ALL = new Set([
  '/etcdserverpb.Auth/Authenticate',
  '/grpc.health.v1.Health/Check',
  '/grpc.health.v1.Health/Watch',
]);
/** Every user may call these; the arguments below touch nothing of anybody's. */
const OPEN_TO_USERS = new Set([
  '/etcdserverpb.Lease/LeaseGrant',
  '/etcdserverpb.Cluster/MemberList',
  '/etcdserverpb.Maintenance/Status',
  '/etcdserverpb.Maintenance/Alarm',
]);

const key = utf8('a');
const LEASE = 77n;
const leader = { name: utf8('a'), key: utf8('a/4d'), rev: 1, lease: LEASE };
/** What each method needs to reach something that is not the caller's. Absent: nothing. */
const REQUESTS: Readonly<Record<string, object>> = {
  '/etcdserverpb.KV/Range': { key },
  '/etcdserverpb.KV/RangeStream': { key },
  '/etcdserverpb.KV/Put': { key },
  '/etcdserverpb.KV/DeleteRange': { key },
  '/etcdserverpb.KV/Txn': { success: [{ requestPut: { key } }] },
  '/etcdserverpb.KV/Compact': { revision: 1 },
  '/etcdserverpb.Watch/Watch': { createRequest: { key } },
  '/etcdserverpb.Lease/LeaseRevoke': { ID: LEASE },
  '/etcdserverpb.Lease/LeaseKeepAlive': { ID: LEASE },
  '/etcdserverpb.Lease/LeaseTimeToLive': { ID: LEASE, keys: true },
  '/etcdserverpb.Maintenance/Snapshot': {},
  '/etcdserverpb.Auth/UserGet': { name: 'root' },
  '/etcdserverpb.Auth/RoleGet': { role: 'ab' },
  '/v3lockpb.Lock/Lock': { name: key, lease: LEASE },
  '/v3lockpb.Lock/Unlock': { key: utf8('a/4d') },
  '/v3electionpb.Election/Campaign': { name: key, lease: LEASE },
  '/v3electionpb.Election/Proclaim': { leader },
  '/v3electionpb.Election/Resign': { leader },
  '/v3electionpb.Election/Leader': { name: key },
  '/v3electionpb.Election/Observe': { name: key },
  '/holdfastpb.Authority/LiftEra': { era: 1 },
  '/holdfastpb.Authority/SealToken': { key: utf8('a/4d'), lease: LEASE },
};

const requestFor = ({ path }: Method): object => REQUESTS[path] ?? {};
const guarded = METHODS.filter(({ path }) => !OPEN_TO_ALL.has(path));

let stage: Stage;
let token: string;
let eve: GrpcClient;

beforeAll(async () => {
  stage = await Stage.open();
  const { id } = await stage.engine.grantLease({ id: LEASE, ttlMs: 600_000 });
  await stage.engine.txn({
    success: [{ type: 'put', key, value: utf8('kept-secret'), lease: id }],
  });
  await stage.guarded();
  token = await stage.token('eve');
  eve = stage.client({ metadata: [['token', token]] });
});

afterAll(() => stage[Symbol.asyncDispose]());

describe('every method of every service descriptor denies the unauthenticated caller and the wrong role', () => {
  test('the request table names only methods that exist', () => {
    const named = [...Object.keys(REQUESTS), ...OPEN_TO_ALL, ...OPEN_TO_USERS];
    expect(named.filter((path) => !METHOD_BY_PATH.has(path))).toEqual([]);
  });

  test.each(guarded.map((method) => [method.path, method] as const))(
    '%s denies nobody in particular, on gRPC and on JSON',
    async (_path, method) => {
      const said = await refusedCall(stage.client(), method, requestFor(method));
      expect(said?.message).toContain('user name is empty');
      for (const path of method.json) {
        const json = await refusedJson(stage, path, method, requestFor(method));
        expect([path, json?.message]).toEqual([
          path,
          expect.stringContaining('user name is empty'),
        ]);
      }
    },
  );

  test.each(
    guarded.filter(({ path }) => !OPEN_TO_USERS.has(path)).map((one) => [one.path, one] as const),
  )('%s denies a user without the right, on gRPC and on JSON', async (_path, method) => {
    const said = await refusedCall(eve, method, requestFor(method));
    expect(said?.message).toContain('permission denied');
    for (const path of method.json) {
      const json = await refusedJson(stage, path, method, requestFor(method), token);
      expect([path, json?.message]).toEqual([path, expect.stringContaining('permission denied')]);
    }
  });

  test('what has a right attached to its argument is denied with another argument', async () => {
    const alarm = METHOD_BY_PATH.get('/etcdserverpb.Maintenance/Alarm')!;
    for (const action of [1, 2]) {
      const said = await refusedCall(eve, alarm, { action, alarm: 1 });
      expect(said?.message).toContain('permission denied');
    }
  });

  test('nothing that was denied had an effect', async () => {
    expect(await stage.values('a')).toEqual(['kept-secret']);
    expect((await stage.engine.status()).alarms).toEqual([]);
    expect((await stage.engine.leaseInfo(LEASE)).id).toBe(LEASE);
  });
});

describe('the names of methods and routes', () => {
  /** The gRPC status of a call on a path as it is, or how its stream ended. */
  const answer = async (path: string): Promise<string> => {
    const session = await connect({ port: stage.server.port });
    const headers = clientHeaders({
      path,
      scheme: 'http',
      authority: 'localhost',
      userAgent: 'test',
      timeout: undefined,
      metadata: [],
    });
    const done = deferred<string>();
    const look = (list: HeaderList, last: boolean): void => {
      const found = list.find(([name]) => name === 'grpc-status') ?? (last ? list[0] : undefined);
      if (found) done.resolve(found[1]);
    };
    const request = session.request(headers, {
      onHeaders: look,
      onData: () => {},
      onTrailers: (list) => look(list, true),
      onFailed: (_error, code) => done.resolve(`reset ${code}`),
    });
    request.sendData(encodeFramed(KVService.Range.request, { key }), true);
    try {
      return await done.promise;
    } finally {
      session.destroy();
    }
  };

  test('the method itself is known: the calls below are refused for their path', async () => {
    // 3: nobody in particular may not read; the method was found.
    expect(await answer('/etcdserverpb.KV/Range')).toBe('3');
  });

  test.each([
    '/etcdserverpb.KV/Range/',
    '//etcdserverpb.KV/Range',
    '/etcdserverpb.KV//Range',
    '/etcdserverpb.kv/Range',
    '/etcdserverpb.KV/range',
    '/etcdserverpb.KV/Range?',
    '/etcdserverpb.KV/%52ange',
    '/etcdserverpb.KV/../etcdserverpb.KV/Range',
  ])('a path that differs from the method table in any byte is unknown: gRPC %j', async (path) => {
    // 12 is "unimplemented".
    expect(await answer(path)).toBe('12');
  });

  test.each([
    '/v3/kv/range/',
    '//v3/kv/range',
    '/v3//kv/range',
    '/V3/kv/range',
    '/v3/kv/%72ange',
    '/v3/kv/./range',
    '/v3/auth/../kv/range',
    '/v4/kv/range',
    '/v3/kv/range\\',
  ])('a path that differs from the method table in any byte is unknown: JSON %j', async (path) => {
    expect(await status(path)).toBe(404);
  });

  const status = (path: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const sent = httpRequest(
        { port: stage.server.port, host: '127.0.0.1', method: 'POST', path },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      sent.on('error', reject);
      sent.end('{}');
    });

  test('every HTTP route is in the method table, or shows no data', async () => {
    const base = `http://127.0.0.1:${stage.server.port}`;
    const routes = [
      ...['/health', '/healthz', '/livez', '/readyz', '/version', '/metrics'],
      '/.well-known/holdfast-keys',
    ];
    for (const route of routes) {
      const body = await (await fetch(base + route)).text();
      expect(body).not.toContain('kept-secret');
      expect(body).not.toMatch(/\b(?:ann|eve)\b/);
    }
    const others = ['/', '/v2/keys', '/debug/pprof', '/debug/vars', '/config/local/log', '/v3'];
    for (const route of others) expect((await fetch(base + route)).status).toBe(404);
  });

  test('an internal method is refused on the client listener: there is no service for members', () => {
    const services = new Set(METHODS.map(({ service }) => service));
    expect([...services].sort()).toEqual([
      'etcdserverpb.Auth',
      'etcdserverpb.Cluster',
      'etcdserverpb.KV',
      'etcdserverpb.Lease',
      'etcdserverpb.Maintenance',
      'etcdserverpb.Watch',
      'grpc.health.v1.Health',
      'holdfastpb.Audit',
      'holdfastpb.Authority',
      'v3electionpb.Election',
      'v3lockpb.Lock',
    ]);
  });

  test('nothing joins without a credential: there is one listener, and adding a member is root’s', async () => {
    const add = METHOD_BY_PATH.get('/etcdserverpb.Cluster/MemberAdd')!;
    const said = await refusedCall(stage.client(), add, { peerURLs: ['http://127.0.0.1:1'] });
    expect(said?.message).toContain('user name is empty');
    const root = await refusedCall(await stage.as('root'), add, { peerURLs: ['http://x:1'] });
    expect(root?.message).toContain('this server is one process');
  });
});
