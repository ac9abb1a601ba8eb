/**
 * From a backup to a directory that can be opened: everything is built beside the store, synced,
 * and only then put in its place, so a damaged backup or a crash leaves what was there.
 *
 * The era of the result is above the backup's, above every era this directory has seen (its witness
 * file survives the exchange) and at least what the operator asks for. The witness is raised before
 * the data is exchanged: a crash between the two wastes an era, the other order could reuse one.
 */
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Bytes } from '../../base/bytes.ts';
import { makeDirectory } from '../../base/directories.ts';
import { LOCK_FILE } from '../../base/lmdb-note.ts';
import { HoldfastError } from '../../model/errors.ts';
import { ERA_MAX } from '../../model/token.ts';
import { type BackupEntry, readBackup, restoredState } from '../../mvcc/backup.ts';
import { encodeState, STATE_KEY, type State } from '../../mvcc/layout.ts';
import { checkFileSystem, DATA_FILE, readEra, syncDirectory, writeEra } from './directory.ts';
import { openingFailed } from './failures.ts';
import { type OpenedStore, openStore } from './opening.ts';
import { livingSockets } from './owner.ts';
import type { Tree } from './tree.ts';

export interface RestoreOptions {
  /** The new era is at least this; for a directory that cannot know what others issued. */
  readonly eraAtLeast?: number;
  readonly allowFuse?: boolean;
}

export interface Restored {
  readonly era: number;
  /** The first revision of the restored history; what was before it counts as compacted. */
  readonly revision: number;
  readonly records: number;
}

const UNUSABLE: ReadonlySet<string> = new Set([
  'corrupt',
  'not-a-store',
  'store-truncated',
  'store-too-new',
]);

const BUILDING = /^restoring-[0-9]+$/;

/** Replaces what is at `path` (nothing, or a store that nobody uses) by what the backup holds. */
export async function restore(
  backup: AsyncIterable<Bytes> | Iterable<Bytes>,
  path: string,
  options: RestoreOptions = {},
): Promise<Restored> {
  onDisk(path, () => {
    makeDirectory(path, 0o700);
    checkFileSystem(path, options.allowFuse ?? false);
  });
  await refuseIfUsed(path);
  onDisk(path, () => sweepBuildings(path));
  const building = join(path, `restoring-${process.pid}`);
  try {
    const known = readEra(path) ?? -1;
    const { state, records } = await build(
      backup,
      building,
      Math.max(known, options.eraAtLeast ?? 0),
    );
    const held = await hold(path);
    try {
      onDisk(path, () => {
        writeEra(path, state.era);
        exchange(building, path);
      });
    } finally {
      await held?.close();
    }
    return { era: state.era, revision: state.revision, records };
  } finally {
    rmSync(building, { recursive: true, force: true });
  }
}

function onDisk(path: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw openingFailed(path, error);
  }
}

async function refuseIfUsed(path: string): Promise<void> {
  const living = await livingSockets(path);
  if (living.length === 0) return;
  throw new HoldfastError(
    'store-in-use',
    `the store at ${path} is in use (its owner listens on ${living[0]}): stop the owner first`,
    { owner: living[0]! },
  );
}

/**
 * Owns what is there while it is exchanged, so that nobody starts on the old data in that moment.
 * What cannot be opened because it is damaged cannot be started on either.
 */
async function hold(path: string): Promise<OpenedStore | undefined> {
  try {
    return await openStore(path, { create: true, allowFuse: true });
  } catch (error) {
    if (HoldfastError.is(error) && UNUSABLE.has(error.code)) return undefined;
    throw error;
  }
}

/** What an interrupted restore left. */
function sweepBuildings(path: string): void {
  for (const name of readdirSync(path)) {
    if (BUILDING.test(name)) rmSync(join(path, name), { recursive: true, force: true });
  }
}

async function build(
  backup: AsyncIterable<Bytes> | Iterable<Bytes>,
  building: string,
  eraKnown: number,
): Promise<{ state: State; records: number }> {
  const opened = await openStore(building, { create: true, allowFuse: true });
  try {
    const { found, records } = await load(backup, opened.tree);
    const era = Math.max(found.era, eraKnown) + 1;
    if (era > ERA_MAX) {
      throw new HoldfastError('invalid-argument', `there is no era after ${ERA_MAX}`);
    }
    const state = restoredState(found, era);
    await opened.store.commit((table) => table.put(STATE_KEY, encodeState(state)));
    return { state, records };
  } finally {
    await opened.close();
  }
}

/** Writes as it reads; the whole is of use only after the stream's end has been verified. */
async function load(
  backup: AsyncIterable<Bytes> | Iterable<Bytes>,
  tree: Tree,
): Promise<{ found: State; records: number }> {
  const reader = readBackup(backup);
  let records = 0;
  for (;;) {
    const step = await reader.next();
    if (step.done) return { found: step.value, records };
    const entries = step.value;
    records += entries.length;
    tree.fold((table) => putAll(table, entries), tree.head.journal);
  }
}

function putAll(
  table: { put(key: Bytes, value: Bytes): void },
  entries: readonly BackupEntry[],
): void {
  for (const { key, value } of entries) table.put(key, value);
}

/** One rename decides: before it the old store stands, after it the new one. */
function exchange(building: string, path: string): void {
  // LMDB makes a new lock file; the old one belongs to the old data.
  if (existsSync(join(path, LOCK_FILE))) rmSync(join(path, LOCK_FILE));
  renameSync(join(building, DATA_FILE), join(path, DATA_FILE));
  syncDirectory(path);
}
