/** `holdfast backup`: the whole store at one revision as a file, from a server that goes on. */
import { open, rename, rm } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { parseEtcdUrl } from '../engine/etcd/config.ts';
import { EtcdEngine } from '../engine/etcd/engine.ts';
import { openLmdbEngine } from '../engine/lmdb/engine.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Command } from './command.ts';

export const command: Command = {
  about: 'save a store to a file while it is in use',
  usage: `holdfast backup FILE [--from URL]

  --from etcd://host:2379   a running server (the default: etcd://127.0.0.1:2379)
  --from lmdb:DIR           a directory that no process uses`,
  async run(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { from: { type: 'string', default: 'etcd://127.0.0.1:2379' } },
      allowPositionals: true,
    });
    const [target] = positionals;
    if (!target)
      throw new HoldfastError('invalid-argument', 'name the file to write: holdfast backup FILE');
    const bytes = await save(values.from, target);
    console.log(`${target}: ${bytes.toLocaleString('en-US')} bytes`);
    return 0;
  },
};

/** Written beside its place and moved there whole, so a broken backup never stands in for a good one. */
async function save(from: string, target: string): Promise<number> {
  const part = `${target}.part`;
  const file = await open(part, 'w', 0o600);
  let bytes = 0;
  try {
    for await (const chunk of source(from)) {
      await file.write(chunk);
      bytes += chunk.length;
    }
    await file.sync();
    await rename(part, target);
    return bytes;
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

async function* source(from: string): AsyncGenerator<Uint8Array> {
  if (from.startsWith('lmdb:')) {
    await using engine = await openLmdbEngine(from.slice('lmdb:'.length), { create: false });
    yield* engine.operator.backup();
    return;
  }
  await using engine = await EtcdEngine.open(parseEtcdUrl(from));
  yield* engine.snapshot();
}
