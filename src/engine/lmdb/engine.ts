/** `lmdb:` — the embedded engine: the rules of `mvcc` on a durable table owned by this process. */
import { systemClock } from '../../base/system.ts';
import type { Header } from '../../model/transaction.ts';
import { type EmbeddedEngine, embeddedEngine } from '../embedded.ts';
import { type EmbeddedOptions, embeddedOptions } from '../options.ts';
import { type BackgroundScrub, scrubInBackground } from './background.ts';
import { readEra, writeEra } from './directory.ts';
import { type OpenedStore, openStore, type StoreOptions } from './opening.ts';
import type { OwnerSocket } from './owner.ts';

export interface LmdbOptions extends EmbeddedOptions, StoreOptions {}

export interface LmdbEngine extends EmbeddedEngine {
  readonly path: string;
  /** Resolves when every record has been read once since the start; rejects on damage. */
  readonly scrubbed: Promise<void>;
  /** The socket by which other processes of this machine know that the owner lives. */
  readonly owner: OwnerSocket;
  /** Throws when another process has taken the store over; for answers that commit nothing. */
  ensureOwned(): void;
  /** The same, once for all that runs without giving way; for requests that were there before. */
  look(): void;
}

/** LMDB's bound for pages of 4 KiB, less what the rules add to a key. */
const KEY_BYTES_MAX = 1_960;

export async function openLmdbEngine(path: string, options: LmdbOptions = {}): Promise<LmdbEngine> {
  const opened = await openStore(path, options);
  try {
    return await engineOn(opened, options);
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function engineOn(opened: OpenedStore, options: LmdbOptions): Promise<LmdbEngine> {
  const { path, store, owner } = opened;
  const engine = await embeddedEngine(
    {
      ...embeddedOptions(options, KEY_BYTES_MAX),
      store,
      term: BigInt(store.head.ownerEpoch),
    },
    { name: 'lmdb', durable: true, shared: false },
  );
  await agreeOnEra(path, engine);
  const clock = options.clock ?? systemClock;
  const scrub = opened.scrubbed ? undefined : scrubInBackground({ path, store, clock });
  const close = closer(opened, engine, scrub);
  return {
    ...engine,
    path,
    owner,
    ensureOwned: () => store.ensureOwned(),
    look: () => store.look(),
    scrubbed: finished(scrub),
    liftEra: async (era, call) => lifted(path, await engine.liftEra(era, call)),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/**
 * The directory remembers the highest era it has seen. A data file that is behind it has been put
 * there by hand from an older copy, and may have issued tokens before that it does not know of.
 */
async function agreeOnEra(path: string, engine: EmbeddedEngine): Promise<void> {
  const witness = readEra(path) ?? 0;
  const { header } = await engine.status();
  if (header.era < witness) await engine.liftEra(witness + 1);
  writeEra(path, Math.max(header.era, header.era < witness ? witness + 1 : 0));
}

/** The witness is written after the store: it may lag behind by a crash, never run ahead. */
function lifted(path: string, header: Header): Header {
  writeEra(path, header.era);
  return header;
}

function closer(
  opened: OpenedStore,
  engine: EmbeddedEngine,
  scrub: BackgroundScrub | undefined,
): () => Promise<void> {
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    scrub?.stop();
    await scrub?.done.catch(() => {});
    await engine.close();
    await opened.close();
  };
  return () => {
    closing ??= close();
    return closing;
  };
}

function finished(scrub: BackgroundScrub | undefined): Promise<void> {
  const done = scrub ? scrub.done.then(() => {}) : Promise.resolve();
  done.catch(() => {});
  return done;
}
