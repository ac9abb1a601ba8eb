/** What signals and a log that nobody reads do to a server: its process, not its parts. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort, installed } from '../../test/servers/daemon.ts';
import {
  FROM_SOURCE,
  holdfast,
  type Serving,
  saying,
  serving,
} from '../../test/servers/holdfast.ts';
import { utf8 } from '../base/bytes.ts';
import { eventually, within } from '../testing/waiting.ts';
import { AuthService, KVService } from '../wire/messages/services.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';

let directory: string;
const children: ChildProcess[] = [];
const clients: GrpcClient[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-signals-'));
});

afterEach(() => {
  for (const client of clients.splice(0)) client.destroy();
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

async function started(...args: readonly string[]): Promise<Serving> {
  const run = await serving(['--engine', 'memory:', ...args]);
  children.push(run.child);
  return run;
}

function clientOf(port: number): GrpcClient {
  const client = new GrpcClient({ port, deadlineMs: 30_000 });
  clients.push(client);
  return client;
}

/** A certificate for a name, and its key. */
function certificate(name: string): { cert: string; key: string } {
  const [cert, key] = [join(directory, `${name}.pem`), join(directory, `${name}.key`)];
  const made = spawnSync('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-days', '2', '-subj', `/CN=${name}`, '-out', cert, '-keyout', key],
  ]);
  if (made.status !== 0) throw new Error(made.stderr.toString());
  return { cert, key };
}

/** The name on the certificate that a new connection is shown. */
async function shown(port: number): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return String(CN);
}

