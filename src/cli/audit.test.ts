/** `holdfast audit` as an operator uses it: beside a server, on a file alone, and after a restore. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { FROM_SOURCE, MAIN } from '../../test/servers/holdfast.ts';
import { openLmdbEngine } from '../engine/lmdb/engine.ts';
import { restore } from '../engine/lmdb/restore.ts';
import { type RunningServer, serve } from '../server/serve.ts';
import { AuthorityService, AuthService } from '../wire/messages/services.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';
import { command } from './audit.ts';

vi.setConfig({ testTimeout: 120_000 });

let directory: string;
let server: RunningServer & { stop(): Promise<void> };
let url: string;

async function serving(name: string): Promise<typeof server> {
  const engine = await openLmdbEngine(join(directory, name));
  const running = await serve({ engine, listen: { port: 0 } });
  const stop = async (): Promise<void> => {
    await running.close();
    await engine.close();
  };
  return Object.assign(running, { stop });
}

async function guard(port: number): Promise<void> {
  const client = new GrpcClient({ port });
  for (const name of ['root', 'ann']) {
    await client.unary(AuthService.UserAdd, { name, password: `${name}-pw` });
  }
  await client.unary(AuthService.UserGrantRole, { user: 'root', role: 'root' });
  await client.unary(AuthService.AuthEnable, {});
  client.destroy();
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-audit-'));
  server = await serving('data');
  await guard(server.port);
  url = `etcd://root:root-pw@127.0.0.1:${server.port}`;
});

afterEach(async () => {
  vi.restoreAllMocks();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

interface Ran {
  readonly code: number;
  readonly out: string;
}

async function audit(...args: string[]): Promise<Ran> {
  const lines: string[] = [];
  const hear = (line: string): void => void lines.push(line);
  vi.spyOn(console, 'log').mockImplementation(hear);
  vi.spyOn(console, 'error').mockImplementation(hear);
  const code = await command.run(args);
  return { code, out: lines.join('\n') };
}

const on = (...args: string[]): Promise<Ran> => audit(...args, '--server', url);
const file = (name: string): string => join(directory, name);
const headIn = ({ out }: Ran): string => /head (\d+:[0-9a-f]{64})/.exec(out)![1]!;

test('list shows who did what, the newest unless it is told from where', async () => {
  const { out } = await on('list');
  expect(out.split('\n').map((line) => line.split('  ').slice(4, 6).join(' '))).toEqual([
    expect.stringContaining('server.start'),
    ...['user.add root', 'user.add ann', 'user.grant-role root root', 'auth.enable done'],
    expect.stringContaining('seal-keys.rotate'),
  ]);
  expect((await on('--from', '2', '--limit', '1')).out).toContain('user.add  root  done');
  expect(JSON.parse((await on('list', '--limit', '1', '--json')).out)).toMatchObject({ seq: 6 });
});

test('verify passes with the head it showed before, and export with verify --file is the same', async () => {
  const head = headIn(await on('verify'));
  const exported = await on('export', file('log'));
  expect(exported).toMatchObject({ code: 0 });
  expect(headIn(exported)).toBe(head);
  const again = await audit('verify', '--file', file('log'), '--expect', head);
  expect(again.code).toBe(0);
  expect(headIn(again)).toBe(head);
  expect(again.out).toMatch(/signed by [\w-]{16} in era 0/);
});

test('an export that was changed ends with 1 and the first bad entry, as a process too', async () => {
  await on('export', file('log'));
  writeFileSync(file('bad'), readFileSync(file('log'), 'utf8').replace('"ann"', '"eve"'));
  const ran = await audit('verify', '--file', file('bad'));
  expect(ran).toEqual({
    code: 1,
    out: 'entry 3: its hash is not that of what it says: it was altered',
  });
  const args = [...FROM_SOURCE, MAIN, 'audit', 'verify', '--file', file('bad')];
  const { status, stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect([status, stderr]).toEqual([1, `${ran.out}\n`]);
});

const python = spawnSync('python3', ['--version']).status === 0;
test.skipIf(!python)('the few lines of Python in the documentation check it as well', async () => {
  await on('export', file('audit.ndjson'));
  const [, code] = /```python\n(.*?)```/s.exec(readFileSync('docs/audit.md', 'utf8'))!;
  const check = (): number | null =>
    spawnSync('python3', ['-c', code!], { cwd: directory, timeout: 30_000 }).status;
  expect(check()).toBe(0);
  const log = readFileSync(file('audit.ndjson'), 'utf8');
  writeFileSync(file('audit.ndjson'), log.replace('"ann"', '"eve"'));
  expect(check()).toBe(1);
});

test('who is not root sees nothing', async () => {
  const ann = `etcd://ann:ann-pw@127.0.0.1:${server.port}`;
  for (const args of [['list'], ['verify'], ['prune', '--before', '2']]) {
    await expect(audit(...args, '--server', ann)).rejects.toMatchObject({
      code: 'permission-denied',
    });
  }
});

test('an export is taken, what it holds is pruned, and the log still verifies', async () => {
  const head = headIn(await on('export', file('log')));
  const seq = Number(head.split(':')[0]);
  expect((await on('prune', '--before', `${seq + 1}`)).out).toContain(`${seq} entries removed`);
  const after = await on('verify', '--expect', head);
  expect(after.code).toBe(0);
  expect(after.out).toContain(`${seq} before them pruned`);
});

test('a store made from a backup tells its new era, and fails the head that the original had since', async () => {
  const root = new GrpcClient({ port: server.port });
  const { token } = await root.unary(AuthService.Authenticate, {
    name: 'root',
    password: 'root-pw',
  });
  root.destroy();
  const operator = new GrpcClient({ port: server.port, metadata: [['token', token]] });
  const before = headIn(await on('verify'));
  await restore(server.backend.engine.operator!.backup(), file('copy'), {});
  await operator.unary(AuthorityService.RotateSealKeys, {});
  operator.destroy();
  const since = headIn(await on('verify'));

  const copy = await serving('copy');
  try {
    url = `etcd://root:root-pw@127.0.0.1:${copy.port}`;
    const verdict = await on('verify', '--expect', before);
    expect(verdict.code).toBe(0);
    expect(verdict.out).toContain(
      'era 1 begins at entry 7: the era was lifted, or this store was made',
    );
    const forked = await on('verify', '--expect', since);
    expect(forked.code).toBe(1);
    expect(forked.out).toContain('entry 7: it is not the one expected');
  } finally {
    await copy.stop();
  }
});
