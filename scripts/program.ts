/**
 * How a program of this repository runs in a process of its own: from its sources, or from what
 * was compiled beside this file, whichever this process itself runs from.
 */
import { join } from 'node:path';

const FROM_SOURCES = import.meta.url.endsWith('.ts');

/** The arguments of `node` before those of the program; `name` is without its ending. */
export function programArguments(directory: string, name: string): string[] {
  if (!FROM_SOURCES) return [join(directory, `${name}.js`)];
  return ['--conditions=holdfast/source', '--import', 'tsx', join(directory, `${name}.ts`)];
}
