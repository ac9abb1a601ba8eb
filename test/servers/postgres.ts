/** A PostgreSQL of Debian on a temporary cluster, and PgBouncer in transaction mode before it. */
import { execFile, spawnSync } from 'node:child_process';
import { chownSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { locate } from '../../scripts/packages.mjs';
import {
  account,
  COMMAND_MS_MAX,
  type Daemon,
  freePort,
  freshDirectory,
  startDaemon,
  subdirectory,
  type User,
} from './daemon.ts';

/** How a command ended, and what it printed. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Postgres extends Daemon {
  /** `postgres://postgres@127.0.0.1:PORT/postgres` */
  readonly url: string;
  /** Runs plain psql, as a person would. */
  psql(sql: string): Promise<Ran>;
  /** Starts the same cluster again after `kill()`, on the same port. */
  restart(): Promise<Postgres>;
}

export interface PostgresOptions {
  /** Lines for postgresql.conf: `{ synchronous_commit: 'off' }`. */
  readonly settings?: Readonly<Record<string, string | number>>;
}

export const postgresCommands = ['initdb', 'postgres', 'psql', 'pg_isready'] as const;

export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const user = account('postgres');
  const directory = freshDirectory('postgres', user);
  const data = join(directory, 'data');
  try {
    run('initdb', ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'], user);
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  return await serve(directory, data, await freePort(), options, user);
}

async function serve(
  directory: string,
  data: string,
  port: number,
  options: PostgresOptions,
  user: User | undefined,
): Promise<Postgres> {
  const settings = { max_connections: 200, shared_buffers: '32MB', ...options.settings };
  const daemon = await startDaemon({
    command: 'postgres',
    args: [
      ...['-D', data, '-p', String(port), '-c', 'listen_addresses=127.0.0.1'],
      ...['-c', `unix_socket_directories=${directory}`],
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ],
    port,
    directory,
    user,
    ready: async () => succeeds('pg_isready', ['-h', '127.0.0.1', '-p', String(port), '-t', '1']),
    // Immediate: what it would tidy up is removed anyway.
    stopSignal: 'SIGQUIT',
  });
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  return {
    ...daemon,
    url,
    psql: (sql) => psql(url, sql),
    restart: () => serve(directory, data, port, options, user),
  };
}

/** While the loop goes on: what psql waits for may be a lock of a transaction of this process. */
function psql(url: string, sql: string): Promise<Ran> {
  const args = ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', url, '-c', sql];
  return new Promise((resolve) => {
    const child = execFile(
      locate('psql')!,
      args,
      { timeout: COMMAND_MS_MAX },
      (_error, stdout, stderr) => {
        resolve({ code: child.exitCode ?? -1, stdout: stdout.trim(), stderr: stderr.trim() });
      },
    );
  });
}

export interface PgBouncer extends Daemon {
  readonly url: string;
}

export interface PgBouncerOptions {
  readonly poolMode?: 'transaction' | 'session' | 'statement';
  /** Server connections; fewer than clients, so that they are really shared. */
  readonly poolSize?: number;
}

export async function startPgBouncer(
  postgres: Pick<Postgres, 'port'>,
  { poolMode = 'transaction', poolSize = 2 }: PgBouncerOptions = {},
): Promise<PgBouncer> {
  const user = account('postgres');
  const directory = freshDirectory('pgbouncer', user);
  const port = await freePort();
  const sockets = subdirectory(directory, 'sockets', user);
  const users = join(directory, 'users.txt');
  const config = join(directory, 'pgbouncer.ini');
  writeFileSync(users, '"postgres" ""\n');
  writeFileSync(
    config,
    [
      '[databases]',
      `* = host=127.0.0.1 port=${postgres.port} user=postgres`,
      '[pgbouncer]',
      'listen_addr = 127.0.0.1',
      `listen_port = ${port}`,
      `unix_socket_dir = ${sockets}`,
      'auth_type = trust',
      `auth_file = ${users}`,
      `pool_mode = ${poolMode}`,
      `default_pool_size = ${poolSize}`,
      'max_client_conn = 500',
      'ignore_startup_parameters = extra_float_digits',
      '',
    ].join('\n'),
  );
  for (const path of [users, config]) if (user) chownSync(path, user.uid, user.gid);
  const daemon = await startDaemon({ command: 'pgbouncer', args: [config], port, directory, user });
  return { ...daemon, url: `postgres://postgres@127.0.0.1:${port}/postgres` };
}

function run(command: string, args: readonly string[], user: User | undefined): void {
  const { status, stderr } = spawnSync(locate(command)!, args, {
    cwd: '/',
    encoding: 'utf8',
    timeout: COMMAND_MS_MAX,
    ...user,
  });
  if (status !== 0) throw new Error(`${command} failed: ${stderr}`);
}

function succeeds(command: string, args: readonly string[]): boolean {
  return (
    spawnSync(locate(command)!, args, { stdio: 'ignore', timeout: COMMAND_MS_MAX }).status === 0
  );
}
