/** Machines broken on purpose: a copy of the source with one change, loaded beside the real one. */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { MakeDecoder } from './fuzz.ts';
import type { MakeConnection } from './script.ts';

/** A file of the machine, and one change that breaks it. */
export type Mutant = readonly [file: string, from: string, to: string];

export interface BrokenMachine {
  readonly make: MakeConnection;
  readonly decoder: MakeDecoder;
}

/** Throws when the text to change is not there any more: a mutant that changes nothing shows nothing. */
export async function plant(
  scratch: string,
  mutant: Mutant,
  number: number,
): Promise<BrokenMachine> {
  const [file, from, to] = mutant;
  const home = join(scratch, `mutant-${number}`);
  await mkdir(join(home, 'wire'), { recursive: true });
  await writeFile(join(home, 'package.json'), '{"type":"module"}');
  for (const room of ['base', 'model', 'wire/http2']) {
    await cp(resolve('src', room), join(home, room), { recursive: true });
  }
  const path = join(home, 'wire/http2', file);
  const source = await readFile(path, 'utf8');
  const at = source.indexOf(from);
  if (at < 0) throw new Error(`the mutant of ${file} does not fit any more: ${from}`);
  await writeFile(path, source.slice(0, at) + to + source.slice(at + from.length));
  const load = (name: string): Promise<unknown> =>
    import(pathToFileURL(join(home, 'wire/http2', name)).href);
  const { Connection } = (await load(
    'connection.ts',
  )) as typeof import('../../src/wire/http2/connection.ts');
  const { HpackDecoder } = (await load(
    'hpack/decode.ts',
  )) as typeof import('../../src/wire/http2/hpack/decode.ts');
  return {
    make: (role, options) => new Connection(role, options),
    decoder: () => new HpackDecoder({ headerListBytes: 16_384, headers: 128 }),
  };
}
