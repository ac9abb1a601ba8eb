/**
 * Real servers for tests and experiments: started on a free loopback port in a directory of their
 * own, ready when they answer, ended by process id, and gone with everything they wrote.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { locate } from '../../scripts/packages.mjs';

/** For commands that are waited for without the loop, where no test's own limit reaches. */
export const COMMAND_MS_MAX = 60_000;
const READY_MS_MAX = 30_000;
const STOP_MS_MAX = 5_000;
const SIGNAL_MS_MAX = 200;
const OUTPUT_KEPT = 20_000;

export interface Daemon extends AsyncDisposable {
  readonly pid: number;
  readonly port: number;
  readonly directory: string;
  /** What it printed lately; for messages. */
  output(): string;
  signal(name: NodeJS.Signals): void;
  /** Stops it; resolves when it surely stands still. */
  standStill(): Promise<void>;
  /** Ends the process at once and keeps its files. */
  kill(): Promise<void>;
  /** Ends the process and removes its files. Idempotent. */
  stop(): Promise<void>;
}

export interface User {
  readonly uid: number;
  readonly gid: number;
}

export interface DaemonOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly port: number;
  readonly directory: string;
  readonly user?: User | undefined;
  readonly env?: Readonly<Record<string, string>>;
  /** Resolves to true once it serves; asked until then. Absent: the port accepts. */
  readonly ready?: () => Promise<boolean>;
  /** The signal for an orderly end. */
  readonly stopSignal?: NodeJS.Signals;
}

/** True when every command is installed; for `describe.skipIf(!installed(…))`. */
export function installed(...commands: readonly string[]): boolean {
  return commands.every((command) => locate(command) !== undefined);
}

/** Daemons that refuse to run as root run as this account instead. */
export function account(name: string): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string): number =>
    Number(spawnSync('id', [flag, name], { encoding: 'utf8' }).stdout.trim());
  return { uid: id('-u'), gid: id('-g') };
}

export function freshDirectory(name: string, owner?: User): string {
  const directory = mkdtempSync(join(tmpdir(), `holdfast-${name}-`));
  if (owner) chownSync(directory, owner.uid, owner.gid);
  return directory;
}

export function subdirectory(parent: string, name: string, owner?: User): string {
  const directory = join(parent, name);
  mkdirSync(directory, { recursive: true });
  if (owner) chownSync(directory, owner.uid, owner.gid);
  return directory;
}

/** The kernel gives ports from here on to outgoing connections, on Linux unless it is told otherwise. */
const EPHEMERAL_FROM = 32_768;
const FREE_FROM = 10_000;
/** Processes that start servers at the same time hardly ever share one. */
const SHARES = 128;
const SHARE = Math.floor((EPHEMERAL_FROM - FREE_FROM) / SHARES);
let nextPort = randomInt(SHARE);

/**
 * A port nobody listens on now, and that neither an outgoing connection nor another test is given
 * between now and the start of who asked for it.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < SHARE; attempt++) {
    const port = FREE_FROM + (process.pid % SHARES) * SHARE + nextPort;
    nextPort = (nextPort + 1) % SHARE;
    const server = createServer();
    try {
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') continue;
      throw error;
    }
    server.close();
    await once(server, 'close');
    return port;
  }
  throw new Error(`all ${SHARE} ports of this process are in use`);
}

export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { command, args, port, directory, user, env } = options;
  const path = locate(command);
  if (!path) throw new Error(`${command} is not installed`);
  const child = spawn(path, args, {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    ...user,
  });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-OUTPUT_KEPT);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.on('error', (error) => keep(Buffer.from(String(error))));

  const kill = (): Promise<void> => end(child, 'SIGKILL');
  const stop = async (): Promise<void> => {
    await end(child, options.stopSignal ?? 'SIGTERM');
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await untilReady(child, options.ready ?? (() => accepts(port)));
  } catch (error) {
    await kill();
    throw new Error(`${command} did not start: ${(error as Error).message}; ${tail(output)}`);
  }
  return {
    pid: child.pid!,
    port,
    directory,
    output: () => output,
    signal: (name) => void child.kill(name),
    standStill: () => standStill(child.pid!),
    kill,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** A signal takes its time: until then the process goes on, and answers. */
export async function standStill(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  if (!existsSync('/proc/self/stat')) await pause(SIGNAL_MS_MAX);
  else while (!stands(pid)) await pause(1);
}

/** Whether the process is stopped. The name of its command, in brackets, may hold anything. */
export function stands(pid: number): boolean {
  return /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** What it said last, on the line that a short report prints; all of it behind that. */
function tail(output: string): string {
  const last = output.trim().split('\n').at(-1);
  return `it said last: ${last || 'nothing'}\n${output}`;
}

async function untilReady(child: ChildProcess, ready: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + READY_MS_MAX;
  while (performance.now() < until) {
    if (child.exitCode !== null || child.signalCode !== null || !child.pid) {
      throw new Error(`it ended with ${child.exitCode ?? child.signalCode}`);
    }
    if (await ready().catch(() => false)) return;
    await pause(25);
  }
  throw new Error(`not ready within ${READY_MS_MAX / 1_000} s`);
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (!child.pid || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  // A stopped process acts on nothing but SIGKILL until it is continued.
  child.kill('SIGCONT');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
  await ended;
  clearTimeout(timer);
}
