/**
 * From a path to a store of our own: look at the directory, ask whether its owner lives, scrub the
 * file, and only then let LMDB have it and claim it. Two that start at once meet at the claim, a
 * compare-and-set inside LMDB's own write lock: exactly one wins, also across namespaces.
 *
 * An owner that stands still is replaced the other way round: the claim comes first, for only then
 * is the file surely left alone while it is scrubbed.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { waitUntil } from '../../base/clock.ts';
import { systemClock, systemRandom } from '../../base/system.ts';
import { type ErrorCode, HoldfastError } from '../../model/errors.ts';
import { claimElsewhere } from './claim.ts';
import {
  DATA_FILE,
  type DirectoryOptions,
  prepareDirectory,
  readEra,
  syncDirectory,
  writeEra,
} from './directory.ts';
import { claimedElsewhere, openingFailed } from './failures.ts';
import {
  EMPTY_CHAIN,
  FORMAT_VERSION,
  type Head,
  NO_JOURNAL,
  type OwnerRecord,
  ownerText,
} from './format.ts';
import { recover, type SegmentRooms } from './journal.ts';
import { type Native, openNative } from './native.ts';
import {
  isAlive,
  isReplaceable,
  listenAsOwner,
  livingSockets,
  type OwnerSocket,
  socketsIn,
  sweepSockets,
} from './owner.ts';
import type { SyncPlace } from './pace.ts';
import { PageFile, truncated } from './pages.ts';
import { complete, type Inspection, inspect, scrubNow, withDataFile } from './scrub.ts';
import { LmdbStore } from './store.ts';
import { Tree } from './tree.ts';

export interface StoreOptions extends Partial<DirectoryOptions> {
  /**
   * Stores up to this size are read whole before the first answer; larger ones have their roots,
   * heads and branch pages checked, and the rest while they already serve.
   */
  readonly scrubBytesAtStart?: number;
  /** How large the segments of the journal are. */
  readonly journal?: SegmentRooms;
  /** Who waits for syncs; for trying both. */
  readonly syncs?: SyncPlace;
  /** This owner serves the others, and may be replaced when it does not answer any more. */
  readonly shared?: boolean;
  /** The socket of a shared owner that does not answer: the store is taken from it. */
  readonly standing?: string | undefined;
}

export const SCRUB_BYTES_AT_START: number = 64 * 2 ** 20;

export interface OpenedStore {
  readonly path: string;
  readonly store: LmdbStore;
  readonly tree: Tree;
  readonly native: Native;
  readonly owner: OwnerSocket;
  /** False: the leaves have still to be scrubbed. */
  readonly scrubbed: boolean;
  /** Ends the claim and the store. */
  close(): Promise<void>;
}

/** Who claimed the directory last, dead or alive; undefined: nobody ever did. */
export function lastOwner(path: string): OwnerRecord | undefined {
  return existsSync(join(path, DATA_FILE)) ? lookInto(path)?.owner : undefined;
}

export interface PresentOwner {
  readonly record: OwnerRecord;
  /** It has not yet folded what it found, and may be silent for longer than later on. */
  readonly opening: boolean;
}

/** The same for who looks while others write: nobody, when it cannot be told at this moment. */
export function presentOwner(path: string): PresentOwner | undefined {
  try {
    const seen = existsSync(join(path, DATA_FILE)) ? lookInto(path) : undefined;
    if (!seen?.head || !seen.owner) return undefined;
    return { record: seen.owner, opening: seen.head.journal.epoch < seen.head.ownerEpoch };
  } catch (error) {
    if (HoldfastError.is(error)) return undefined;
    throw openingFailed(path, error);
  }
}

/** How often to look again when somebody else changes the file meanwhile. */
const ATTEMPTS = 3;
/** A file that somebody works on changes within this. */
const MOTION_MS = 20;
/** What each of several takers gives those before it: a process is started and claims in it. */
const TURN_MS = 500;
const TURNS_MAX = 4;

export async function openStore(path: string, options: StoreOptions = {}): Promise<OpenedStore> {
  prepareDirectory(path, {
    create: options.create ?? true,
    allowFuse: options.allowFuse ?? false,
    warn: options.warn ?? ((message) => process.emitWarning(message, 'HoldfastWarning')),
  });
  for (let attempt = 1; ; attempt++) {
    const before = look(path);
    try {
      return await attemptToOpen(path, options);
    } catch (error) {
      const again = attempt < ATTEMPTS && (await inMotion(path, before, error));
      if (!again) throw openingFailed(path, error);
    }
  }
}

