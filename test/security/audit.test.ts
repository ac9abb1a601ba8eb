/** The audit log behind a server's two doors: what gets into it, what does not, and who may see it. */
import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { ManualClock } from '../../src/base/clock.ts';
import { connect } from '../../src/client.ts';
import type { Engine } from '../../src/engine/contract.ts';
import { openMemoryEngine } from '../../src/engine/memory/engine.ts';
import type { AuditEntry } from '../../src/model/audit.ts';
import { ChainCheck, type Verdict } from '../../src/model/audit-chain.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { leaseHex } from '../../src/model/lease.ts';
import { mayBeAct } from '../../src/server/audit/acts.ts';
import { AUDIT_KEY, AuditLog } from '../../src/server/audit/log.ts';
import { type RunningServer, serve } from '../../src/server/serve.ts';
import {
  AuditService,
  AuthorityService,
  AuthService,
  ElectionService,
  KVService,
  LeaseService,
  LockService,
  MaintenanceService,
  METHODS,
} from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { PASSWORDS, refusedCall, Stage } from './stage.ts';

let stage: Stage;

beforeEach(async () => {
  stage = await Stage.open();
});

afterEach(() => stage[Symbol.asyncDispose]());

async function logOf(server: RunningServer): Promise<AuditEntry[]> {
  const log = server.backend.audit.log!;
  // Behind everything that is still being written.
  await log.alongside({ act: 'x' }, async () => {});
  return log.entries(1, 0);
}

const log = (): Promise<AuditEntry[]> => logOf(stage.server);
const acts = async (): Promise<string[]> => (await log()).map(({ act }) => act);

function judged(entries: readonly AuditEntry[]): Verdict {
  const check = new ChainCheck((bytes) => createHash('sha256').update(bytes).digest());
  for (const entry of entries) check.add(entry);
  return check.end();
}