describe('signals', () => {
  test('a second signal ends the process at once, whatever is still under way', async () => {
    const run = await started('--grace', '600');
    const session = connectHttp2(`http://127.0.0.1:${run.port}`);
    session.on('error', () => {});
    // A request whose body never ends holds up the drain.
    const request = session.request({
      ':method': 'POST',
      ':path': KVService.Put.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    request.on('error', () => {});
    request.write(Buffer.from([0, 0, 0, 0, 9]));
    await clientOf(run.port).unary(KVService.Put, { key: utf8('a') });
    run.child.kill('SIGTERM');
    await saying(run, /"draining"/);
    expect(run.child.exitCode).toBeNull();
    run.child.kill('SIGINT');
    expect(await run.ended).toBe(1);
    expect(run.said()).not.toContain('"stopped"');
    session.destroy();
  });

  test.skipIf(!installed('openssl'))(
    'SIGHUP takes new certificates; one that cannot be read changes nothing',
    async () => {
      const [old, fresh] = [certificate('old.example'), certificate('new.example')];
      const run = await started('--cert', old.cert, '--key', old.key);
      expect(await shown(run.port)).toBe('old.example');
      writeFileSync(old.cert, 'no certificate');
      run.child.kill('SIGHUP');
      await saying(run, /"certificates not reloaded"/);
      expect(await shown(run.port)).toBe('old.example');
      writeFileSync(old.cert, readFileSync(fresh.cert));
      writeFileSync(old.key, readFileSync(fresh.key));
      run.child.kill('SIGHUP');
      await saying(run, /"certificates reloaded"/);
      expect(await shown(run.port)).toBe('new.example');
    },
  );

  test('SIGHUP takes new limits; a file that makes no sense changes nothing', async () => {
    const limits = join(directory, 'limits.json');
    writeFileSync(limits, '{"tenant-keys": 2}');
    const run = await started('--limits', limits);
    const root = clientOf(run.port);
    for (const name of ['root', 'acme/ann']) {
      await root.unary(AuthService.UserAdd, { name, password: 'pw' });
      await root.unary(AuthService.UserGrantRole, { user: name, role: 'root' });
    }
    await root.unary(AuthService.AuthEnable, {});
    const { token } = await root.unary(AuthService.Authenticate, {
      name: 'acme/ann',
      password: 'pw',
    });
    const ann = clientOf(run.port);
    ann.setMetadata([['token', token]]);
    const puts = async (key: string): Promise<string> =>
      ann.unary(KVService.Put, { key: utf8(key) }).then(
        () => 'done',
        (error: { code: string }) => error.code,
      );
    expect([await puts('a'), await puts('b'), await puts('c')]).toEqual([
      'done',
      'done',
      'resource-exhausted',
    ]);
    writeFileSync(limits, '{"tenant-keys": "many"}');
    run.child.kill('SIGHUP');
    await saying(run, /"limits not reloaded"/);
    expect(await puts('c')).toBe('resource-exhausted');
    writeFileSync(limits, '{"tenant-keys": 3}');
    run.child.kill('SIGHUP');
    await saying(run, /"limits reloaded"/);
    expect([await puts('c'), await puts('d')]).toEqual(['done', 'resource-exhausted']);
  });
});

test('SIGHUP takes another log level; a word that is none changes nothing', async () => {
  const level = join(directory, 'level');
  writeFileSync(level, 'warn\n');
  const port = await freePort();
  const options = ['--listen', String(port), '--log-level-file', level];
  const run = holdfast(['serve', '--engine', 'memory:', ...options]);
  children.push(run.child);
  await eventually(
    () =>
      fetch(`http://127.0.0.1:${port}/livez`).then(
        ({ ok }) => ok,
        () => false,
      ),
    'the server to answer',
    30_000,
  );
  expect(run.said()).toBe('');
  writeFileSync(level, 'loud');
  run.child.kill('SIGHUP');
  await saying(run, /"level":50,.*"msg":"log level not reloaded"/);
  expect(run.said()).not.toContain('a connection');
  writeFileSync(level, 'debug');
  run.child.kill('SIGHUP');
  await saying(run, /"threshold":"debug","msg":"log level reloaded"/);
  await clientOf(port).unary(KVService.Put, { key: utf8('a') });
  await saying(run, /"level":20,.*"msg":"a connection"/);
});

/** A pipe to a process that has been stopped: whoever writes to it too much waits forever. */
async function stoppedReader(): Promise<{ log: number; reader: ChildProcess; read(): string }> {
  const pipe = join(directory, 'log');
  if (spawnSync('mkfifo', [pipe]).status !== 0) throw new Error('no pipe could be made');
  const reader = spawn('cat', [pipe], { stdio: ['ignore', 'pipe', 'ignore'] });
  children.push(reader);
  let read = '';
  reader.stdout!.on('data', (chunk: Buffer) => {
    read += chunk.toString();
  });
  // Opened for both, which waits for nobody.
  const log = openSync(pipe, 'r+');
  reader.kill('SIGSTOP');
  return { log, reader, read: () => read };
}

/** More lines than a pipe of 64 KiB holds. */
const LINES = 900;

describe('a log that nobody reads', () => {
  test('holds up no request, and is told on when it is read again', async () => {
    const { log, reader, read } = await stoppedReader();
    const limits = join(directory, 'limits.json');
    writeFileSync(limits, '{}');
    const port = await freePort();
    const listen = ['--listen', String(port), '--limits', limits];
    const run = holdfast(['serve', '--engine', 'memory:', ...listen], log);
    children.push(run.child);
    const client = clientOf(port);
    await eventually(
      () =>
        client.unary(KVService.Put, { key: utf8('a') }).then(
          () => true,
          () => false,
        ),
      'the server to answer',
      30_000,
    );
    // Each signal is a line of 130 bytes; the request behind it shows that the server has taken it.
    writeFileSync(limits, 'x'.repeat(64));
    for (let line = 0; line < LINES; line++) {
      run.child.kill('SIGHUP');
      await client.unary(KVService.Put, { key: utf8('a') });
    }
    reader.kill('SIGCONT');
    await eventually(() => read().split('not reloaded').length > 600, 'the log to be read');
    run.child.kill('SIGTERM');
    client.destroy();
    expect(await run.ended).toBe(0);
    closeSync(log);
    await once(reader, 'close');
    expect(read()).toContain('"stopped"');
  });

  test('does not keep the server from ending', async () => {
    const { log, reader } = await stoppedReader();
    const limits = join(directory, 'limits.json');
    writeFileSync(limits, '{}');
    const port = await freePort();
    const listen = ['--listen', String(port), '--limits', limits];
    const run = holdfast(['serve', '--engine', 'memory:', ...listen], log);
    children.push(run.child);
    const client = clientOf(port);
    await eventually(
      () =>
        client.unary(KVService.Put, { key: utf8('a') }).then(
          () => true,
          () => false,
        ),
      'the server to answer',
      30_000,
    );
    writeFileSync(limits, 'x'.repeat(64));
    for (let line = 0; line < LINES; line++) {
      run.child.kill('SIGHUP');
      await client.unary(KVService.Put, { key: utf8('a') });
    }
    client.destroy();
    run.child.kill('SIGTERM');
    expect(await within(run.ended, 'the server to end', 10_000)).toBe(0);
    reader.kill('SIGKILL');
    closeSync(log);
  });

  test('control: a program that writes to it as usual stands still', async () => {
    const { log, reader } = await stoppedReader();
    const program = `
      for (let line = 0; line < ${LINES}; line++) process.stderr.write('x'.repeat(129) + '\\n');
    `;
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'ignore', log] });
    children.push(child);
    const ended = once(child, 'close');
    const early = await Promise.race([
      ended.then(() => 'ended'),
      new Promise((resolve) => setTimeout(resolve, 1_500, 'stands still')),
    ]);
    expect(early).toBe('stands still');
    reader.kill('SIGCONT');
    await ended;
    closeSync(log);
  });

  test('that is full for good loses lines, and says how many', async () => {
    const { log, reader, read } = await stoppedReader();
    const program = `
      const { logger } = await import('${new URL('./log.ts', import.meta.url).href}');
      const { log } = logger();
      for (let line = 0; line < 8_000; line++) log('info', 'filler ' + 'x'.repeat(90));
      const told = setInterval(() => log('warn', 'after'), 50);
      process.stdout.write('written');
      process.stdin.once('data', () => { clearInterval(told); process.exit(0); });
    `;
    const args = [...FROM_SOURCE, '--input-type=module', '-e', program];
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', log] });
    children.push(child);
    await once(child.stdout!, 'data');
    reader.kill('SIGCONT');
    await eventually(() => /"droppedBefore":\d+,"msg":"after"/.test(read()), 'the count');
    const [, dropped] = /"droppedBefore":(\d+)/.exec(read())!;
    const lines = read().split('filler').length - 1;
    expect(lines).toBeLessThan(8_000);
    expect(Number(dropped)).toBeGreaterThanOrEqual(8_000 - lines);
    child.stdin!.write('stop');
    await once(child, 'close');
    closeSync(log);
  });
});
