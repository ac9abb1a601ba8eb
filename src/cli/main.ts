#!/usr/bin/env node
import { VERSION } from '../engine/options.ts';
/** `holdfast COMMAND …`: finds the command and turns what it throws into words and an exit code. */
import { HoldfastError } from '../model/errors.ts';
import type { Command } from './command.ts';

/** One file per command, loaded when it is called. */
const COMMANDS: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  serve: () => import('./serve.ts'),
  backup: () => import('./backup.ts'),
  restore: () => import('./restore.ts'),
  verify: () => import('./verify.ts'),
  guard: () => import('./guard.ts'),
  audit: () => import('./audit.ts'),
  'seal-keys': () => import('./seal-keys.ts'),
};

const EXIT_USAGE = 64;
const EXIT_UNAVAILABLE = 69;

async function help(): Promise<void> {
  console.log('holdfast: locks, leases and elections whose tokens the resource itself checks\n');
  for (const [name, load] of Object.entries(COMMANDS)) {
    console.log(`  holdfast ${name.padEnd(10)} ${(await load()).command.about}`);
  }
  console.log('\nholdfast COMMAND --help tells more. Without a command: serve.');
}

async function main(args: readonly string[]): Promise<number> {
  const [first = 'serve'] = args;
  if (first === '--help' || first === 'help') {
    await help();
    return 0;
  }
  if (first === '--version') {
    console.log(VERSION);
    return 0;
  }
  const named = first in COMMANDS;
  const load = COMMANDS[named ? first : 'serve']!;
  if (!named && !first.startsWith('-')) {
    console.error(`holdfast: there is no command "${first}"; see holdfast --help`);
    return EXIT_USAGE;
  }
  const { command } = await load();
  const rest = named ? args.slice(1) : args;
  if (rest.includes('--help')) {
    console.log(command.usage);
    return 0;
  }
  return command.run(rest);
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  if (HoldfastError.is(error)) {
    console.error(`holdfast: ${error.message}`);
    return error.code === 'invalid-argument' ? EXIT_USAGE : EXIT_UNAVAILABLE;
  }
  if ((error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS')) {
    console.error(`holdfast: ${(error as Error).message}`);
    return EXIT_USAGE;
  }
  console.error(error);
  return 1;
});
