/** `holdfast seal-keys`: the keys of sealed tokens, for guards without a connection and for operators. */
import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { publicEd25519 } from '../base/ed25519.ts';
import { openEngine } from '../client.ts';
import { type FetchedSealKeys, fetchSealKeys } from '../guard/fetched-seal-keys.ts';
import { type SealKeySet, sealKeySet } from '../guard/seal.ts';
import { HoldfastError } from '../model/errors.ts';
import { type PublicSealKey, readSealKeys, writeSealKeys } from '../model/seal-keys.ts';
import type { Command } from './command.ts';

const USAGE = `holdfast seal-keys: the keys with which a server seals tokens

  holdfast seal-keys [--from URL] [--save FILE]
      shows the public keys, or saves them for guards that have no connection
      --from URL       where the server answers       (http://127.0.0.1:2379)
      --insecure       take keys over plain HTTP from another machine

  holdfast seal-keys rotate [--server URL] [--discard]
      the next key signs from now on; guards know it already
      --server URL     etcd://root:PASSWORD@host:2379 (etcd://127.0.0.1:2379)
      --discard        a key was stolen: all keys are new, and what the old ones signed is void as
                       soon as guards hear of it, after five minutes at the latest`;

const OPTIONS = {
  from: { type: 'string', default: 'http://127.0.0.1:2379' },
  save: { type: 'string' },
  insecure: { type: 'boolean', default: false },
  server: { type: 'string', default: 'etcd://127.0.0.1:2379' },
  discard: { type: 'boolean', default: false },
} as const;

export const command: Command = {
  about: 'show, save or rotate the keys of sealed tokens',
  usage: USAGE,
  async run(args) {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: OPTIONS,
      allowPositionals: true,
    });
    const [verb, ...more] = positionals;
    if (more.length > 0 || (verb !== undefined && verb !== 'rotate')) {
      throw new HoldfastError('invalid-argument', 'say holdfast seal-keys, or seal-keys rotate');
    }
    if (verb === 'rotate') await rotate(values.server, values.discard);
    else await show(values.from, values);
    return 0;
  },
};

async function rotate(url: string, discard: boolean): Promise<void> {
  await using engine = await openEngine(url);
  if (!engine.sealer) {
    throw new HoldfastError('unsupported', `${url} has no keys: only a Holdfast server seals`);
  }
  const { keyId, published } = await engine.sealer.rotate({ discard });
  console.log(`${keyId} signs from now on; published: ${published.join(', ')}`);
}

async function show(
  from: string,
  { save, insecure }: { readonly save?: string | undefined; readonly insecure: boolean },
): Promise<void> {
  const document = writeSealKeys(publicKeys(await fetchSealKeys(from, { insecure })));
  if (save === undefined) {
    console.log(document);
    return;
  }
  await writeFile(save, `${document}\n`);
  console.log(`${save}: ${readSealKeys(document).length} keys`);
}

function publicKeys({ verifiers }: SealKeySet): PublicSealKey[] {
  return [...verifiers].map(([id, key]) => ({ id, public: publicEd25519(key) }));
}

/** What `--seal-keys` of a guard names: an address, or a file that was saved. */
export async function sealKeysFrom(place: string): Promise<SealKeySet | FetchedSealKeys> {
  if (/^https?:/.test(place)) return await fetchSealKeys(place);
  const document = await readFile(place, 'utf8').catch((cause: Error) => {
    throw new HoldfastError('invalid-argument', `cannot read ${place}: ${cause.message}`, {
      cause,
    });
  });
  return sealKeySet(readSealKeys(document));
}
