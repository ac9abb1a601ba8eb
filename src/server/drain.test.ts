/**
 * How a server leaves. Its clock stands still in most of these tests: what ends, ends because the
 * drain began and not because the time to finish was over.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort, installed } from '../../test/servers/daemon.ts';
import { text, utf8 } from '../base/bytes.ts';
import { ManualClock } from '../base/clock.ts';
import { deferred } from '../base/deferred.ts';
import type { Engine } from '../engine/contract.ts';
import { open } from '../engine/etcd/open.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import type { TxnRequest, TxnResult } from '../model/transaction.ts';
import { EngineWrapper } from '../testing/engine-wrapper.ts';
import { Follower } from '../testing/follower.ts';
import { eventually, within } from '../testing/waiting.ts';
import type { Method } from '../wire/messages/descriptor.ts';
import {
  ElectionService,
  HealthService,
  KVService,
  LeaseService,
  LockService,
  WatchService,
} from '../wire/messages/services.ts';
import { attachedStatus } from '../wire/messages/status.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';
import { type RunningServer, serve } from './serve.ts';

const STOPPED = { code: 14, message: 'etcdserver: server stopped' };
const LEASES = [7n, 8n];
const NAME = utf8('line');

let engine: Engine;
const servers: RunningServer[] = [];
const clients: GrpcClient[] = [];

beforeEach(async () => {
  engine = await openMemoryEngine();
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  for (const server of servers.splice(0)) await server.close();
  await engine.close();
});

async function serving(options: Partial<Parameters<typeof serve>[0]> = {}): Promise<RunningServer> {
  const server = await serve({ engine, listen: { port: 0 }, ...options });
  servers.push(server);
  return server;
}

function clientOf(server: RunningServer): GrpcClient {
  const client = new GrpcClient({ port: server.port });
  clients.push(client);
  return client;
}

/** The status a call ends with, and what it was told before. */
async function endOf(
  client: GrpcClient,
  method: Method,
  request: object,
): Promise<{ told: object[]; status: Promise<unknown> }> {
  const told: object[] = [];
  const call = client.stream(method);
  call.send(request);
  const answers = call.responses()[Symbol.asyncIterator]();
  const read = async (): Promise<unknown> => {
    try {
      for (let step = await answers.next(); !step.done; step = await answers.next()) {
        told.push(step.value);
      }
      return 'ended without a status';
    } catch (error) {
      return attachedStatus(error);
    }
  };
  const status = read();
  await eventually(() => told.length > 0, `the first answer of ${method.path}`);
  return { told, status };
}

function statusOfUnary(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => 'answered',
    (error: unknown) => attachedStatus(error),
  );
}

/** Holds transactions until they are let go. */
class HeldEngine extends EngineWrapper {
  readonly held = deferred<void>();
  waiting = 0;
  holding = false;

  override async txn(request: TxnRequest): Promise<TxnResult> {
    if (this.holding) {
      this.waiting++;
      await this.held.promise;
    }
    return this.inner.txn(request);
  }
}

