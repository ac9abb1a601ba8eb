/** Real HTTP caches of Debian before an origin: Varnish, and nginx with its proxy cache. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Daemon, freePort, freshDirectory, startDaemon } from './daemon.ts';

export interface HttpServer extends Daemon {
  readonly url: string;
}

/** nginx in the foreground with `http` as the body of its http block. */
export async function startNginx(
  http: (place: { readonly port: number; readonly directory: string }) => string,
): Promise<HttpServer> {
  const directory = freshDirectory('nginx');
  const port = await freePort();
  const config = join(directory, 'nginx.conf');
  writeFileSync(
    config,
    [
      'daemon off;',
      // One process: the one that is ended by id, and the one that may remove cache files.
      'master_process off;',
      `pid ${directory}/nginx.pid;`,
      `error_log ${directory}/error.log warn;`,
      'events { worker_connections 256; }',
      'http {',
      'access_log off;',
      ...['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (name) => `${name}_temp_path ${directory}/${name};`,
      ),
      http({ port, directory }),
      '}',
      '',
    ].join('\n'),
  );
  const daemon = await startDaemon({
    command: 'nginx',
    args: ['-c', config, '-e', join(directory, 'error.log'), '-p', directory],
    port,
    directory,
  });
  return { ...daemon, url: `http://127.0.0.1:${port}` };
}

export async function startVarnish(vcl: string): Promise<HttpServer> {
  const directory = freshDirectory('varnish');
  const port = await freePort();
  const config = join(directory, 'default.vcl');
  writeFileSync(config, vcl);
  const daemon = await startDaemon({
    command: 'varnishd',
    args: [
      // No jail: it neither changes its user nor needs a service account.
      ...['-F', '-j', 'none', '-n', join(directory, 'work'), '-f', config],
      ...['-a', `127.0.0.1:${port}`, '-T', 'none', '-s', 'malloc,32m'],
      ...['-p', 'default_grace=0', '-p', 'default_keep=0'],
    ],
    port,
    directory,
    ready: async () => existsSync(join(directory, 'work')) && (await answers(port)),
  });
  return { ...daemon, url: `http://127.0.0.1:${port}` };
}

async function answers(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/holdfast-ready`);
  await response.arrayBuffer();
  return true;
}
