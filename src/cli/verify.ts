/** `holdfast verify`: reads every page and record of a store that nobody uses. */
import { parseArgs } from 'node:util';
import { verifyStore } from '../engine/lmdb/opening.ts';
import type { Command } from './command.ts';

export const command: Command = {
  about: 'check every page, record and link of a store',
  usage: `holdfast verify [DIR]

DIR is ./holdfast-data by default. Ends with 0 when every page, checksum and link of the chain is as it
was written; otherwise says what is damaged. Repairs nothing.`,
  async run(args) {
    const { positionals } = parseArgs({ args: [...args], allowPositionals: true });
    const directory = positionals[0] ?? './holdfast-data';
    console.log(`${directory}: sound`, await verifyStore(directory));
    return 0;
  },
};