describe('a drain', () => {
  test('ends all that waits at its start, with a status to resume on, and finishes what is short', async () => {
    const behind = new HeldEngine(engine);
    const server = await serving({ engine: behind, clock: new ManualClock() });
    const client = clientOf(server);
    for (const ID of LEASES) await client.unary(LeaseService.LeaseGrant, { ID, TTL: 600 });
    await client.unary(LockService.Lock, { name: NAME, lease: LEASES[0]! });
    const streams = [
      await endOf(client, WatchService.Watch, { createRequest: { key: utf8('a') } }),
      await endOf(client, LeaseService.LeaseKeepAlive, { ID: LEASES[0] }),
      await endOf(client, ElectionService.Observe, { name: NAME }),
    ];
    const health = await endOf(client, HealthService.Watch, { service: '' });
    const second = { name: NAME, lease: LEASES[1]! };
    const waiters = [
      statusOfUnary(client.unary(LockService.Lock, second)),
      statusOfUnary(client.unary(ElectionService.Campaign, { ...second, value: utf8('v') })),
    ];
    await eventually(
      async () => (await engine.range({ key: utf8('line/'), end: utf8('line0') })).count === 2,
      'the waiters to stand in line',
    );
    behind.holding = true;
    const put = client.unary(KVService.Put, { key: utf8('a'), value: utf8('finished') });
    await eventually(() => behind.waiting > 0, 'the write to be under way');

    let gone = false;
    const drained = server.drain(60_000).then(() => {
      gone = true;
    });
    for (const { status } of [...streams, health]) {
      expect(await within(status, 'the end of a stream')).toEqual(STOPPED);
    }
    for (const waiter of waiters) {
      expect(await within(waiter, 'the end of a waiter')).toEqual(STOPPED);
    }
    expect(health.told.map((answer) => (answer as { status: number }).status)).toEqual([1, 2]);
    expect(gone).toBe(false);
    behind.held.resolve();
    expect((await put).header!.revision).toBeGreaterThan(0);
    await within(drained, 'the server to be gone');
    expect(text((await engine.range({ key: utf8('a') })).kvs[0]!.value)).toBe('finished');
  });

  test('leaves a waiter its place: the same lease finds it again on another server', async () => {
    const [first, second] = [await serving(), await serving()];
    const holder = clientOf(second);
    for (const ID of LEASES) await holder.unary(LeaseService.LeaseGrant, { ID, TTL: 600 });
    const held = await holder.unary(LockService.Lock, { name: NAME, lease: LEASES[0]! });
    const waiting = statusOfUnary(
      clientOf(first).unary(LockService.Lock, { name: NAME, lease: LEASES[1]! }),
    );
    const line = { key: utf8('line/'), end: utf8('line0') };
    await eventually(async () => (await engine.range(line)).count === 2, 'two in line');
    const before = (await engine.range(line)).kvs.map((kv) => kv.createRevision);
    await first.drain(60_000);
    expect(await waiting).toEqual(STOPPED);
    const again = holder.unary(LockService.Lock, { name: NAME, lease: LEASES[1]! });
    await holder.unary(LockService.Unlock, { key: held.key });
    const { key } = await within(again, 'the turn of the waiter');
    const { kvs } = await engine.range({ key });
    expect(kvs[0]!.createRevision).toBe(Math.max(...before));
  });

  test('ends a watch of the JSON gateway with the same status, and closes idle connections', async () => {
    const server = await serving({ clock: new ManualClock() });
    const url = `http://127.0.0.1:${server.port}`;
    expect((await (await fetch(`${url}/readyz`)).text()).trim()).toBe('ok');
    const response = await fetch(`${url}/v3/watch`, {
      method: 'POST',
      body: JSON.stringify({ create_request: { key: Buffer.from('a').toString('base64') } }),
    });
    const lines = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    expect((await lines.read()).value).toContain('"created":true');
    await within(server.drain(60_000), 'the server to be gone');
    const rest = await lines.read();
    expect(JSON.parse(rest.value!)).toMatchObject({
      error: { grpc_code: 14, http_code: 503, message: STOPPED.message },
    });
    expect(await lines.read()).toEqual({ done: true, value: undefined });
  });

  test('cuts off a call that does not end in its time, and only then', async () => {
    const clock = new ManualClock();
    const behind = new HeldEngine(engine);
    const server = await serving({ engine: behind, clock });
    behind.holding = true;
    const put = statusOfUnary(clientOf(server).unary(KVService.Put, { key: utf8('a') }));
    await eventually(() => behind.waiting > 0, 'the write to be under way');
    let gone = false;
    const drained = server.drain(5_000).then(() => {
      gone = true;
    });
    for (let passed = 0; passed < 5; passed++) {
      await new Promise((resolve) => setImmediate(resolve));
      clock.advance(900);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(gone).toBe(false);
    clock.advance(2_000);
    clock.advance(2_000);
    await within(drained, 'the server to be gone');
    expect(await put).toBeUndefined();
    behind.held.resolve();
  });
});

/** One writer that never stops; the server before the store is replaced under it. */
async function restartUnderLoad(
  restarts: number,
  watching: (port: number) => Promise<{ told(): readonly number[]; stop(): Promise<void> }>,
): Promise<{ told: readonly number[]; written: readonly number[] }> {
  const port = await freePort();
  let server = await serving({ listen: { port } });
  const watch = await watching(port);
  const written: number[] = [];
  const write = async (): Promise<void> => {
    const value = utf8(String(written.length));
    await engine.txn({ success: [{ type: 'put', key: utf8('a/x'), value }] });
    written.push(written.length);
  };
  /** Each restart meets a watch that stands. */
  const toldMore = async (): Promise<void> => {
    const known = watch.told().length;
    const more = async (): Promise<boolean> => {
      await write();
      return watch.told().length > known;
    };
    await eventually(more, 'the watch to go on', 30_000);
  };
  try {
    for (let restart = 0; restart < restarts; restart++) {
      await toldMore();
      const leaving = server.drain(10_000);
      for (let i = 0; i < 20; i++) await write();
      await leaving;
      for (let i = 0; i < 20; i++) await write();
      server = await serving({ listen: { port } });
    }
    await toldMore();
    const newest = written.length - 1;
    await eventually(() => watch.told().includes(newest), 'the newest event', 30_000);
    return { told: watch.told(), written };
  } finally {
    await watch.stop();
  }
}

describe('a watch across restarts', () => {
  test('through our client, neither loses nor repeats an event', async () => {
    const { told, written } = await restartUnderLoad(5, async (port) => {
      const client = await open(`etcd://127.0.0.1:${port}`);
      const request = { key: utf8('a/'), end: utf8('a0') };
      const follower = new Follower(client.watch(request), request);
      await follower.created();
      return {
        told: () => follower.events.map(({ kv }) => Number(text(kv.value))),
        stop: () => client.close(),
      };
    });
    expect(told).toEqual(written);
  });

  test('control: a client that starts anew instead of resuming loses events', async () => {
    const { told, written } = await restartUnderLoad(2, async (port) => {
      const seen: number[] = [];
      let stopped = false;
      const follow = async (): Promise<void> => {
        const client = new GrpcClient({ port });
        clients.push(client);
        const call = client.stream(WatchService.Watch);
        call.send({ createRequest: { key: utf8('a/'), rangeEnd: utf8('a0') } });
        for await (const { events } of call.responses()) {
          seen.push(...events.map(({ kv }) => Number(text(kv!.value))));
        }
      };
      const forever = async (): Promise<void> => {
        while (!stopped) {
          await follow().catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      };
      void forever();
      await eventually(async () => {
        await engine.txn({ success: [{ type: 'put', key: utf8('a/0'), value: utf8('-1') }] });
        return seen.length > 0;
      }, 'the first event');
      return {
        told: () => seen,
        stop: async () => {
          stopped = true;
        },
      };
    });
    expect(told.filter((value) => value >= 0).length).toBeLessThan(written.length);
  });

  test.skipIf(!installed('etcdctl'))(
    'through etcdctl watch, neither loses nor repeats an event',
    async () => {
      const { told, written } = await restartUnderLoad(3, etcdctlWatch);
      expect(told).toEqual(written);
    },
  );
});

async function etcdctlWatch(
  port: number,
): Promise<{ told(): readonly number[]; stop(): Promise<void> }> {
  const child: ChildProcess = spawn(
    'etcdctl',
    ['--endpoints', `http://127.0.0.1:${port}`, 'watch', '--prefix', 'a/'],
    { env: { ...process.env, ETCDCTL_API: '3' }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let said = '';
  child.stdout!.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const told = (): readonly number[] =>
    [...said.matchAll(/^PUT\na\/x\n(\d+)$/gm)].map(([, value]) => Number(value));
  const first = utf8('a/first');
  await eventually(async () => {
    await engine.txn({ success: [{ type: 'put', key: first, value: utf8('1') }] });
    return said.includes('a/first');
  }, 'etcdctl to watch');
  return {
    told,
    stop: async () => {
      child.kill('SIGKILL');
    },
  };
}
