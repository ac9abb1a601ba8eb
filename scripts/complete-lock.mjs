/**
 * Completes `package-lock.json` after `npm install`: npm leaves out optional packages that it could
 * not look up, and `npm ci` then refuses the file on every machine. Such packages bring a binary
 * for another system; their name says which, and that is all the entry needs.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/** The entry that answers `name` seen from `path`, as node looks for it. */
function found(packages, path, name) {
  for (let at = path; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
    const place = `${at === '' ? '' : `${at}/`}node_modules/${name}`;
    if (packages[place]) return true;
    if (at === '') return false;
  }
}

/** Optional packages that a locked package names and the lock lacks: [name, version, dev]. */
export function missingOptional({ packages }) {
  return Object.entries(packages).flatMap(([path, { optionalDependencies = {}, dev }]) =>
    Object.entries(optionalDependencies)
      .filter(([name]) => !found(packages, path, name))
      .map(([name, version]) => ({ name, version, dev })),
  );
}

function complete(lock) {
  const { '': root, ...rest } = lock.packages;
  for (const { name, version, dev } of missingOptional(lock)) {
    const system = /-(android|darwin|freebsd|linux|win32)-(arm64|arm|ia32|x64)(-musl)?$/.exec(name);
    if (!system || !/^\d/.test(version)) throw new Error(`cannot tell what ${name} is for`);
    const [, os, cpu, musl] = system;
    rest[`node_modules/${name}`] = {
      version,
      cpu: [cpu],
      ...(dev && { dev }),
      ...(musl && { libc: ['musl'] }),
      optional: true,
      os: [os],
    };
  }
  const sorted = Object.entries(rest).sort(([a], [b]) => a.localeCompare(b, 'en'));
  return { ...lock, packages: { '': root, ...Object.fromEntries(sorted) } };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  writeFileSync('package-lock.json', `${JSON.stringify(complete(lock), null, 2)}\n`);
}
