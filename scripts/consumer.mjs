/**
 * The package as its users meet it: packed, installed into an empty project, imported, required,
 * README's first program run, and its types resolved under both module resolutions in use.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const STEP_MS_MAX = 120_000;
const RESOLUTIONS = ['nodenext', 'bundler'];

/** Answers undefined when all is well, the complaint otherwise. Needs a fresh `dist/`. */
export function checkConsumer() {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-consumer-'));
  try {
    unpack(folder);
    const entries = entryPoints();
    writeProject(folder, entries);
    const steps = [['import.mjs'], ['require.cjs'], ['readme.mjs'], ...RESOLUTIONS.map(typeCheck)];
    for (const step of steps) {
      const complaint = run(folder, step);
      if (complaint !== undefined) return complaint;
    }
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Packs the repository and lays it into the project with the dependencies it declares. */
function unpack(folder) {
  const archive = spawnSync('npm', ['pack', '--silent', '--pack-destination', folder], {
    encoding: 'utf8',
    timeout: STEP_MS_MAX,
    shell: process.platform === 'win32',
  });
  if (archive.status !== 0) throw new Error(`npm pack failed: ${archive.stderr}`);
  const target = join(folder, 'node_modules', 'holdfast');
  mkdirSync(target, { recursive: true });
  const file = archive.stdout.trim().split('\n').at(-1);
  const tar = ['-xzf', join(folder, file), '-C', target, '--strip-components=1'];
  if (spawnSync('tar', tar).status !== 0) throw new Error('tar failed');
  // Only what the package declares, and the compiler's own types: an undeclared import must fail.
  const { dependencies, peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8'));
  const declared = Object.keys({ ...dependencies, ...peerDependencies });
  for (const name of [...declared, '@types/node', 'undici-types']) {
    const link = join(folder, 'node_modules', name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(resolve('node_modules', name), link);
  }
}

function entryPoints() {
  const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
  return Object.keys(exports)
    .filter((path) => path !== './package.json')
    .map((path) => `holdfast${path.slice(1)}`);
}

function writeProject(folder, entries) {
  const file = (name, ...lines) => writeFileSync(join(folder, name), `${lines.join('\n')}\n`);
  const names = entries.map((entry, index) => [`m${index}`, entry]);
  const check = ([name, entry]) =>
    `if (Object.keys(${name}).length === 0) throw new Error('${entry} exports nothing');`;
  file('package.json', '{ "type": "module" }');
  file(
    'import.mjs',
    ...names.map(([n, e]) => `import * as ${n} from '${e}';`),
    ...names.map(check),
  );
  file(
    'require.cjs',
    ...names.map(([n, e]) => `const ${n} = require('${e}');`),
    ...names.map(check),
  );
  const program = firstProgram();
  file('readme.mjs', program);
  file('readme.ts', program);
  file(
    'use.ts',
    ...names.map(([n, e]) => `import * as ${n} from '${e}';`),
    `import { HoldfastError } from 'holdfast';`,
    `const outcome: 'rejected' | 'unknown' = new HoldfastError('stale', 'x').outcome;`,
    `// @ts-expect-error: the codes are closed, so the types have really been read`,
    `new HoldfastError('no-such-code', 'x');`,
    `export const all: unknown[] = [outcome, ${names.map(([n]) => n).join(', ')}];`,
  );
}

/** What README shows first must run and type-check as it stands. */
function firstProgram() {
  const found = /```ts\n([\s\S]*?)```/.exec(readFileSync('README.md', 'utf8'));
  if (!found) throw new Error('README shows no program');
  return found[1];
}

function typeCheck(resolution) {
  const module = resolution === 'bundler' ? 'esnext' : 'nodenext';
  const flags = ['--strict', '--noEmit', '--target', 'es2022', '--lib', 'es2023,esnext.disposable'];
  const modules = ['--module', module, '--moduleResolution', resolution, '--types', 'node'];
  return [resolve('node_modules/typescript/bin/tsc'), ...flags, ...modules, 'use.ts', 'readme.ts'];
}

/** Runs node on a step; answers what it complained about. */
function run(folder, args) {
  const options = { cwd: folder, encoding: 'utf8', timeout: STEP_MS_MAX };
  const { status, stdout, stderr, error } = spawnSync(process.execPath, args, options);
  return status === 0 ? undefined : `${args.join(' ')}\n${stdout}${stderr}${error?.message ?? ''}`;
}
