/**
 * A process that writes one key and looks at it all the time: when it was acknowledged, when a read
 * saw it first, when a watch told it. `bare` does the same on LMDB as the package opens it by
 * default.
 */
import { writeSync } from 'node:fs';
import { open as openLmdb } from 'lmdb';
import { utf8 } from '../../src/base/bytes.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';

export interface Seen {
  readonly acknowledgedMs: number;
  readonly readMs: number;
  /** Absent on LMDB alone, which has no watches. */
  readonly watchedMs?: number;
}

const [mode, path] = process.argv.slice(2);

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Milliseconds until `look` answers true, from `begun` on. */
async function until(begun: number, look: () => boolean | Promise<boolean>): Promise<number> {
  while (!(await look())) await pause(2);
  return performance.now() - begun;
}

async function onEngine(): Promise<Seen> {
  const engine = await openLmdbEngine(path!);
  const key = utf8('k');
  const watch = engine.watch({ key });
  await watch.created;
  const begun = performance.now();
  const watched = (async () => {
    for await (const _ of watch) return performance.now() - begun;
    return Number.NaN;
  })();
  const read = until(begun, async () => (await engine.range({ key })).kvs.length > 0);
  await engine.txn({ success: [{ type: 'put', key, value: utf8('v') }] });
  const acknowledgedMs = performance.now() - begun;
  const seen = { acknowledgedMs, readMs: await read, watchedMs: await watched };
  await engine.close();
  return seen;
}

async function onLmdb(): Promise<Seen> {
  const db = openLmdb({ path: path!, keyEncoding: 'binary', encoding: 'binary' });
  const key = Buffer.from('k');
  const begun = performance.now();
  const read = until(begun, () => db.get(key) !== undefined);
  await db.put(key, Buffer.from('v'));
  await db.flushed;
  const acknowledgedMs = performance.now() - begun;
  const seen = { acknowledgedMs, readMs: await read };
  await db.close();
  return seen;
}

writeSync(1, `${JSON.stringify(mode === 'bare' ? await onLmdb() : await onEngine())}\n`);
