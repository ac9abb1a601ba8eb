import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../test/servers/daemon.ts';
import * as processes from '../../test/servers/holdfast.ts';
import { text, utf8 } from '../base/bytes.ts';
import { openEngine } from '../client.ts';
import { Follower } from '../testing/follower.ts';
import { KVService, WatchService } from '../wire/messages/services.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';

let directory: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-serve-'));
});

afterEach(() => {
  for (const child of children.splice(0)) {
    child.kill('SIGKILL');
  }
  rmSync(directory, { recursive: true, force: true });
});

function holdfast(...args: readonly string[]): processes.Run {
  const run = processes.holdfast(args);
  children.push(run.child);
  return run;
}

async function serving(...args: readonly string[]): Promise<processes.Serving> {
  const run = await processes.serving(['--engine', `lmdb:${directory}/data`, ...args]);
  children.push(run.child);
  return run;
}

describe('holdfast serve', () => {
  test('drains at SIGTERM: a watch ends with a reason, what was written is there, and the exit is 0', async () => {
    const run = await serving();
    const client = new GrpcClient({ port: run.port });
    await client.unary(KVService.Put, { key: utf8('a'), value: utf8('kept') });
    const watch = client.stream(WatchService.Watch);
    watch.send({ createRequest: { key: utf8('a') } });
    const answers = watch.responses()[Symbol.asyncIterator]();
    await answers.next();
    run.child.kill('SIGTERM');
    const end = await answers.next().then(
      (step) => step,
      (error: { message: string }) => error.message,
    );
    expect(end).toBe('etcdserver: server stopped');
    client.destroy();
    expect(await run.ended).toBe(0);
    expect(run.said()).toContain('"stopped"');
    const again = await serving();
    const reader = new GrpcClient({ port: again.port });
    expect((await reader.unary(KVService.Range, { key: utf8('a') })).count).toBe(1);
    reader.destroy();
  });

  test('a watch goes on across restarts of the process, and neither loses nor repeats an event', async () => {
    const port = await freePort();
    const again = (): Promise<processes.Serving> => serving('--listen', String(port));
    let run = await again();
    const client = await openEngine(`etcd://127.0.0.1:${port}`);
    const follower = new Follower(client.watch({ key: utf8('k') }), { key: utf8('k') }, 60_000);
    await follower.created();
    const written: string[] = [];
    const write = async (): Promise<void> => {
      const value = String(written.length);
      await client.txn({ success: [{ type: 'put', key: utf8('k'), value: utf8(value) }] });
      written.push(value);
    };
    for (let restart = 0; restart < 3; restart++) {
      for (let i = 0; i < 10; i++) await write();
      run.child.kill('SIGTERM');
      expect(await run.ended).toBe(0);
      run = await again();
    }
    await write();
    await follower.take(written.length);
    expect(follower.events.map(({ kv }) => text(kv.value))).toEqual(written);
    await client.close();
  });

  test('names a port that is taken and says what to do', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    const run = holdfast('serve', '--engine', 'memory:', '--listen', String(port));
    expect(await run.ended).toBe(69);
    expect(run.said()).toContain(`127.0.0.1:${port} is taken by another program`);
    other.close();
  });

  test('refuses an address that others can reach, unless it is said by name', async () => {
    const run = holdfast('serve', '--engine', 'memory:', '--listen', '0.0.0.0:0');
    expect(await run.ended).toBe(64);
    expect(run.said()).toContain('--insecure');
  });

  test('bounds the store as it is told to', async () => {
    const run = await serving(
      ...['--request-bytes', '100000', '--transaction-operations', '2'],
      ...['--quota-bytes', '1000000', '--retain-revisions', '3', '--progress-seconds', '1'],
    );
    const client = new GrpcClient({ port: run.port });
    const put = (bytes: number): Promise<unknown> =>
      client.unary(KVService.Put, { key: utf8('a'), value: new Uint8Array(bytes) });
    await expect(put(100_001)).rejects.toThrow('request is too large');
    const success = ['x', 'y', 'z'].map((key) => ({ requestPut: { key: utf8(key) } }));
    await expect(client.unary(KVService.Txn, { success })).rejects.toThrow('too many operations');
    const watch = client.stream(WatchService.Watch);
    watch.send({ createRequest: { key: utf8('quiet'), progressNotify: true } });
    const told = watch.responses()[Symbol.asyncIterator]();
    expect((await told.next()).value.created).toBe(true);
    expect((await told.next()).value.events).toEqual([]);
    for (let i = 0; i < 20; i++) await put(1);
    const old = client.unary(KVService.Range, { key: utf8('a'), revision: 1 });
    await expect(old).rejects.toThrow('has been compacted');
    const filling = async (): Promise<void> => {
      for (let i = 0; i < 100; i++) await put(90_000);
    };
    await expect(filling()).rejects.toThrow('database space exceeded');
    client.destroy();
  });

  test.each([
    [['--engine', 'etcd://127.0.0.1:1', '--quota-bytes', '5'], '--quota-bytes is for the store'],
    [['--engine', 'memory:', '--request-bytes', '0'], '--request-bytes takes a whole number'],
    [['--engine', 'memory:', '--request-bytes', '16777216'], 'lower --request-bytes or'],
    [['--engine', 'memory:', '--retain-revisions', 'all'], '--retain-revisions takes a whole'],
  ])('refuses %j', async (options, words) => {
    const run = holdfast('serve', '--listen', '0', ...options);
    expect(await run.ended).toBe(64);
    expect(run.said()).toContain(words);
  });

  test('refuses a certificate without a key, and an option that it does not know', async () => {
    const [half, unknown] = [
      holdfast('serve', '--engine', 'memory:', '--cert', processes.MAIN),
      holdfast('serve', '--no-such-option'),
    ];
    expect(await half.ended).toBe(64);
    expect(half.said()).toContain('--cert and --key go together');
    expect(await unknown.ended).toBe(64);
  });
});
