/**
 * The architecture, as a table and as rules. The drawing in ARCHITECTURE.md is made from this;
 * nothing else holds it. Every ban names its replacement, so that a failure is an instruction.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { missingOptional } from '../scripts/complete-lock.mjs';
import {
  isGenerated,
  isTest,
  plantedTree,
  readTree,
  references,
  resolveFrom,
  type SourceFile,
  type SourceTree,
} from './source-tree.ts';

/** What every room that is not pure may use: the words, and the machine's clock, chance and the like. */
const GROUND = [
  ...['base', 'base/system.ts', 'base/ed25519.ts'],
  ...['base/directories.ts', 'base/lmdb-note.ts'],
  'model',
] as const;
const ENGINE = [...GROUND, 'mvcc', 'engine/contract.ts', 'engine'] as const;

/**
 * A room is a folder or file of `src/`; the longest name that fits decides. It may import itself
 * and what is listed. Engines are rooms of their own, so none can import another, and only the
 * rooms that list them, the composition roots, can name one.
 */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  'base/system.ts': ['base'],
  'base/ed25519.ts': [],
  'base/directories.ts': [],
  'base/lmdb-note.ts': [],
  model: ['base'],
  mvcc: ['base', 'model'],
  wire: ['base', 'model'],
  'wire/net': [...GROUND, 'wire'],
  'engine/contract.ts': ['base', 'model'],
  engine: [...GROUND, 'mvcc', 'engine/contract.ts'],
  'engine/memory': ENGINE,
  'engine/lmdb': ENGINE,
  'engine/etcd': [...ENGINE, 'wire', 'wire/net'],
  'engine/postgres': ENGINE,
  recipes: [...GROUND, 'engine/contract.ts'],
  guard: GROUND,
  schedule: [...GROUND, 'engine/contract.ts', 'recipes', 'guard'],
  server: [...GROUND, 'engine/contract.ts', 'recipes', 'wire', 'wire/net'],
  // The embedded store for several processes: an engine, a server before it, a client of that.
  shared: [...ENGINE, 'engine/lmdb', 'engine/etcd', 'server', 'wire/net'],
  protocol: ['base'],
  lab: ['base', 'protocol'],
  peer: [...GROUND, 'protocol'],
  crdt: ['base'],
  testing: [...GROUND, 'engine/contract.ts'],
  'testing/recipes': [...GROUND, 'engine/contract.ts', 'recipes', 'client.ts', 'testing'],
  'testing/simulation': [
    ...GROUND,
    'engine/contract.ts',
    'engine',
    'engine/memory',
    'recipes',
    'client.ts',
    'testing',
  ],
  'client.ts': [
    ...ENGINE,
    'engine/memory',
    'engine/lmdb',
    'engine/etcd',
    'engine/postgres',
    'recipes',
    'shared',
  ],
  'index.ts': [...GROUND, 'engine/contract.ts', 'recipes', 'client.ts'],
  // Doors to what a program sees by: each on its own, so that nobody loads what he does not use.
  'metrics.ts': ['base', 'model', 'recipes', 'guard'],
  'opentelemetry.ts': ['base'],
  cli: ['*'],
};

/** No `node:` module, package, clock, chance, timer: these also run in browsers and simulators. */
const PURE = ['base', 'model', 'mvcc', 'wire', 'engine/contract.ts', 'protocol', 'lab', 'crdt'];

interface Ban {
  readonly pattern: RegExp;
  readonly instead: string;
  /** Rooms that may, and single files for a reason given there. */
  readonly except?: readonly string[];
}

