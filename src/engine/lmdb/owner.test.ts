import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { locate } from '../../../scripts/packages.mjs';
import { standStill } from '../../../test/servers/daemon.ts';
import { utf8 } from '../../base/bytes.ts';
import { openStore } from './opening.ts';

/** Opens a store and says what became of it; stays until its input ends. */
const PROGRAM = `
const { openStore } = await import(process.argv[1]);
const path = process.argv[2];
try {
  const opened = await openStore(path);
  await opened.store.commit((t) => t.put(Uint8Array.of(0x6b), new TextEncoder().encode(String(process.pid))));
  process.stdout.write('owner\\n');
  process.stdin.resume();
  process.stdin.on('end', () => opened.close().then(() => process.exit(0)));
} catch (error) {
  process.stdout.write('refused ' + error.code + ' ' + error.message + '\\n');
  process.exit(3);
}
`;
const OPENING = pathToFileURL(join(import.meta.dirname, 'opening.ts')).href;
const ARGUMENTS = [
  '--conditions=holdfast/source',
  '--import',
  'tsx',
  '--input-type=module',
  '--eval',
  PROGRAM,
  OPENING,
];

let directory: string;
let path: string;
let children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-owner-'));
  path = join(directory, 'store');
});

afterEach(async () => {
  await killAll();
  rmSync(directory, { recursive: true, force: true });
});

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

async function killAll(): Promise<void> {
  await Promise.all(children.map(kill));
  children = [];
}

function start(prefix: readonly string[] = []): ChildProcess {
  const [command, ...rest] = [...prefix, process.execPath, ...ARGUMENTS, path];
  const child = spawn(command!, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  return child;
}

async function verdict(child: ChildProcess): Promise<string> {
  let said = '';
  for await (const chunk of child.stdout!) {
    said += chunk;
    if (said.endsWith('\n')) break;
  }
  return said.trim();
}

describe('a directory', () => {
  it('has one owner, and a second process is told which', async () => {
    const opened = await openStore(path);
    const said = await verdict(start());
    expect(said).toMatch(/^refused store-in-use /);
    expect(said).toContain(`process ${process.pid} on host`);
    await expect(openStore(path)).rejects.toMatchObject({
      code: 'store-in-use',
      details: { owner: expect.stringContaining(`process ${process.pid}`) },
    });
    await opened.close();
    expect(readdirSync(path).filter((name) => name.endsWith('.sock'))).toEqual([]);
    const again = await openStore(path);
    await again.close();
  });

  it('is free at once after its owner was killed, and still taken while it is stopped', async () => {
    const owner = start();
    expect(await verdict(owner)).toBe('owner');
    await standStill(owner.pid!);
    await expect(openStore(path)).rejects.toMatchObject({ code: 'store-in-use' });
    await kill(owner);
    const opened = await openStore(path);
    expect(opened.store.committed.get(utf8('k'))).toEqual(utf8(String(owner.pid)));
    await opened.close();
  });

  it('goes to exactly one of several that start at once', async () => {
    for (let round = 0; round < 3; round++) {
      const said = await Promise.all(Array.from({ length: 4 }, () => verdict(start())));
      const owners = said.filter((one) => one === 'owner');
      expect(owners).toHaveLength(1);
      for (const one of said) {
        if (one !== 'owner') expect(one).toMatch(/^refused store-in-use .*is in use by process/);
      }
      await killAll();
    }
  });

  it('is owned also where its path is too long for a socket', async () => {
    path = join(directory, 'd'.repeat(120), 'store');
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const opened = await openStore(path);
    expect(existsSync(join(path, opened.owner.record.socket))).toBe(true);
    await expect(openStore(path)).rejects.toMatchObject({ code: 'store-in-use' });
    await opened.close();
  });

  it('lets an owner that was fenced out write nothing more', async () => {
    const first = await openStore(path);
    await first.store.commit((table) => table.put(utf8('a'), utf8('1')));
    // Its sign of life is lost, though it lives: as when the directory was copied or swept.
    await first.owner.close();
    const said = await verdict(start());
    expect(said).toBe('owner');
    await expect(
      first.store.commit((table) => table.put(utf8('a'), utf8('2'))),
    ).rejects.toMatchObject({ code: 'storage-failed', message: expect.stringContaining('fenced') });
    await first.close();
  });
});

const unshare = locate('unshare');
const mayUnshare = process.getuid?.() === 0 && unshare !== undefined;

// Needs root and util-linux: a network namespace of its own.
describe.skipIf(!mayUnshare)('a directory seen from another network namespace', () => {
  it('has the same one owner', async () => {
    const opened = await openStore(path);
    expect(await verdict(start([unshare!, '--net']))).toMatch(/^refused store-in-use /);
    await opened.close();
    const other = start([unshare!, '--net']);
    expect(await verdict(other)).toBe('owner');
    await expect(openStore(path)).rejects.toMatchObject({ code: 'store-in-use' });
    await kill(other);
    await (await openStore(path)).close();
  });
});