describe('what gets in', () => {
  test('a server on a new store writes nothing before the first act, and then its start before it', async () => {
    expect((await stage.engine.status()).header.revision).toBe(1);
    expect(await stage.server.backend.audit.log!.entries(1, 0)).toEqual([]);
    await stage.client().unary(AuthService.UserAdd, { name: 'tim', password: 'pw' });
    expect(await acts()).toEqual(['server.start', 'user.add']);
    const [started, added] = await log();
    expect(started).toMatchObject({
      server: 'default',
      subject: expect.stringContaining('memory'),
    });
    expect(added).toMatchObject({ subject: 'tim', outcome: 'done', address: '127.0.0.1' });
  });

  test('users, roles and access control, each in the revision of the act itself', async () => {
    await stage.guarded();
    expect(await acts()).toEqual([
      'server.start',
      ...['user.add', 'user.add', 'user.add', 'user.grant-role'],
      ...['role.add', 'role.grant-permission', 'user.grant-role', 'auth.enable'],
    ]);
    const { kvs } = await stage.engine.range({ key: utf8('\0auth') });
    const head = await stage.engine.range({ key: AUDIT_KEY });
    expect(head.kvs[0]!.modRevision).toBe(kvs[0]!.modRevision);
    const root = await stage.as('root');
    await root.unary(AuthService.UserDelete, { name: 'ann' });
    expect((await log()).at(-1)).toMatchObject({
      user: 'root',
      act: 'user.delete',
      subject: 'ann',
    });
    expect(judged(await log()).fault).toBeUndefined();
  });

  test('what is no transaction has an entry before it and one after', async () => {
    await stage.guarded();
    const root = await stage.as('root');
    const before = (await log()).length;
    await root.unary(KVService.Compact, { revision: 3 });
    await refusedCall(root, KVService.Compact, { revision: 2 });
    await root.unary(AuthorityService.LiftEra, { era: 4 });
    await root.unary(MaintenanceService.Alarm, { action: 1, alarm: 1 });
    await root.unary(MaintenanceService.Alarm, { action: 2, alarm: 1 });
    const entries = (await log()).slice(before);
    expect(entries.map(({ act, outcome, of }) => [act, outcome, of && of - before])).toEqual([
      ['store.compact', 'unknown', 0],
      ['store.compact', 'done', 1],
      ['store.compact', 'unknown', 0],
      ['store.compact', 'refused', 3],
      ['era.lift', 'unknown', 0],
      ['era.begin', 'done', 0],
      ['era.lift', 'done', 5],
      ['alarm.raise', 'unknown', 0],
      // Its end could not be written while the store was full.
      ['alarm.raise', 'done', 8],
      ['alarm.end', 'unknown', 0],
      ['alarm.end', 'done', 0],
    ]);
    const { fault, forks } = judged(await log());
    expect([fault, forks.map(({ toEra }) => toEra)]).toEqual([undefined, [4]]);
  });

  test('keys of seals: made, rotated, thrown away', async () => {
    const client = stage.client();
    await client.unary(AuditService.Head, {});
    const { keyId } = await client.unary(AuthorityService.RotateSealKeys, {});
    await client.unary(AuthorityService.RotateSealKeys, { discard: true });
    const rotations = (await log()).filter(({ act }) => act.startsWith('seal-keys'));
    expect(rotations.map(({ act, reason }) => [act, reason])).toEqual([
      ['seal-keys.rotate', 'by itself'],
      ['seal-keys.rotate', ''],
      ['seal-keys.discard', ''],
    ]);
    expect(rotations[1]!.subject).toBe(keyId);
  });

  test('a snapshot, also one that is broken off', async () => {
    await stage.guarded();
    const root = await stage.as('root');
    for (const whole of [true, false]) {
      const call = root.stream(MaintenanceService.Snapshot);
      call.send({});
      call.halfClose();
      for await (const _ of call.responses()) if (!whole) break;
    }
    await expect
      .poll(acts)
      .toSatisfy((all: string[]) => all.filter((a) => a === 'store.snapshot').length === 4);
  });

  test('an operator’s hand on a lock of another, but not on his own', async () => {
    await stage.guarded();
    const [ann, root] = [await stage.as('ann'), await stage.as('root')];
    const held = async (client: GrpcClient, name: string): Promise<Uint8Array> =>
      (await client.unary(LockService.Lock, { name: utf8(name) })).key;
    await root.unary(LockService.Unlock, { key: await held(root, 'a/own') });
    const before = (await log()).length;
    await root.unary(LockService.Unlock, { key: await held(ann, 'a/1') });
    await root.unary(KVService.DeleteRange, { key: await held(ann, 'a/2') });
    await held(ann, 'a/3');
    const kept = await held(ann, 'b/kept');
    const never = [{ key: kept, target: 1, result: 0, createRevision: 1 }];
    await root.unary(KVService.Txn, {
      compare: never,
      success: [{ requestDeleteRange: { key: kept } }],
    });
    expect((await log()).at(-1)).toMatchObject({ act: 'claim.delete', outcome: 'refused' });
    await root.unary(KVService.DeleteRange, { key: utf8('a/'), rangeEnd: utf8('a0') });
    const { ID } = await ann.unary(LeaseService.LeaseGrant, { TTL: 60 });
    await root.unary(LeaseService.LeaseRevoke, { ID });
    const { leader } = await ann.unary(ElectionService.Campaign, { name: utf8('a/chair') });
    await root.unary(ElectionService.Resign, { leader });
    const mine = await root.unary(LeaseService.LeaseGrant, { TTL: 60 });
    await root.unary(LeaseService.LeaseRevoke, { ID: mine.ID });
    await root.unary(KVService.Put, { key: utf8('a/plain') });
    await root.unary(KVService.DeleteRange, { key: utf8('a/plain') });
    const entries = (await log()).slice(before).filter(({ outcome }) => outcome === 'done');
    expect(entries.map(({ act }) => act)).toEqual([
      'claim.unlock',
      'claim.delete',
      'claim.delete',
      'lease.revoke',
      'claim.resign',
    ]);
    expect(entries[2]!.subject).toMatch(/^a\/3\/[0-9a-f]+$/);
    expect(entries[3]!.subject).toBe(leaseHex(ID));
  });

  test('a lock that is released by force, with the reason and who gave it', async () => {
    const url = `etcd://127.0.0.1:${stage.server.port}`;
    await using holder = await connect(url);
    await using operator = await connect(url, { holder: 'the operator' });
    await holder.lock('orders/42').acquire();
    expect(await operator.lock('orders/42').forceRelease({ reason: 'stuck since noon' })).toBe(
      true,
    );
    await expect.poll(acts).toContain('lock.break');
    expect((await log()).at(-1)).toMatchObject({
      subject: expect.stringMatching(/^orders\/42\//),
      reason: 'stuck since noon (by the operator)',
    });
  });

  test('the start and the end of a server, its limits, and that it is open on purpose', async () => {
    await stage.engine.txn({ success: [{ type: 'put', key: utf8('a') }] });
    const options = { engine: stage.engine, listen: { port: 0 }, name: 'two', insecure: true };
    const server = await serve(options);
    server.limit({ keys: 7 });
    await server.drain(100);
    const entries = (await log()).filter((entry) => entry.server === 'two');
    expect(entries.map(({ act }) => act)).toEqual([
      ...['server.start', 'server.limits', 'server.drain', 'server.stop'],
    ]);
    expect(entries[0]!.reason).toBe('with --insecure');
    expect(entries[1]!.subject).toBe('{"keys":7}');
    const silent = await serve({ ...options, audit: false });
    await silent.close();
    expect((await acts()).at(-1)).toBe('audit.off');
  });
});

describe('refusals', () => {
  test('of logins and of rights are told once, and then counted', async () => {
    await stage.guarded();
    const eve = await stage.as('eve');
    for (let i = 0; i < 4; i++) {
      await refusedCall(eve, AuthService.UserAdd, { name: 'mallory', password: 'p' });
      await refusedCall(stage.client(), AuthService.Authenticate, { name: 'root', password: 'no' });
    }
    await refusedCall(stage.client(), KVService.Compact, { revision: 1 });
    const refused = (await log()).filter(({ outcome }) => outcome === 'refused');
    expect(refused.map(({ user, act, subject }) => [user, act, subject])).toEqual([
      ['eve', 'user.add', 'mallory'],
      ['', 'login', 'root'],
      ['', 'store.compact', 'before revision 1'],
    ]);
    await stage.server.close();
    const counted = (await log()).filter(({ times }) => times > 1);
    expect(counted.map(({ act, times }) => [act, times])).toEqual([
      ['user.add', 3],
      ['login', 3],
    ]);
  });

  test('a flood of guesses under ever new names fills nothing', async () => {
    await stage.guarded();
    const before = (await log()).length;
    for (let i = 0; i < 200; i++) {
      stage.server.backend.audit.loginRefused({ address: `10.0.${i % 256}.1` }, undefined, 'wrong');
    }
    expect((await log()).length - before).toBe(64);
  });
});

describe('what does not', () => {
  test('no password and no token is in an entry, not even one typed where a name is asked for', async () => {
    await stage.guarded();
    const root = await stage.as('root');
    const token = await stage.token('root');
    await root.unary(AuthService.UserAdd, { name: 'tim', password: 'tim-secret-1' });
    await stage.token('root');
    const again = await stage.as('root');
    await again.unary(AuthService.UserChangePassword, { name: 'tim', password: 'tim-secret-2' });
    await refusedCall(stage.client(), AuthService.Authenticate, {
      name: 'secret-as-a-name',
      password: 'wrong-secret-3',
    });
    const eve = await stage.as('eve');
    await refusedCall(eve, AuthService.UserAdd, { name: 'x', password: 'secret-of-x' });
    const { kvs } = await stage.engine.range({ key: AUDIT_KEY, end: utf8('\0b') });
    const stored = kvs.map(({ value }) => Buffer.from(value).toString()).join('\n');
    expect(stored).toContain('user.password');
    for (const secret of [...Object.values(PASSWORDS), token, 'secret']) {
      expect(stored.includes(secret)).toBe(false);
    }
  });

  test('ordinary requests leave nothing, and neither do the reads of an operator', async () => {
    await stage.guarded();
    const [ann, root] = [await stage.as('ann'), await stage.as('root')];
    const before = await acts();
    await ann.unary(KVService.Put, { key: utf8('a') });
    await ann.unary(KVService.DeleteRange, { key: utf8('a') });
    await ann.unary(LockService.Unlock, {
      key: (await ann.unary(LockService.Lock, { name: utf8('a/x') })).key,
    });
    await root.unary(AuthService.UserList, {});
    await root.unary(MaintenanceService.Alarm, { action: 0 });
    await root.unary(AuthorityService.LiftEra, { era: 0 });
    expect(await acts()).toEqual(before);
  });

  test('every method is an act or one of those that are none', () => {
    const none = METHODS.filter((method) => !mayBeAct(method)).map(({ path }) => path.slice(1));
    expect(none).toEqual([
      ...['Range', 'RangeStream', 'Put', 'DeleteRange', 'Txn'].map((m) => `etcdserverpb.KV/${m}`),
      'etcdserverpb.Watch/Watch',
      ...['LeaseGrant', 'LeaseRevoke', 'LeaseKeepAlive', 'LeaseTimeToLive'].map(
        (method) => `etcdserverpb.Lease/${method}`,
      ),
      'etcdserverpb.Cluster/MemberList',
      'etcdserverpb.Maintenance/Status',
      ...['Authenticate', 'UserGet', 'RoleGet'].map((method) => `etcdserverpb.Auth/${method}`),
      ...['Lock', 'Unlock'].map((method) => `v3lockpb.Lock/${method}`),
      ...['Campaign', 'Proclaim', 'Leader', 'Observe', 'Resign'].map(
        (method) => `v3electionpb.Election/${method}`,
      ),
      ...['Check', 'Watch'].map((method) => `grpc.health.v1.Health/${method}`),
      'holdfastpb.Authority/SealToken',
    ]);
  });
});

describe('one chain', () => {
  test('two servers over one engine, acting at once, write one without a gap', async () => {
    await using second = await serve({ engine: stage.engine, listen: { port: 0 }, name: 'two' });
    const ports = [stage.server.port, second.port];
    const clients = ports.map((port) => new GrpcClient({ port, deadlineMs: 10_000 }));
    const work = Array.from({ length: 24 }, (_, i) => {
      const client = clients[i % 2]!;
      if (i % 3 === 0) return client.unary(AuthService.RoleAdd, { name: `role-${i}` });
      if (i % 3 === 1) return client.unary(AuthorityService.LiftEra, { era: i });
      return client.unary(MaintenanceService.Defragment, {});
    });
    await Promise.all(work);
    for (const client of clients) client.destroy();
    const entries = await log();
    expect(judged(entries)).toMatchObject({ fault: undefined, entries: entries.length });
    expect(new Set(entries.map(({ server }) => server))).toEqual(new Set(['default', 'two']));
    expect(entries.filter(({ act }) => act === 'role.add')).toHaveLength(8);
    for (const act of ['era.lift', 'store.defragment']) {
      const ends = entries.filter((entry) => entry.act === act && entry.outcome === 'done');
      expect(ends).toHaveLength(8);
    }
  });

  test('a lost answer is not written twice', async () => {
    const losing = losingAnswers(stage.engine, 2);
    const told = { clock: new ManualClock(), server: 'a', onFailure: () => {} };
    const chain = new AuditLog({ engine: losing, ...told });
    for (let i = 0; i < 6; i++) await chain.note({ act: 'x.y', subject: `${i}` });
    const entries = await chain.entries(1, 0);
    expect(entries.map(({ subject }) => subject)).toEqual(['0', '1', '2', '3', '4', '5']);
    expect(judged(entries).fault).toBeUndefined();
  });

  test('a store in which entries stand beyond the head is damaged, and is not written over', async () => {
    const told = { clock: new ManualClock(), server: 'a', onFailure: () => {} };
    const chain = new AuditLog({ engine: stage.engine, ...told });
    for (let i = 0; i < 3; i++) await chain.note({ act: 'x.y' });
    await stage.engine.txn({ success: [{ type: 'delete', key: AUDIT_KEY }] });
    const act = chain.around({ act: 'x.z' }, async () => 1);
    await expect(act).rejects.toMatchObject({ code: 'corrupt' });
    expect(await chain.entries(1, 0)).toHaveLength(3);
  });
});

describe('when the log cannot be written', () => {
  test('an act of authority is not done, and says why', async () => {
    await stage.guarded();
    await stage.engine.operator.arm('no-space');
    const root = await stage.as('root');
    const said = await refusedCall(root, AuthorityService.LiftEra, { era: 9 });
    expect(said?.message).toContain('database space exceeded');
    expect((await stage.engine.status()).header.era).toBe(0);
  });

  test('what a full store needs is done all the same, and told when there is room', async () => {
    await stage.guarded();
    await stage.engine.operator.arm('no-space');
    const root = await stage.as('root');
    await root.unary(KVService.Compact, { revision: 2 });
    expect(await acts()).not.toContain('store.compact');
    await root.unary(MaintenanceService.Alarm, { action: 2, alarm: 1 });
    expect((await acts()).slice(-4)).toEqual([
      ...['store.compact', 'store.compact', 'alarm.end', 'alarm.end'],
    ]);
    expect(judged(await log()).fault).toBeUndefined();
  });

  test('a store that does not answer keeps no server from stopping', async () => {
    const engine = await openMemoryEngine();
    await engine.txn({ success: [{ type: 'put', key: utf8('a') }] });
    let stuck = false;
    const range: Engine['range'] = (request, call) =>
      stuck ? new Promise(() => {}) : engine.range(request, call);
    const server = await serve({ engine: changedIn(engine, { range }), listen: { port: 0 } });
    stuck = true;
    await server.close();
    await engine.close();
  });
});

describe('who may see it', () => {
  test('root, through both doors; no tenant, and nobody else', async () => {
    const client = stage.client();
    await client.unary(AuthService.UserAdd, { name: 'acme/root', password: 'pw' });
    await client.unary(AuthService.UserGrantRole, { user: 'acme/root', role: 'root' });
    await stage.guarded();
    const login = { name: 'acme/root', password: 'pw' };
    const { token } = await stage.client().unary(AuthService.Authenticate, login);
    const tenant = stage.client({ metadata: [['token', token]] });
    for (const method of [AuditService.List, AuditService.Head, AuditService.Prune]) {
      expect((await refusedCall(tenant, method, {}))?.message).toContain('permission denied');
    }
    const authorization = await stage.token('root');
    const answer = await stage.json('/v3/audit/list', '{"limit":"2"}', { authorization });
    const { entries } = (await answer.json()) as { entries: { seq: string; act: string }[] };
    expect(entries.map(({ seq, act }) => [seq, act])).toEqual([
      ['1', 'server.start'],
      ['2', 'user.add'],
    ]);
  });

  test('entries that were pruned leave one that holds their hash', async () => {
    await stage.guarded();
    const root = await stage.as('root');
    const all = await log();
    expect(await root.unary(AuditService.Prune, { before: 5 })).toMatchObject({ removed: 4 });
    const { entries } = await root.unary(AuditService.List, {});
    expect(judged(entries as AuditEntry[])).toMatchObject({ fault: undefined, first: 5 });
    expect(entries.at(-1)).toMatchObject({
      ...{ act: 'audit.prune', subject: 'before 5', reason: `sha-256 ${all[3]!.hash}` },
      user: 'root',
    });
    for (const before of [0, 5, 99]) {
      expect((await refusedCall(root, AuditService.Prune, { before }))?.code).toBe(3);
    }
  });
});

function changedIn(engine: Engine, changed: Partial<Engine>): Engine {
  return new Proxy(engine, {
    get(target, name) {
      const value: unknown = Reflect.get(changed, name) ?? Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Every `each`-th transaction happens, but its answer is lost. */
function losingAnswers(engine: Engine, each: number): Engine {
  let count = 0;
  const txn: Engine['txn'] = async (request, options) => {
    const result = await engine.txn(request, options);
    if (++count % each > 0) return result;
    throw new HoldfastError('unavailable', 'the answer was lost', { outcome: 'unknown' });
  };
  return changedIn(engine, { txn });
}
