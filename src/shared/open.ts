/** What `lmdb:` in a URL opens: the shared form, or with `exclusive` the strict one. */
import type { Engine } from '../engine/contract.ts';
import { open as openExclusive, pathOf } from '../engine/lmdb/open.ts';
import { SharedEngine, type SharedOptions } from './shared-engine.ts';

export interface LmdbUrlOptions extends SharedOptions {
  /** Refuse a directory that another process owns instead of becoming its guest. */
  readonly exclusive?: boolean;
}

export function open(url: string, options: LmdbUrlOptions = {}): Promise<Engine> {
  const { exclusive = false, ...shared } = options;
  return exclusive ? openExclusive(url, shared) : SharedEngine.open(pathOf(url), shared);
}
