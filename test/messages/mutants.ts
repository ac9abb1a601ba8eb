/** The wire broken on purpose: a copy of the source with one change, loaded beside the real one. */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { MESSAGES } from './arbitrary.ts';
import type { Wire } from './fuzz.ts';

/** A file of `src/wire`, and one change that breaks it. */
export type Mutant = readonly [file: string, from: string, to: string];

const MODULES = [
  ...['message-reader', 'metadata', 'request', 'response', 'status', 'timeout'].map(
    (m) => `grpc/${m}`,
  ),
  ...['codec', 'json', 'json-text'].map((m) => `messages/${m}`),
];
const GENERATED = [
  'audit',
  'auth',
  'authority',
  'election',
  'health',
  'kv',
  'lock',
  'rpc',
  'status',
];

/** Throws when the text to change is not there any more: a mutant that changes nothing shows nothing. */
export async function plant(scratch: string, mutant: Mutant, number: number): Promise<Wire> {
  const [file, from, to] = mutant;
  const home = join(scratch, `mutant-${number}`);
  await mkdir(join(home, 'wire'), { recursive: true });
  await writeFile(join(home, 'package.json'), '{"type":"module"}');
  for (const room of ['base', 'model', 'wire/http2', 'wire/grpc', 'wire/messages']) {
    await cp(resolve('src', room), join(home, room), { recursive: true });
  }
  const path = join(home, 'wire', file);
  const source = await readFile(path, 'utf8');
  const at = source.indexOf(from);
  if (at < 0) throw new Error(`the mutant of ${file} does not fit any more: ${from}`);
  await writeFile(path, source.slice(0, at) + to + source.slice(at + from.length));
  const load = async (name: string): Promise<object> =>
    (await import(pathToFileURL(join(home, 'wire', `${name}.ts`)).href)) as object;
  const parts = await Promise.all(MODULES.map(load));
  const generated = await Promise.all(GENERATED.map((name) => load(`messages/gen/${name}`)));
  const types = generated.flatMap((module) => Object.values(module) as unknown[]);
  const names = new Set(MESSAGES.map((type) => type.name));
  const messages = types.filter((type) =>
    names.has((type as { name?: string } | null)?.name ?? ''),
  );
  return Object.assign({}, ...parts, { messages }) as Wire;
}
