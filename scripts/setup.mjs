/** Makes a fresh clone ready: installs the npm packages when they are missing or outdated. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

const INSTALLED = 'node_modules/.package-lock.json';
const NODE_MIN = [20, 19];
const INSTALL_MS_MAX = 300_000;

export function ready() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    stop(`Node ${NODE_MIN.join('.')} or newer is needed; this is ${process.versions.node}`);
  }
  if (current()) return;
  console.error('installing npm packages …');
  // No install script of a dependency is needed; see docs/adr/0004-toolchain.md.
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  const run = spawnSync('npm', ['ci', ...options], {
    stdio: ['ignore', 'ignore', 'inherit'],
    timeout: INSTALL_MS_MAX,
    shell: process.platform === 'win32',
  });
  if (run.status !== 0) stop('npm ci failed; see above. Is the npm registry reachable?');
}

/** Everything the lock file wants stands there in that version; what fits other machines may lack. */
function current() {
  if (!existsSync(INSTALLED)) return false;
  const packages = (file) => JSON.parse(readFileSync(file, 'utf8')).packages;
  const installed = packages(INSTALLED);
  return Object.entries(packages('package-lock.json')).every(
    ([path, wanted]) =>
      path === '' || wanted.optional || installed[path]?.version === wanted.version,
  );
}

function stop(message) {
  console.error(message);
  process.exit(1);
}