/** In pure rooms. */
const PURE_BANS: readonly Ban[] = [
  { pattern: /\bsetImmediate\(|\bqueueMicrotask\(/, instead: 'a wake-up time in the answer' },
  { pattern: /\bprocess\b[.?[]|\bBuffer\b[.(]/, instead: 'an argument, or base/bytes.ts' },
  { pattern: /\bcrypto\.(getRandomValues|subtle)/, instead: 'a Random (base/random.ts)' },
];

/** In all of `src/`, its tests aside. */
const SOURCE_BANS: readonly Ban[] = [
  {
    // The watchdog reads the machine's time in a thread that must not depend on ours.
    pattern: /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(|\bprocess\.(hrtime|uptime)\b/,
    instead: 'a Clock (base/clock.ts)',
    except: ['base/system.ts', 'recipes/watchdog.ts', 'cli'],
  },
  {
    pattern: /\bMath\.random\(|\brandomUUID\(/,
    instead: 'a Random (base/random.ts)',
    except: ['base/system.ts'],
  },
  {
    // A socket's own idle timeout is a method and no timer of ours.
    pattern: /(?:globalThis\.|(?<![.\w]))set(Timeout|Interval)\(/,
    instead: 'clock.wakeAt, or sleep of base/clock.ts',
    except: ['base/system.ts'],
  },
  { pattern: /\bconsole\.\w+\(/, instead: 'an error or an observer', except: ['cli'] },
  { pattern: /\bprocess\.exit\(/, instead: 'an error or a hook', except: ['cli'] },
  {
    pattern: /\bAbortSignal\.any\(/,
    instead: 'linkAbort of base/abort.ts: any() leaks on Node 20',
  },
  {
    pattern: /\bmkdir(Sync)?\([^;]*recursive: true/,
    instead: 'makeDirectory of base/directories.ts: Node.js may try for ever',
  },
  { pattern: /\bexport default\b/, instead: 'a named export' },
];

/** Everywhere, tests and programs too. */
const BANS: readonly Ban[] = [
  {
    pattern: /\b(Async)?DisposableStack\b|\bSuppressedError\b/,
    instead: 'try/finally: undefined on Node 20',
  },
  { pattern: /\bPromise\.withResolvers\b/, instead: 'deferred of base/deferred.ts' },
  { pattern: /\bArray\.fromAsync\b/, instead: 'for await: missing on Node 20' },
  { pattern: /\bPromise\.try\b|\bObject\.groupBy\b|\bMap\.groupBy\b/, instead: 'a loop' },
  {
    pattern: /\.export\(\{ format: 'jwk' \}\)/,
    instead: 'base/ed25519.ts: the process may hang on Node 20',
  },
  { pattern: /\b(test|it|describe|bench)\.only\b/, instead: 'a filter on the command line' },
];

/** Notes to oneself belong elsewhere; comments are searched too. */
const NOTES = /\b(TODO|FIXME|XXX|HACK)\b/;

const LINES_MAX = 500;
/** Files that are longer for a stated reason, and the length they may not outgrow. */
const LONGER: Readonly<Record<string, number>> = {
  // Reads, models and prints one small language; cut apart, nobody would find the pieces.
  'scripts/generate-messages.mjs': 560,
};

/** This file names what it bans. */
const SELF = 'test/architecture.test.ts';

function roomOf(path: string): string | undefined {
  const inside = path.slice('src/'.length);
  return Object.keys(ROOMS)
    .filter((room) => inside === room || inside.startsWith(`${room}/`))
    .sort((a, b) => b.length - a.length)[0];
}

/** The sources that ship: no tests, nothing generated. */
function shipped(tree: SourceTree): SourceFile[] {
  return [...tree.values()].filter((file) => file.path.startsWith('src/') && !isTest(file.path));
}

function importFaults(tree: SourceTree): string[] {
  const faults: string[] = [];
  for (const file of shipped(tree)) {
    const room = roomOf(file.path);
    if (room === undefined) {
      faults.push(`${file.path}: is in no room; see ROOMS in ${SELF}`);
      continue;
    }
    const allowed = ROOMS[room]!;
    for (const target of file.imports.filter((name) => name.startsWith('.'))) {
      const path = resolveFrom(file.path, target);
      const to = roomOf(path);
      if (!tree.has(path)) faults.push(`${file.path}: imports ${path}, which does not exist`);
      else if (isTest(path)) faults.push(`${file.path}: imports the test ${path}`);
      else if (to === undefined) faults.push(`${file.path}: imports ${path} from outside src`);
      else if (to !== room && !allowed.includes(to) && !allowed.includes('*')) {
        faults.push(`${file.path}: ${room} may not import ${to} (${path})`);
      }
    }
  }
  return faults;
}

function packageFaults(tree: SourceTree, declared: readonly string[]): string[] {
  const faults: string[] = [];
  for (const file of shipped(tree)) {
    const pure = PURE.includes(roomOf(file.path) ?? '');
    for (const name of file.imports.filter((target) => !target.startsWith('.'))) {
      if (pure) faults.push(`${file.path}: a pure room may not import ${name}`);
      else if (!name.startsWith('node:') && !declared.some((d) => `${name}/`.startsWith(`${d}/`))) {
        faults.push(`${file.path}: ${name} is not in the dependencies; use a structural type`);
      }
    }
  }
  return faults;
}

function banFaults(tree: SourceTree): string[] {
  const faults: string[] = [];
  const apply = (file: SourceFile, bans: readonly Ban[], room = ''): void => {
    for (const { pattern, instead, except } of bans) {
      if (except?.includes(room) || except?.includes(file.path.slice('src/'.length))) continue;
      const found = pattern.exec(file.code);
      if (found) faults.push(`${at(file, found.index)}: ${found[0]}: use ${instead}`);
    }
  };
  for (const file of shipped(tree)) {
    const room = roomOf(file.path) ?? '';
    apply(file, SOURCE_BANS, room);
    if (PURE.includes(room)) apply(file, PURE_BANS, room);
  }
  for (const file of tree.values()) {
    if (file.path === SELF) continue;
    apply(file, BANS);
    const note = NOTES.exec(file.text);
    if (note) faults.push(`${at(file, note.index)}: ${note[0]}: do it, or write it down elsewhere`);
  }
  return faults;
}

function at(file: SourceFile, index: number): string {
  return `${file.path}:${file.text.slice(0, index).split('\n').length}`;
}

/** Sources that nothing can reach: not the package, no program, no test. */
function deadFiles(tree: SourceTree, entries: readonly string[]): string[] {
  const reached = new Set<string>();
  const queue = [...tree.keys()].filter((path) => !path.startsWith('src/') || isTest(path));
  queue.push(...entries);
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const file = tree.get(path);
    if (!file || reached.has(path)) continue;
    reached.add(path);
    queue.push(...references(file, tree));
  }
  return shipped(tree)
    .filter((file) => !reached.has(file.path) && !isGenerated(file.path))
    .map((file) => `${file.path}: nothing uses it`);
}

/** Tests are exempt: a table of cases is as long as its document. */
function lengthFaults(tree: SourceTree): string[] {
  return [...tree.values()]
    .filter(({ path }) => !isGenerated(path) && !isTest(path) && !path.startsWith('test/'))
    .map((file) => ({ path: file.path, lines: file.text.trimEnd().split('\n').length }))
    .filter(({ path, lines }) => lines > (LONGER[path] ?? LINES_MAX))
    .map(({ path, lines }) => `${path}: ${lines} lines; is it one idea?`);
}

type Exports = Readonly<Record<string, Readonly<Record<string, string>> | string>>;

/** `./x` leads to one source file and to what the build makes of it, in this order. */
function exportFaults(tree: SourceTree, exports: Exports): string[] {
  const faults: string[] = [];
  for (const [name, target] of Object.entries(exports)) {
    if (name === './package.json') continue;
    const source = typeof target === 'string' ? '' : (target['holdfast/source'] ?? '');
    const built = source.replace('./src/', './dist/').replace(/\.ts$/, '');
    const wanted = {
      'holdfast/source': source,
      types: `${built}.d.ts`,
      default: `${built}.js`,
    };
    if (JSON.stringify(target) !== JSON.stringify(wanted)) {
      faults.push(`package.json: exports["${name}"] must be ${JSON.stringify(wanted)}`);
    }
    const path = source.slice('./'.length);
    const file = tree.get(path);
    if (!file) faults.push(`package.json: exports["${name}"] leads to ${path}, which is missing`);
    else if (/\bexport\s*\*/.test(file.code)) {
      faults.push(`${path}: lists its public names one by one, without export *`);
    }
  }
  return faults;
}

const tree = readTree();
const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as {
  version: string;
  exports: Exports;
  bin?: Readonly<Record<string, string>>;
  dependencies?: Readonly<Record<string, string>>;
  peerDependencies?: Readonly<Record<string, string>>;
};

/** What users can start from: the doors of the package and its commands. */
function entryFiles(): string[] {
  const doors = Object.values(manifest.exports).map((target) =>
    typeof target === 'string' ? target : (target['holdfast/source'] ?? ''),
  );
  const commands = Object.values(manifest.bin ?? {}).map((path) =>
    path.replace(/^(\.\/)?dist\//, './src/').replace(/\.js$/, '.ts'),
  );
  return [...doors, ...commands].map((path) => path.replace(/^\.\//, ''));
}

describe('the house', () => {
  test('every import follows the table of rooms', () => {
    expect(importFaults(tree)).toEqual([]);
  });

  test('pure rooms import no module or package, the others only declared ones', () => {
    const { dependencies = {}, peerDependencies = {} } = manifest;
    const declared = [...Object.keys(dependencies), ...Object.keys(peerDependencies)];
    expect(packageFaults(tree, declared)).toEqual([]);
  });

  test('nothing banned is used, and each ban names its replacement', () => {
    expect(banFaults(tree)).toEqual([]);
  });

  test('every source file is used by something', () => {
    expect(deadFiles(tree, entryFiles())).toEqual([]);
  });

  test('a file is one idea and stays short', () => {
    expect(lengthFaults(tree)).toEqual([]);
  });

  test('the doors of the package lead to sources that list their names', () => {
    expect(exportFaults(tree, manifest.exports)).toEqual([]);
  });

  test('every dependency has an exact version', () => {
    const { dependencies = {} } = manifest;
    expect(Object.values(dependencies).filter((version) => !/^\d/.test(version))).toEqual([]);
  });

  test('a version stated in the sources is that of the package', () => {
    const stated = shipped(tree).flatMap((file) =>
      [...file.code.matchAll(/\bVERSION\b[^=\n]*= '(\d+\.\d+\.\d+)'/g)].map((found) => found[1]),
    );
    expect([...new Set(stated)].filter((version) => version !== manifest.version)).toEqual([]);
  });

  test('the lock file names no place to download from', () => {
    expect(readFileSync('package-lock.json', 'utf8')).not.toMatch(/"resolved": "http/);
  });

  test('the lock file names every optional package (node scripts/complete-lock.mjs)', () => {
    const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as object;
    expect(missingOptional(lock)).toEqual([]);
  });
});

describe('control: planted faults are named', () => {
  const importsIn = (path: string, text: string, ...others: string[]): string[] =>
    importFaults(
      plantedTree({ ...Object.fromEntries(others.map((name) => [name, ''])), [path]: text }),
    );

  test.each([
    ['an upward import', 'src/model/a.ts', "import { x } from '../mvcc/b.ts';", 'src/mvcc/b.ts'],
    ['a type import', 'src/base/a.ts', "import type { X } from '../model/b.ts';", 'src/model/b.ts'],
    ['a re-export', 'src/base/a.ts', "export { x } from '../model/b.ts';", 'src/model/b.ts'],
    ['a side-effect import', 'src/guard/a.ts', "import '../recipes/b.ts';", 'src/recipes/b.ts'],
    ['a dynamic import', 'src/wire/a.ts', "await import('./net/b.ts');", 'src/wire/net/b.ts'],
    [
      'an import over several lines',
      'src/model/a.ts',
      "import {\n  type X,\n  y,\n} from '../mvcc/b.ts';",
      'src/mvcc/b.ts',
    ],
    [
      'an engine that imports another',
      'src/engine/lmdb/a.ts',
      "import { x } from '../memory/b.ts';",
      'src/engine/memory/b.ts',
    ],
    [
      'a recipe that names an engine',
      'src/recipes/a.ts',
      "import { x } from '../engine/memory/b.ts';",
      'src/engine/memory/b.ts',
    ],
    [
      'a pure room that takes the real clock',
      'src/mvcc/a.ts',
      "import { systemClock } from '../base/system.ts';",
      'src/base/system.ts',
    ],
    [
      'a room that uses the testing kit',
      'src/recipes/a.ts',
      "import { x } from '../testing/b.ts';",
      'src/testing/b.ts',
    ],
    ['a room that is not in the table', 'src/attic/a.ts', '', 'src/base/b.ts'],
    ['an import of nothing', 'src/base/a.ts', "import { x } from './gone.ts';", 'src/base/b.ts'],
  ])('%s', (_, path, text, other) => {
    expect(importsIn(path, text, other)).toHaveLength(1);
  });

  test('an allowed import and one in a comment are no faults', () => {
    const text = "// import { x } from '../mvcc/b.ts';\nimport { y } from '../base/c.ts';";
    expect(importsIn('src/model/a.ts', text, 'src/mvcc/b.ts', 'src/base/c.ts')).toEqual([]);
  });

  test.each([
    ['src/mvcc/a.ts', 'const now = Date.now();'],
    ['src/recipes/a.ts', 'setTimeout(f, 1);'],
    ['src/guard/a.ts', 'const x = Math.random();'],
    ['src/base/a.ts', 'queueMicrotask(f);'],
    ['src/lab/a.ts', 'if (process.env.X) f();'],
    ['src/recipes/a.ts', 'console.log(1);'],
    ['src/recipes/a.ts', 'export default 1;'],
    ['src/recipes/a.ts', 'AbortSignal.any([a, b]);'],
    ['src/base/a.test.ts', 'const { promise } = Promise.withResolvers();'],
    ['test/a.ts', 'using stack = new DisposableStack();'],
    ['prove/a.ts', 'await Array.fromAsync(x);'],
    ['test/a.test.ts', "key.export({ format: 'jwk' });"],
    ['test/a.test.ts', "test.only('x', () => {});"],
    ['src/base/a.ts', '// TODO: later'],
  ])('%s: %s', (path, text) => {
    expect(banFaults(plantedTree({ [path]: text }))).toHaveLength(1);
  });

  test('a ban does not reach comments and the files that are exempt', () => {
    const planted = plantedTree({
      'src/base/a.ts':
        '/** Like Math.random(), but seeded. */\nconst url = "http://x"; // Date.now()',
      'src/base/system.ts': 'const wall = Date.now();',
    });
    expect(banFaults(planted)).toEqual([]);
  });

  test('a pure room that imports a module, and an undeclared package', () => {
    const planted = plantedTree({
      'src/model/a.ts': "import { join } from 'node:path';",
      'src/engine/lmdb/a.ts': "import { open } from 'lmdb';\nimport pg from 'pg';",
    });
    expect(packageFaults(planted, ['lmdb'])).toHaveLength(2);
  });

  test('a dead file, and one that keeps only itself alive', () => {
    const planted = plantedTree({
      'src/index.ts': "export { x } from './base/used.ts';",
      'src/base/used.ts': "new Worker(new URL('./worker.ts', import.meta.url));",
      'src/base/worker.ts': '',
      'src/base/dead.ts': "import './dead.ts';",
    });
    expect(deadFiles(planted, ['src/index.ts'])).toEqual(['src/base/dead.ts: nothing uses it']);
  });

  test('an optional package that the lock file lacks', () => {
    const optionalDependencies = { 'x-linux-x64': '1.0.0', 'x-win32-x64': '1.0.0' };
    const packages = { 'node_modules/x': { optionalDependencies }, 'node_modules/x-linux-x64': {} };
    expect(missingOptional({ packages }).map(({ name }) => name)).toEqual(['x-win32-x64']);
  });

  test('a file that is too long', () => {
    expect(lengthFaults(plantedTree({ 'src/base/a.ts': 'x\n'.repeat(501) }))).toHaveLength(1);
  });

  test('doors that lead nowhere, to something else, or hide their names', () => {
    const planted = plantedTree({
      'src/index.ts': "export * from './a.ts';",
    });
    const door = (path: string): Readonly<Record<string, string>> => ({
      'holdfast/source': `./src/${path}.ts`,
      types: `./dist/${path}.d.ts`,
      default: `./dist/${path}.js`,
    });
    const exports = { '.': door('index'), './gone': door('gone/index'), './odd': './dist/odd.js' };
    expect(exportFaults(planted, exports).map((fault) => fault.split(':')[0])).toEqual([
      'src/index.ts',
      'package.json',
      'package.json',
      'package.json',
    ]);
  });
});
