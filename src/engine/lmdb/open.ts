/** What `lmdb:` in a URL opens: `lmdb:./path`, `lmdb:/path`, `lmdb:///path`. */
import { resolve } from 'node:path';
import { HoldfastError } from '../../model/errors.ts';
import type { Engine } from '../contract.ts';
import { type LmdbOptions, openLmdbEngine } from './engine.ts';

export async function open(url: string, options: LmdbOptions = {}): Promise<Engine> {
  return openLmdbEngine(pathOf(url), options);
}

export function pathOf(url: string): string {
  const rest = url.startsWith('lmdb:') ? url.slice('lmdb:'.length) : url;
  const path = rest.startsWith('//') ? rest.slice(2) : rest;
  if (path === '') {
    throw new HoldfastError('invalid-argument', `${url} names no directory; write lmdb:./path`);
  }
  return resolve(path);
}
