/** `memory:` — a real engine for tests and simulations; everything is gone with the process. */
import { type EmbeddedEngine, embeddedEngine } from '../embedded.ts';
import { type EmbeddedOptions, embeddedOptions } from '../options.ts';
import { MemoryStore } from './store.ts';

const KEY_BYTES_MAX = 65_536;

export function openMemoryEngine(options: EmbeddedOptions = {}): Promise<EmbeddedEngine> {
  return embeddedEngine(
    { ...embeddedOptions(options, KEY_BYTES_MAX), store: new MemoryStore(), term: 1n },
    { name: 'memory', durable: false, shared: false },
  );
}
