/**
 * Debian packages on demand: `missing` says what is not there, `install` brings it when this
 * process may (root with apt-get), quietly, and answers what is still missing afterwards.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Daemons live in places that are not on every PATH. */
const PLACES = [
  ...(process.env.PATH ?? '').split(delimiter),
  '/usr/sbin',
  '/sbin',
  '/usr/lib/postgresql/15/bin',
];

/** The full path of a command, or undefined. A name with a slash is a path to look for. */
export function locate(command) {
  if (command.startsWith('/')) return existsSync(command) ? command : undefined;
  return PLACES.map((place) => join(place, command)).find((path) => existsSync(path));
}

/** @param {Record<string, string>} needs command → package */
export function missing(needs) {
  return Object.entries(needs)
    .filter(([command]) => !locate(command))
    .map(([, name]) => name)
    .filter((name, index, all) => all.indexOf(name) === index);
}

/** @param {Record<string, string>} needs command → package */
export function install(needs) {
  const wanted = missing(needs);
  if (wanted.length === 0) return [];
  if (process.getuid?.() !== 0 || !locate('apt-get')) return wanted;
  console.error(`installing ${wanted.join(', ')} …`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  // Services must not start by themselves: experiments start their own, on their own ports.
  const options = ['-y', '-qq', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=120'];
  const run = (...args) => spawnSync('apt-get', args, { env, stdio: 'ignore' });
  if (run('install', ...options, ...wanted).status !== 0) {
    run('update', '-qq');
    run('install', ...options, ...wanted);
  }
  return missing(needs);
}
