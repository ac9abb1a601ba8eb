import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../base/bytes.ts';
import { KVService, WatchService } from '../wire/messages/services.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const MAIN = join(ROOT, 'src/cli/main.ts');

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

interface Run {
  readonly child: ChildProcess;
  said(): string;
  readonly ended: Promise<number | null>;
}

function holdfast(...args: readonly string[]): Run {
  const flags = ['--conditions=holdfast/source', '--import', 'tsx', MAIN, ...args];
  const child = spawn(process.execPath, flags, { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(child);
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return { child, said: () => said, ended };
}

/** A server that runs, and its port. */
async function serving(...args: readonly string[]): Promise<Run & { readonly port: number }> {
  const run = holdfast('serve', '--engine', `lmdb:${directory}/data`, '--listen', '0', ...args);
  for (;;) {
    const port = /"url":"http:\/\/127\.0\.0\.1:(\d+)"/.exec(run.said())?.[1];
    if (port) return { ...run, port: Number(port) };
    if (run.child.exitCode !== null) throw new Error(run.said());
    await Promise.race([once(run.child.stderr!, 'data'), run.ended]);
  }
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

  test('goes on while nobody reads its log', async () => {
    const run = await serving();
    run.child.stderr!.pause();
    const client = new GrpcClient({ port: run.port, deadlineMs: 20_000 });
    for (let at = 0; at < 200; at++) await client.unary(KVService.Put, { key: utf8(`k${at}`) });
    client.destroy();
    run.child.stderr!.resume();
    run.child.kill('SIGTERM');
    expect(await run.ended).toBe(0);
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

  test('refuses a certificate without a key, and an option that it does not know', async () => {
    const [half, unknown] = [
      holdfast('serve', '--engine', 'memory:', '--cert', MAIN),
      holdfast('serve', '--no-such-option'),
    ];
    expect(await half.ended).toBe(64);
    expect(half.said()).toContain('--cert and --key go together');
    expect(await unknown.ended).toBe(64);
  });
});
