/**
 * The repository's TypeScript as data for the tidy tests: text, code without comments, and what
 * each file refers to. Reads text only and needs no compiler, so it runs in milliseconds.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';

export const FOLDERS = ['src', 'test', 'scripts', 'prove', 'bench', 'examples'] as const;

export interface SourceFile {
  readonly path: string;
  readonly text: string;
  /** Comments blanked out, line numbers kept. */
  readonly code: string;
  /** What it imports, as written: static, side-effect, dynamic and re-exported. */
  readonly imports: readonly string[];
}

export type SourceTree = ReadonlyMap<string, SourceFile>;

export function sourceFile(path: string, text: string): SourceFile {
  const code = withoutComments(text);
  return { path, text, code, imports: importsOf(code) };
}

/** A tree that exists only in the test. */
export function plantedTree(files: Readonly<Record<string, string>>): SourceTree {
  return new Map(Object.entries(files).map(([path, text]) => [path, sourceFile(path, text)]));
}

export function readTree(root = '.'): SourceTree {
  const tree = new Map<string, SourceFile>();
  for (const folder of FOLDERS) {
    if (!existsSync(join(root, folder))) continue;
    for (const name of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
      if (!/\.(ts|mts|mjs)$/.test(name)) continue;
      const path = posix.join(folder, name.replaceAll('\\', '/'));
      tree.set(path, sourceFile(path, readFileSync(join(root, path), 'utf8')));
    }
  }
  return tree;
}

export function isTest(path: string): boolean {
  return path.endsWith('.test.ts');
}

export function isGenerated(path: string): boolean {
  return path.includes('/gen/');
}

/** Where a relative reference leads, from the file that makes it. */
export function resolveFrom(path: string, reference: string): string {
  return posix.join(posix.dirname(path), reference);
}

/** Every file of the tree named by a string: an import, a worker's URL, a program to start. */
export function references(file: SourceFile, tree: SourceTree): string[] {
  const quoted = [...file.code.matchAll(/['"`]([^'"`\n]+\.(?:ts|mjs))['"`]/g)].map((m) => m[1]!);
  return quoted
    .flatMap((name) => [resolveFrom(file.path, name), posix.normalize(name)])
    .filter((path) => tree.has(path));
}

const PIECES = new RegExp(
  [
    /\/\*[\s\S]*?\*\//, // a block comment
    /\/\/[^\n]*/, // a line comment
    /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/, // a string
    /(?<=[=(,:!&|?{};[\n]\s*)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\//, // a pattern
  ]
    .map((piece) => piece.source)
    .join('|'),
  'g',
);

function withoutComments(text: string): string {
  return text.replace(PIECES, (piece) =>
    piece.startsWith('/*') || piece.startsWith('//') ? piece.replace(/[^\n]/g, ' ') : piece,
  );
}

function importsOf(code: string): string[] {
  const statements = /(?:^|[;\n}])\s*(?:import|export)\b[^;'"`]*?\bfrom\s*['"]([^'"]+)['"]/g;
  const sideEffects = /(?:^|[;\n])\s*import\s*['"]([^'"]+)['"]/g;
  const dynamic = /\b(?:import|require)\(\s*['"`]([^'"`]+)['"`]/g;
  return [statements, sideEffects, dynamic].flatMap((pattern) =>
    [...code.matchAll(pattern)].map((match) => match[1]!),
  );
}
