/** Sealed tokens as their users run them: a server, a guard and an operator, each a process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import * as processes from '../../test/servers/holdfast.ts';
import { connect } from '../client.ts';
import type { SealedToken } from '../model/seal.ts';

// Each command is a process that compiles its sources first; a busy machine takes its time.
vi.setConfig({ testTimeout: 180_000 });

let directory: string;
let service: Server;
let children: ChildProcess[];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-seals-'));
  children = [];
  service = createServer((_request, response) => response.end('done'));
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
});

afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  service.close();
  service.closeAllConnections();
  rmSync(directory, { recursive: true, force: true });
});

async function server(): Promise<processes.Serving> {
  const run = await processes.serving(['--engine', `lmdb:${join(directory, 'data')}`]);
  children.push(run.child);
  return run;
}

interface Started {
  readonly done: Promise<{ readonly code: number | null; readonly out: string }>;
  /** Resolves with what the pattern found in what it said. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
}

function start(...args: string[]): Started {
  const command = [...processes.FROM_SOURCE, processes.MAIN, ...args];
  const child = spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let out = '';
  const hear = (chunk: Buffer): void => {
    out += chunk.toString();
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  const done = once(child, 'close').then(([code]) => ({ code: code as number | null, out }));
  return {
    done,
    async said(pattern) {
      for (;;) {
        const found = pattern.exec(out);
        if (found) return found;
        if (child.exitCode !== null) throw new Error(out);
        await Promise.race([once(child.stdout, 'data'), done]);
      }
    },
  };
}

const ran = (...args: string[]): Started['done'] => start(...args).done;

let guards = 0;

/** The answer of a service behind a guard that wants seals under the keys named. */
async function guarded(keys: string): Promise<(token: string) => Promise<number>> {
  const upstream = `http://127.0.0.1:${(service.address() as AddressInfo).port}`;
  const marks = join(directory, `marks-${guards++}`);
  const places = ['--upstream', upstream, '--marks', marks, '--resource', 'orders/42'];
  const guard = start('guard', 'http', ...places, '--seal-keys', keys);
  const [, port] = await guard.said(/guarding on 127\.0\.0\.1:(\d+)/);
  return async (token) => {
    const headers = { 'holdfast-token': token };
    return (await fetch(`http://127.0.0.1:${port}/x`, { method: 'POST', headers })).status;
  };
}

async function sealedBy(port: number): Promise<SealedToken> {
  await using hf = await connect(`etcd://127.0.0.1:${port}`, { ttl: '60s' });
  return await hf.lock('orders/42').run((grant) => grant.sealedToken());
}

describe('holdfast guard --seal-keys', () => {
  test('lets in what the server sealed and nothing that was invented, with a saved copy too', async () => {
    const { port } = await server();
    const sealed = await sealedBy(port);
    const saved = join(directory, 'keys.json');
    const url = `http://127.0.0.1:${port}`;
    expect(await ran('seal-keys', '--from', url, '--save', saved)).toMatchObject({ code: 0 });
    expect(readFileSync(saved, 'utf8')).not.toContain('"d"');
    for (const keys of [url, saved]) {
      const post = await guarded(keys);
      expect([await post(String(2n ** 62n)), await post(String(sealed.token))]).toEqual([403, 403]);
      expect(await post(sealed.seal)).toBe(200);
    }
  });

  test('is told what is wrong with its arguments', async () => {
    const upstream = ['--upstream', 'http://127.0.0.1:1', '--marks', join(directory, 'm')];
    const refused = async (...args: string[]): Promise<string> =>
      (await ran('guard', 'http', ...upstream, ...args)).out;
    expect(await refused('--seal-keys', 'http://10.0.0.1:2379')).toContain('could be anybody');
    expect(await refused('--seal-keys', join(directory, 'nothing'))).toContain('cannot read');
    expect(await refused('--seal-keys', 'http://127.0.0.1:1')).toContain("authority's keys");
    expect(await refused('--skew', 'x')).toContain('--skew');
  });
});

describe('the keys of a server', () => {
  test('outlive it, rotate on demand, and can be thrown away', async () => {
    const first = await server();
    const before = await sealedBy(first.port);
    first.child.kill('SIGKILL');
    await first.ended;
    const { port } = await server();
    const [url, at] = [`http://127.0.0.1:${port}`, `etcd://127.0.0.1:${port}`];
    const keyOf = ({ seal }: SealedToken): string => seal.split('.')[1]!;
    expect(keyOf(await sealedBy(port))).toBe(keyOf(before));
    const rotated = await ran('seal-keys', 'rotate', '--server', at);
    expect(rotated).toMatchObject({ code: 0, out: expect.stringContaining('signs from now on') });
    const after = await sealedBy(port);
    expect(rotated.out).toContain(keyOf(after));
    expect(keyOf(after)).not.toBe(keyOf(before));
    expect((await ran('seal-keys', '--from', url)).out).toContain(keyOf(before));
    await ran('seal-keys', 'rotate', '--server', at, '--discard');
    expect((await ran('seal-keys', '--from', url)).out).not.toContain(keyOf(after));
  });
});
