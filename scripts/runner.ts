/** Runs one experiment of `prove/` or `bench/`, or one story of `examples/`; see experiment.ts. */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Arguments, parseArguments } from './arguments.ts';
import type { Context, Experiment, Report } from './experiment.ts';
import { install } from './packages.mjs';

/** Each kind is a folder, and what its files export. */
export const KINDS = {
  prove: { folder: 'prove', exported: 'experiment' },
  bench: { folder: 'bench', exported: 'experiment' },
  example: { folder: 'examples', exported: 'story' },
} as const;
export type Kind = keyof typeof KINDS;

/** Exit codes after sysexits.h. */
const USAGE = 64;
const UNAVAILABLE = 69;

export async function names(kind: Kind): Promise<string[]> {
  const { folder } = KINDS[kind];
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && /^[a-z0-9-]+\.ts$/.test(entry.name))
    .map((entry) => entry.name.slice(0, -3))
    .sort();
}

export async function load(kind: Kind, name: string): Promise<Experiment> {
  const { folder, exported } = KINDS[kind];
  // Compiled experiments stand beside a compiled runner.
  const url = new URL(`../${folder}/${name}${extname(import.meta.url)}`, import.meta.url).href;
  const module = (await import(url)) as Record<string, Experiment | undefined>;
  const found = module[exported];
  if (!found) throw new Error(`${folder}/${name}.ts exports no \`${exported}\``);
  return found;
}

async function list(kind: Kind): Promise<void> {
  for (const name of await names(kind)) {
    console.log(`${name.padEnd(20)} ${(await load(kind, name)).about}`);
  }
}

/** Runs it in a scratch directory and undoes what it registered, also when it is interrupted. */
async function perform(
  experiment: Experiment,
  name: string,
  { options }: Arguments,
): Promise<Report & { readonly seed: number }> {
  const undo: (() => unknown)[] = [];
  const scratch = await mkdtemp(join(tmpdir(), `holdfast-${name}-`));
  const seed = Number(options.seed ?? Date.now() % 2 ** 31);
  const cleanUp = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) {
      await Promise.resolve()
        .then(step)
        .catch((error: unknown) => console.error('cleaning up:', error));
    }
    await rm(scratch, { recursive: true, force: true });
  };
  const interrupt = (): void => void cleanUp().finally(() => process.exit(130));
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    const context: Context = {
      long: options.long === true,
      options,
      scratch,
      seed,
      log: (line) => console.log(line),
      cleanup: (step) => undo.push(step),
    };
    return { ...(await experiment.run(context)), seed };
  } finally {
    await cleanUp();
  }
}

function shown(value: Report['figures'][string] | undefined): string {
  return typeof value === 'number' ? value.toLocaleString('en-US') : String(value ?? '');
}

function print(label: string, figures: Report['figures']): void {
  for (const [name, value] of Object.entries(figures)) {
    console.log(`  ${label}${name.padEnd(44)} ${shown(value)}`);
  }
}

function printSideBySide({ figures, control }: Report): void {
  const row = (...cells: [string, string, string]): void =>
    console.log(`  ${cells[0].padEnd(34)} ${cells[1].padStart(16)} ${cells[2].padStart(16)}`);
  row('', 'with the guard', 'without');
  for (const name of new Set([...Object.keys(figures), ...Object.keys(control)])) {
    row(name, shown(figures[name]), shown(control[name]));
  }
}

async function run(kind: Kind, name: string, given: Arguments): Promise<number> {
  const experiment = await load(kind, name);
  const lacking = install({ ...experiment.needs });
  if (lacking.length > 0) {
    console.error(`${name} needs these Debian packages: ${lacking.join(', ')}`);
    return UNAVAILABLE;
  }
  const { seed, ...report } = await perform(experiment, name, given);
  if (kind === 'example') {
    console.log('');
    printSideBySide(report);
  } else {
    console.log(`\n${kind} ${name}: ${report.ok ? 'held' : 'FAILED'} (seed ${seed})`);
    print('', report.figures);
    print('control: ', report.control);
  }
  if (given.options.json) console.log(JSON.stringify({ name, ...report }));
  return report.ok ? 0 : 1;
}

async function main(words: readonly string[]): Promise<number> {
  const [kind = '', ...rest] = words;
  if (!(kind in KINDS)) {
    console.error(`usage: npm run ${Object.keys(KINDS).join('|')} -- NAME | --list`);
    return USAGE;
  }
  const given = parseArguments(rest);
  const name = given.words[0];
  if (given.options.list || !name) {
    await list(kind as Kind);
    return given.options.list ? 0 : USAGE;
  }
  if (!(await names(kind as Kind)).includes(name)) {
    console.error(`there is no "${name}"; see npm run ${kind} -- --list`);
    return USAGE;
  }
  return await run(kind as Kind, name, given);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  process.exit(
    await main(process.argv.slice(2)).catch((error: unknown) => {
      console.error(error);
      return 1;
    }),
  );
}
