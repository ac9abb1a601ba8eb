/**
 * One process owns a directory. The owner listens on a Unix socket in it for as long as it lives;
 * the kernel closes it whatever ends the process, so a dead owner is known without a timeout. One
 * that stands still is alive: only its guests can tell, who get no answer (`shared/`). The name of
 * the socket stands in the store itself, written by the same commit that claims it (`Tree.claim`),
 * so there is no moment in which a living owner cannot be found. A socket in the file system is seen
 * from every network namespace.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../base/system.ts';
import { type OwnerRecord, SOCKET_NAME } from './format.ts';

/** Linux allows 107 bytes, others fewer. */
const PATH_BYTES_MAX = 100;
const PROBE_MS = 2_000;

export interface OwnerSocket {
  readonly record: OwnerRecord;
  /** Says who takes over connections; without one they are closed after the greeting of TCP. */
  serve(handler: (socket: Socket) => void): void;
  close(): Promise<void>;
}

/**
 * Starts to listen in `directory` under a name that no other claim has. `shared`: whoever does not
 * answer there any more may be replaced, for it looks before it answers.
 */
export async function listenAsOwner(directory: string, shared = false): Promise<OwnerSocket> {
  const kind = shared ? 'shared' : 'owner';
  const name = `${kind}-${randomBytes(8).toString('hex')}.sock`;
  let handler: (socket: Socket) => void = (socket) => socket.destroy();
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    handler(socket);
  });
  const address = socketAddress(directory, name);
  try {
    await listening(server, address.path);
  } finally {
    address.release();
  }
  server.on('error', () => {});
  // The socket is a sign of life, no reason to live.
  server.unref();
  return {
    record: { pid: process.pid, host: hostname(), socket: name },
    serve: (next) => {
      handler = next;
    },
    close: () => closing(server, join(directory, name)),
  };
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function closing(server: Server, path: string): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      rmSync(path, { force: true });
      resolve();
    });
  });
}

/** Whether the owner behind a socket lives. Doubt counts as life: two owners are the worse end. */
export function isAlive(directory: string, socketName: string): Promise<boolean> {
  const address = socketAddress(directory, socketName);
  return new Promise((resolve) => {
    const socket = connect(address.path);
    const answer = (alive: boolean): void => {
      cancel();
      socket.destroy();
      address.release();
      resolve(alive);
    };
    const cancel = systemClock.wakeAt(systemClock.now() + PROBE_MS, () => answer(true));
    socket.once('connect', () => answer(true));
    socket.once('error', (error: NodeJS.ErrnoException) => {
      answer(error.code !== 'ENOENT' && error.code !== 'ECONNREFUSED');
    });
  });
}

/** Whether this owner may be replaced although its socket lives; the strict form never is. */
export function isReplaceable({ socket }: OwnerRecord): boolean {
  return socket.startsWith('shared-');
}

/** The sockets in the directory, of the living and the dead. */
export function socketsIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => SOCKET_NAME.test(name));
}

/** Every socket in the directory that somebody listens on. */
export async function livingSockets(directory: string): Promise<string[]> {
  const names = socketsIn(directory);
  const alive = await Promise.all(names.map((name) => isAlive(directory, name)));
  return names.filter((_, index) => alive[index]);
}

/**
 * Removes what earlier owners left behind. `before` was there before this process claimed: it holds
 * no later owner's socket, however late the removal comes.
 */
export function sweepSockets(directory: string, before: readonly string[], own: string): void {
  for (const name of before) {
    if (name !== own) rmSync(join(directory, name), { force: true });
  }
}

/** A path for bind or connect: short enough also for a deep directory, by way of its descriptor. */
export function socketAddress(directory: string, name: string): { path: string; release(): void } {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= PATH_BYTES_MAX || process.platform !== 'linux') {
    return { path, release: () => {} };
  }
  const fd = openSync(directory, 'r');
  return { path: `/proc/self/fd/${fd}/${name}`, release: () => closeSync(fd) };
}
