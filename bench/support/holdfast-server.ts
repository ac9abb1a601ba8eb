/** Our own server as a process of its own, as its users run it: from the built package. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { systemClock } from '../../src/base/system.ts';
import { freePort } from '../../test/servers/daemon.ts';

export interface HoldfastServer {
  readonly port: number;
  readonly pid: number;
  readonly directory: string;
  /** What building the package took before it was started. */
  readonly builtInMs: number;
  stop(): Promise<void>;
}

const READY_MS = 20_000;

export async function startHoldfast(
  directory: string,
  args: readonly string[] = [],
): Promise<HoldfastServer> {
  const from = systemClock.now();
  build();
  const builtInMs = systemClock.now() - from;
  const port = await freePort();
  const child = spawn(
    process.execPath,
    [
      'dist/cli/main.js',
      'serve',
      '--engine',
      `lmdb:${directory}`,
      '--listen',
      `127.0.0.1:${port}`,
      ...args,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  const giveUpAt = performance.now() + READY_MS;
  while (!(await ready(port))) {
    if (child.exitCode !== null || performance.now() > giveUpAt) {
      child.kill('SIGKILL');
      throw new Error(`the server did not start:\n${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { port, pid: child.pid!, directory, builtInMs, stop: () => stopped(child) };
}

function build(): void {
  if (existsSync('dist/cli/main.js') && process.env.HOLDFAST_BUILT === '1') return;
  const built = spawnSync(process.execPath, ['scripts/build.mjs'], { encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`the build failed:\n${built.stdout}${built.stderr}`);
}

async function ready(port: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${port}/readyz`)).ok;
  } catch {
    return false;
  }
}

function stopped(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    if (child.exitCode !== null) resolve();
    child.kill('SIGTERM');
  });
}
