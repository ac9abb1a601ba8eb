/** What `memory:` in a URL opens. */
import type { Engine } from '../contract.ts';
import type { EmbeddedOptions } from '../options.ts';
import { openMemoryEngine } from './engine.ts';

export function open(_url: string, options: EmbeddedOptions = {}): Promise<Engine> {
  return openMemoryEngine(options);
}
