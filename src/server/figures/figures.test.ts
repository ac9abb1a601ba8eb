import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import { connect } from '../../client.ts';
import type { Engine } from '../../engine/contract.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import { EngineWrapper } from '../../testing/engine-wrapper.ts';
import { eventually } from '../../testing/waiting.ts';
import { KVService, LockService, WatchService } from '../../wire/messages/services.ts';
import { GrpcClient } from '../../wire/net/grpc-client.ts';
import { type RunningServer, type ServeOptions, serve } from '../serve.ts';

let engine: Engine;
const closing: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  engine = await openMemoryEngine();
  closing.push(() => engine.close());
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function serving(options: Partial<ServeOptions> = {}): Promise<RunningServer> {
  const server = await serve({ engine, listen: { port: 0 }, ...options });
  closing.push(() => server.close());
  return server;
}

function clientOf(server: RunningServer): GrpcClient {
  const client = new GrpcClient({ port: server.port });
  closing.push(async () => client.destroy());
  return client;
}

async function read(server: RunningServer): Promise<string> {
  return await (await fetch(`${server.url}/metrics`)).text();
}

/** The value of one series; undefined: it is not there. */
async function value(server: RunningServer, series: string): Promise<number | undefined> {
  const line = (await read(server)).split('\n').find((text) => text.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

describe('calls', () => {
  const RANGE = '{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Range"';

  test('are counted by method and code, as etcd counts them', async () => {
    const server = await serving();
    const client = clientOf(server);
    await client.unary(KVService.Range, { key: utf8('a') });
    await client.unary(KVService.Range, { key: utf8('a') });
    await client.unary(KVService.Range, { key: utf8('') }).catch(() => {});
    expect(await value(server, `grpc_server_handled_total${RANGE},grpc_code="OK"}`)).toBe(2);
    const refused = `grpc_server_handled_total${RANGE},grpc_code="InvalidArgument"}`;
    expect(await value(server, refused)).toBe(1);
    expect(await value(server, `grpc_server_started_total${RANGE}}`)).toBe(3);
    const ours = 'holdfast_calls_total{method="/etcdserverpb.KV/Range",code="0"}';
    expect(await value(server, ours)).toBe(2);
    const took = 'holdfast_call_seconds_count{method="/etcdserverpb.KV/Range"}';
    expect(await value(server, took)).toBe(3);
  });

  test('that stream are open between their start and their end', async () => {
    const server = await serving();
    const client = clientOf(server);
    const labels = '{grpc_type="bidi_stream",grpc_service="etcdserverpb.Watch",grpc_method="Watch"';
    // The server itself watches its users and roles.
    await eventually(async () => (await value(server, 'holdfast_watchers')) === 1, 'its own watch');
    const watch = client.stream(WatchService.Watch);
    watch.send({ createRequest: { key: utf8('a') } });
    // An iteration that is left would end the call.
    await watch.responses()[Symbol.asyncIterator]().next();
    expect(await value(server, `grpc_server_started_total${labels}}`)).toBe(1);
    expect(await read(server)).not.toContain(`grpc_server_handled_total${labels}`);
    expect(await value(server, 'holdfast_watchers')).toBe(2);
    expect(await value(server, 'etcd_debugging_mvcc_watcher_total')).toBe(1);
    client.destroy();
    await eventually(
      async () => (await read(server)).includes(`grpc_server_handled_total${labels}`),
      'the end of the stream',
    );
    expect(await value(server, 'holdfast_watchers')).toBe(1);
  });

  test('bring bytes in and out', async () => {
    const server = await serving();
    const client = clientOf(server);
    const received = 'etcd_network_client_grpc_received_bytes_total';
    await client.unary(KVService.Put, { key: utf8('a'), value: new Uint8Array(10_000) });
    const open = await value(server, received);
    expect(open).toBeGreaterThan(10_000);
    client.destroy();
    await eventually(async () => (await value(server, 'holdfast_connections')) === 1, 'its end');
    expect(await value(server, received)).toBeGreaterThanOrEqual(open!);
    expect(await value(server, 'etcd_network_client_grpc_sent_bytes_total')).toBeGreaterThan(0);
  });
});

describe('locks', () => {
  test('of the Lock service: waiters, results, waits and holds', async () => {
    const server = await serving();
    const client = clientOf(server);
    const name = utf8('orders-4711');
    await engine.grantLease({ id: 7n, ttlMs: 60_000 });
    await engine.grantLease({ id: 8n, ttlMs: 60_000 });
    const { key } = await client.unary(LockService.Lock, { name, lease: 7n });
    const waiting = client.unary(LockService.Lock, { name, lease: 8n });
    await eventually(async () => (await value(server, 'holdfast_waiters')) === 1, 'a waiter');
    await new Promise((resolve) => setTimeout(resolve, 60));
    await client.unary(LockService.Unlock, { key });
    await waiting;
    expect(await value(server, 'holdfast_waiters')).toBe(0);
    expect(await value(server, 'holdfast_acquire_total{result="acquired"}')).toBe(2);
    expect(await value(server, 'holdfast_acquire_wait_seconds_sum')).toBeGreaterThan(0.05);
    expect(await value(server, 'holdfast_hold_seconds_count')).toBe(1);
    expect(await value(server, 'holdfast_hold_seconds_sum')).toBeGreaterThan(0.05);
  });

  test('that fail are counted under their reason', async () => {
    const server = await serving();
    const client = clientOf(server);
    await client.unary(LockService.Lock, { name: utf8('a'), lease: 99n }).catch(() => {});
    expect(await value(server, 'holdfast_acquire_total{result="lease-not-found"}')).toBe(1);
    expect(await value(server, 'holdfast_waiters')).toBe(0);
  });

  test('are never named in a metric, nor are keys', async () => {
    const server = await serving();
    const client = clientOf(server);
    const name = utf8('a-name-like-no-other');
    await engine.grantLease({ id: 7n, ttlMs: 60_000 });
    await client.unary(LockService.Lock, { name, lease: 7n });
    await client.unary(KVService.Put, { key: utf8('a-key-like-no-other') });
    const hf = await connect(`etcd://127.0.0.1:${server.port}`);
    await hf.lock('a-name-like-no-other-either').run(() => undefined);
    await hf.close();
    expect(await read(server)).not.toContain('like-no-other');
  });
});

describe('leases', () => {
  test('live, expire, and are renewed late', async () => {
    const clock = new ManualClock();
    const store = await openMemoryEngine({ clock });
    closing.push(() => store.close());
    const server = await serving({ engine: store });
    await store.grantLease({ id: 7n, ttlMs: 9_000 });
    await store.grantLease({ id: 8n, ttlMs: 60_000 });
    expect(await value(server, 'holdfast_leases')).toBe(2);
    await clock.advance(3_000);
    await store.keepAlive(7n);
    expect(await value(server, 'holdfast_renew_late_total')).toBe(0);
    await clock.advance(7_000);
    await store.keepAlive(7n);
    expect(await value(server, 'holdfast_renew_late_total')).toBe(1);
    expect(await value(server, 'holdfast_lease_expired_total')).toBe(0);
    await clock.advance(9_001);
    await eventually(async () => {
      await clock.advance(1);
      return (await value(server, 'holdfast_leases')) === 1;
    }, 'the expiry');
    expect(await value(server, 'holdfast_lease_expired_total')).toBe(1);
    await store.revokeLease(8n);
    expect(await value(server, 'holdfast_leases')).toBe(0);
    expect(await value(server, 'holdfast_lease_expired_total')).toBe(1);
  });
});

describe('the store', () => {
  test('tells its revision, its size and each commit', async () => {
    const server = await serving();
    const client = clientOf(server);
    for (const key of ['a', 'b', 'c']) await client.unary(KVService.Put, { key: utf8(key) });
    const { header } = await engine.status();
    expect(await value(server, 'holdfast_revision')).toBe(header.revision);
    expect(await value(server, 'etcd_server_proposals_committed_total')).toBe(header.revision);
    expect(await value(server, 'etcd_mvcc_db_total_size_in_bytes')).toBeGreaterThan(0);
    const commits = await value(server, 'holdfast_store_commit_seconds_count');
    expect(commits).toBeGreaterThanOrEqual(3);
    const etcds = 'etcd_disk_backend_commit_duration_seconds_count';
    expect(await value(server, etcds)).toBe(commits);
  });

  test('tells by how much the slowest watch is behind', async () => {
    const server = await serving();
    for (let i = 0; i < 5; i++) await engine.txn({ success: [{ type: 'put', key: utf8('a') }] });
    expect(await value(server, 'holdfast_watch_lag_revisions')).toBe(0);
    const { header } = await engine.status();
    const watch = engine.watch({ key: utf8('a'), startRevision: header.revision - 3 });
    expect(await value(server, 'holdfast_watch_lag_revisions')).toBe(4);
    for await (const { events } of watch) if (events.length > 0) break;
    expect(await value(server, 'holdfast_watch_lag_revisions')).toBe(0);
  });

  test('that is elsewhere and cannot be reached has no leader, and what is not known is left out', async () => {
    const server = await serving();
    let reachable = true;
    let leader = 1n;
    class Far extends EngineWrapper {
      override async status(): ReturnType<Engine['status']> {
        if (!reachable) throw new Error('gone');
        return { ...(await super.status()), leader };
      }
    }
    const gateway = await serving({ engine: new Far(engine) });
    const led = 'etcd_server_has_leader';
    const changes = 'etcd_server_leader_changes_seen_total';
    expect([await value(server, led), await value(gateway, led)]).toEqual([1, 1]);
    expect(await value(gateway, 'holdfast_leases')).toBeUndefined();
    reachable = false;
    expect(await value(gateway, led)).toBe(0);
    expect(await value(gateway, 'etcd_mvcc_db_total_size_in_bytes')).toBeUndefined();
    reachable = true;
    leader = 2n;
    expect([await value(gateway, led), await value(gateway, changes)]).toEqual([1, 1]);
    expect(await value(server, changes)).toBe(0);
  });

  test('raises alarms that are seen', async () => {
    const server = await serving();
    expect(await value(server, 'holdfast_alarm{alarm="no-space"}')).toBe(0);
    await engine.operator!.arm('no-space');
    expect(await value(server, 'holdfast_alarm{alarm="no-space"}')).toBe(1);
  });
});

describe('the process', () => {
  test('tells memory, processor and descriptors', async () => {
    const server = await serving();
    const resident = await value(server, 'process_resident_memory_bytes');
    expect(resident).toBeGreaterThan(10 * 2 ** 20);
    expect(await value(server, 'process_cpu_seconds_total')).toBeGreaterThan(0);
    const started = (await value(server, 'process_start_time_seconds'))!;
    expect(Math.abs(started - Date.now() / 1_000)).toBeLessThan(60);
    if (process.platform === 'linux') {
      expect(await value(server, 'process_open_fds')).toBeGreaterThan(3);
    }
  });

  test('tells how long the event loop stood still', async () => {
    const server = await serving();
    const longest = 'holdfast_eventloop_lag_seconds{quantile="1"}';
    await new Promise((resolve) => setTimeout(resolve, 60));
    const until = performance.now() + 300;
    while (performance.now() < until);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(await value(server, longest)).toBeGreaterThan(0.2);
  });
});