/**
 * Whether another process may explain the failure: it claimed or wrote while we looked. Then a
 * second look tells who it is, instead of an alarm about a file in motion.
 */
async function inMotion(path: string, before: string, error: unknown): Promise<boolean> {
  if (!HoldfastError.is(error)) return false;
  const { code, details } = error;
  const met = code === 'store-in-use' && details.owner === undefined;
  if (!met && !isDamage(code)) return false;
  // Not in step with others that met us.
  const pauseMs = MOTION_MS * (1 + systemRandom.next());
  await waitUntil(systemClock, systemClock.now() + pauseMs);
  return met || look(path) !== before;
}

function isDamage(code: ErrorCode): boolean {
  return code === 'corrupt' || code === 'store-truncated';
}

/** A short description of the file's state, equal when nothing happens to it. */
function look(path: string): string {
  try {
    const stat = statSync(join(path, DATA_FILE), { bigint: true });
    return `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
  } catch {
    return 'absent';
  }
}

async function attemptToOpen(path: string, options: StoreOptions): Promise<OpenedStore> {
  const seen = lookInto(path);
  const previous = seen?.owner;
  const living = previous !== undefined && (await isAlive(path, previous.socket));
  if (!living) return claimFree(path, seen, options);
  if (previous.socket !== options.standing || !isReplaceable(previous)) throw inUse(path, previous);
  return claimStanding(path, seen!, options);
}

/** Nobody else is there. */
async function claimFree(
  path: string,
  seen: Inspection | undefined,
  options: StoreOptions,
): Promise<OpenedStore> {
  return asOwner(path, options, async (owner, native) => {
    const file = seen?.unfinished ? await lookAlone(path, owner.record.socket) : seen;
    const scrubbed = file ? scrubFile(path, file, limitOf(options)) : true;
    // Whoever opens the file disturbs the one who has just claimed it: see `tree.ts`.
    ensureUnclaimed(path, seen?.owner?.socket);
    return { tree: Tree.claim(native(), file?.head, freshHead(), owner.record), scrubbed };
  });
}

/** Before a root is written without LMDB, whose lock keeps others from it. */
async function lookAlone(path: string, own: string): Promise<Inspection> {
  const living = await livingSockets(path);
  const seen = lookInto(path);
  if (living.every((name) => name === own) && seen?.unfinished) return seen;
  throw new HoldfastError('store-in-use', 'another process is about to claim the store');
}

function ensureUnclaimed(path: string, former: string | undefined): void {
  const now = presentOwner(path);
  if (now && now.record.socket !== former) throw claimedElsewhere();
}

/** Another process has the file open, and may go on with it until the claim stands. */
async function claimStanding(
  path: string,
  { head }: Inspection,
  options: StoreOptions,
): Promise<OpenedStore> {
  const { sequence, ownerEpoch } = head!;
  return asOwner(path, options, async (owner, native) => {
    await awaitTurn(path, options.standing!, owner.record.socket);
    await claimElsewhere(path, { sequence, ownerEpoch }, owner.record);
    const now = lookInto(path);
    // The claim stands in whole roots: this one was about to be written.
    if (now?.unfinished) throw claimedElsewhere();
    const scrubbed = now ? scrubFile(path, now, limitOf(options)) : true;
    return { tree: Tree.join(native(), ownerEpoch + 1), scrubbed };
  });
}

/**
 * One of several takers is enough, and each starts a process: they go in the order of their names,
 * and a step ahead of the next. Whoever stands still himself holds up nobody for longer.
 */
async function awaitTurn(path: string, former: string, own: string): Promise<void> {
  const living = await livingSockets(path);
  const ahead = living.filter((name) => name !== former && name < own).length;
  const turnMs = systemClock.now() + Math.min(ahead, TURNS_MAX) * TURN_MS;
  while (systemClock.now() < turnMs) {
    await waitUntil(systemClock, systemClock.now() + MOTION_MS);
    ensureUnclaimed(path, former);
  }
}

type Claim = (
  owner: OwnerSocket,
  native: () => Native,
) => Promise<Pick<OpenedStore, 'tree' | 'scrubbed'>>;

/** Listens, claims, and reads what the journal holds; leaves nothing behind when that fails. */
async function asOwner(path: string, options: StoreOptions, claim: Claim): Promise<OpenedStore> {
  const owner = await listenAsOwner(path, options.shared);
  const sockets = socketsIn(path);
  let native: Native | undefined;
  try {
    const { tree, scrubbed } = await claim(owner, () => {
      native = openNative(path);
      return native;
    });
    syncDirectory(path);
    writeEra(path, 0);
    sweepSockets(path, sockets, owner.record.socket);
    const store = await LmdbStore.open({
      path,
      tree,
      rooms: options.journal,
      syncs: options.syncs,
    });
    return opened(path, { store, tree, native: native!, owner, scrubbed });
  } catch (error) {
    await native?.close();
    await owner.close();
    throw error;
  }
}

function limitOf({ scrubBytesAtStart = SCRUB_BYTES_AT_START }: StoreOptions): number {
  return scrubBytesAtStart;
}

function opened(path: string, parts: Omit<OpenedStore, 'path' | 'close'>): OpenedStore {
  const { store, owner } = parts;
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await store.close();
    await owner.close();
  };
  return {
    ...parts,
    path,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/** The roots and heads of the data file; undefined when nothing has ever been committed here. */
function lookInto(path: string): Inspection | undefined {
  const file = join(path, DATA_FILE);
  if (!existsSync(file)) return undefined;
  const begun = readEra(path) !== undefined;
  if (statSync(file).size === 0) {
    // LMDB creates the file before it writes the roots; a kill in between leaves it empty.
    if (begun) throw truncated('the data file is empty');
    return undefined;
  }
  const seen = withDataFile(file, inspect);
  if (seen.head) return seen;
  if (begun) throw truncated('the data file holds no commit, but there have been some');
  return undefined;
}

/** Checks what must be known before LMDB may touch the file. True: all of it was read. */
function scrubFile(path: string, seen: Inspection, limit: number): boolean {
  const file = join(path, DATA_FILE);
  const full = seen.unfinished || seen.bytes <= limit;
  const summary = withDataFile(file, (fd) => {
    const pages = new PageFile(fd, seen.bytes, seen.pageSize, seen.bytes <= limit);
    return scrubNow(pages, seen, full);
  });
  if (seen.unfinished) complete(file, seen, summary);
  return full;
}

function freshHead(): Head {
  return {
    formatVersion: FORMAT_VERSION,
    storeId: new Uint8Array(randomBytes(16)),
    ownerEpoch: 1,
    sequence: 0,
    chain: EMPTY_CHAIN,
    records: 0,
    sum: 0,
    journal: NO_JOURNAL,
  };
}

export function inUse(path: string, owner: OwnerRecord): HoldfastError {
  const name = ownerText(owner);
  return new HoldfastError(
    'store-in-use',
    `the store at ${path} is in use by ${name}: stop it, use it through its server, or choose ` +
      'another directory',
    { owner: name },
  );
}

/** Reads everything and throws what is wrong. The store must not be in use. */
export async function verifyStore(path: string): Promise<VerifiedStore> {
  try {
    return await verified(path);
  } catch (error) {
    throw openingFailed(path, error);
  }
}

async function verified(path: string): Promise<VerifiedStore> {
  prepareDirectory(path, { create: false, allowFuse: true, warn: () => {} });
  const seen = lookInto(path);
  if (!seen?.head) throw new HoldfastError('store-not-found', `nothing was ever stored at ${path}`);
  if (seen.owner && (await isAlive(path, seen.owner.socket))) throw inUse(path, seen.owner);
  const summary = withDataFile(join(path, DATA_FILE), (fd) =>
    scrubNow(new PageFile(fd, seen.bytes, seen.pageSize, false), seen, true),
  );
  const { segments, batches } = recover(path, seen.head);
  return {
    formatVersion: seen.head.formatVersion,
    commits: seen.head.sequence,
    records: summary.records,
    bytes: seen.bytes,
    freeBytes: summary.freePages * seen.pageSize,
    lostBytes: summary.lostPages * seen.pageSize,
    unfinished: seen.unfinished,
    journalSegments: segments,
    journalBatches: batches.length,
  };
}

export interface VerifiedStore {
  readonly formatVersion: number;
  readonly commits: number;
  readonly records: number;
  readonly bytes: number;
  readonly freeBytes: number;
  /** Room that is neither used nor free; harmless. */
  readonly lostBytes: number;
  /** The last commit was interrupted at its root; the next start completes it. */
  readonly unfinished: boolean;
  /** What the next start folds into the data file; a store that was closed has no journal. */
  readonly journalSegments: number;
  readonly journalBatches: number;
}
