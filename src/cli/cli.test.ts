/** The commands as their users run them: processes with arguments, exit codes and signals. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

// Each command is a process that compiles its sources first; a busy machine takes its time.
vi.setConfig({ testTimeout: 180_000 });

const CLI = ['--conditions=holdfast/source', '--import', 'tsx', 'src/cli/main.ts'];
let directory = '';
let children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-cli-'));
});

afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  children = [];
  rmSync(directory, { recursive: true, force: true });
});

interface Ran {
  readonly code: number | null;
  readonly out: string;
}

interface Started {
  readonly child: ChildProcess;
  readonly done: Promise<Ran>;
  /** Resolves with what a pattern found in the output so far or later. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
}

function start(...args: string[]): Started {
  const child = spawn(process.execPath, [...CLI, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let out = '';
  const listeners = new Set<() => void>();
  const hear = (chunk: Buffer): void => {
    out += chunk.toString();
    for (const listener of listeners) listener();
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  const done = new Promise<Ran>((resolve) => child.once('close', (code) => resolve({ code, out })));
  const said = (pattern: RegExp): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = pattern.exec(out);
        if (found) resolve(found);
      };
      listeners.add(look);
      look();
      void done.then(() => reject(new Error(`it ended without saying ${pattern}:\n${out}`)));
    });
  return { child, done, said };
}

const data = (): string => `lmdb:${join(directory, 'data')}`;

describe('holdfast backup, restore and verify', () => {
  test('a running server is saved, restored in a new era, and found sound', async () => {
    const server = start('serve', '--engine', data(), '--listen', '127.0.0.1:0');
    const [, port] = await server.said(/"url":"http:\/\/127\.0\.0\.1:(\d+)"/);
    const put = { key: btoa('k'), value: btoa('v') };
    await fetch(`http://127.0.0.1:${port}/v3/kv/put`, {
      method: 'POST',
      body: JSON.stringify(put),
    });
    const file = join(directory, 'backup');
    const saved = await start('backup', file, '--from', `etcd://127.0.0.1:${port}`).done;
    expect(saved.code).toBe(0);
    const restored = await start('restore', file, join(directory, 'restored')).done;
    expect(restored).toMatchObject({ code: 0, out: expect.stringContaining('era 1') });
    expect((await start('verify', join(directory, 'restored')).done).out).toContain('sound');
    expect((await start('verify', join(directory, 'nothing')).done).code).toBe(69);
  });
});

describe('holdfast guard', () => {
  test('before a service: a stale token is refused, a newer one passes', async () => {
    const service = createServer((_request, response) => response.end('done'));
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
    const upstream = `http://127.0.0.1:${(service.address() as AddressInfo).port}`;
    const marks = join(directory, 'marks');
    const places = ['--upstream', upstream, '--marks', marks, '--metrics', '127.0.0.1:0'];
    const guard = start('guard', 'http', ...places);
    const [, page] = await guard.said(/metrics on (127\.0\.0\.1:\d+)/);
    const [, port] = await guard.said(/guarding on 127\.0\.0\.1:(\d+)/);
    const post = async (token: string): Promise<number> => {
      const headers = { 'holdfast-token': token };
      return (await fetch(`http://127.0.0.1:${port}/x`, { method: 'POST', headers })).status;
    };
    const metrics = async (): Promise<string> => (await fetch(`http://${page}/metrics`)).text();
    expect(await metrics()).toMatch(/^holdfast_guard_rejected_total\{guard="http"\} 0$/m);
    expect([await post('34'), await post('33'), await post('35')]).toEqual([200, 409, 200]);
    expect(await metrics()).toMatch(/^holdfast_guard_rejected_total\{guard="http"\} 1$/m);
    expect(await metrics()).toMatch(/^holdfast_guard_admitted_total\{guard="http"\} 2$/m);
    service.close();
    service.closeAllConnections();
  });

  test('before a device: it listens, and a device that is not there is said so', async () => {
    const device = createTcpServer();
    await new Promise<void>((resolve) => device.listen(0, '127.0.0.1', resolve));
    const place = `tcp:127.0.0.1:${(device.address() as AddressInfo).port}`;
    const guard = start('guard', 'device', '--device', place, '--marks', join(directory, 'm'));
    const [, port] = await guard.said(/guarding on 127\.0\.0\.1:(\d+)/);
    await new Promise<void>((resolve) => {
      const socket = connect(Number(port), '127.0.0.1', () => {
        socket.destroy();
        resolve();
      });
    });
    const missing = await start(
      'guard',
      'device',
      '--device',
      '/dev/nothing',
      '--marks',
      join(directory, 'm2'),
    ).done;
    expect(missing).toMatchObject({
      code: 69,
      out: expect.stringContaining('cannot open the device'),
    });
    guard.child.kill('SIGTERM');
    device.close();
  });
});

test('an unknown command is refused, help lists the commands', async () => {
  expect((await start('bogus').done).code).toBe(64);
  expect((await start('--help').done).out).toContain('holdfast serve');
});
