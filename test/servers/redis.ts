/** A Redis of Debian, in memory or with its append-only file synced before each answer. */
import { spawnSync } from 'node:child_process';
import { locate } from '../../scripts/packages.mjs';
import { COMMAND_MS_MAX, type Daemon, freePort, freshDirectory, startDaemon } from './daemon.ts';

export interface Redis extends Daemon {
  readonly url: string;
  /** Starts it again after `kill()`, on the same port and files. */
  restart(): Promise<Redis>;
}

export interface RedisOptions {
  /** Absent: nothing is kept across a restart. */
  readonly appendFsync?: 'always' | 'everysec';
}

export async function startRedis(options: RedisOptions = {}): Promise<Redis> {
  return await serve(freshDirectory('redis'), await freePort(), options);
}

async function serve(directory: string, port: number, options: RedisOptions): Promise<Redis> {
  const { appendFsync } = options;
  const daemon = await startDaemon({
    command: 'redis-server',
    args: [
      ...['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', ''],
      ...['--appendonly', appendFsync ? 'yes' : 'no'],
      ...(appendFsync ? ['--appendfsync', appendFsync] : []),
    ],
    port,
    directory,
    ready: async () => ping(port),
  });
  return {
    ...daemon,
    url: `redis://127.0.0.1:${port}`,
    restart: () => serve(directory, port, options),
  };
}

/** It accepts connections before it has loaded its file; only PONG means ready. */
function ping(port: number): boolean {
  const cli = locate('redis-cli');
  if (!cli) return true;
  const { stdout } = spawnSync(cli, ['-p', String(port), 'ping'], {
    encoding: 'utf8',
    timeout: COMMAND_MS_MAX,
  });
  return stdout.trim() === 'PONG';
}
