/** `holdfast restore`: a directory from a backup, in a new era. */
import { createReadStream } from 'node:fs';
import { parseArgs } from 'node:util';
import { restore } from '../engine/lmdb/restore.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Command } from './command.ts';

export const command: Command = {
  about: 'make a store from a backup, in a new era',
  usage: `holdfast restore FILE DIR [--era-at-least N]

Replaces what is in DIR. The era rises above every era that DIR has seen, so that every token granted
from now on is greater than every token of the lost history. On a machine that has never seen that
history, say the last era it had with --era-at-least.`,
  async run(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { 'era-at-least': { type: 'string' } },
      allowPositionals: true,
    });
    const [file, directory] = positionals;
    if (!file || !directory) {
      throw new HoldfastError('invalid-argument', 'say what and where: holdfast restore FILE DIR');
    }
    const era = values['era-at-least'];
    const eraAtLeast = Number(era ?? 0);
    if (!Number.isInteger(eraAtLeast) || eraAtLeast < 0) {
      throw new HoldfastError(
        'invalid-argument',
        `--era-at-least takes a whole number, not ${era}`,
      );
    }
    const done = await restore(createReadStream(file), directory, { eraAtLeast });
    console.log(
      `${directory}: ${done.records.toLocaleString('en-US')} records, revision ${done.revision}, era ${done.era}`,
    );
    return 0;
  },
};
