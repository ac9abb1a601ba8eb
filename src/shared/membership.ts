/**
 * What this process is to a shared directory at the moment: its owner, or a guest of the owner.
 *
 * The owner has the store open and serves the others through the socket that shows it lives. A
 * guest is an ordinary client of that server. Whoever finds the owner gone, or standing still for
 * longer than patience lasts, tries to be the next; the store's own claim decides between several
 * (see `engine/lmdb/owner.ts`).
 */
import { join } from 'node:path';
import { sleep } from '../base/clock.ts';
import { type Deferred, deferred } from '../base/deferred.ts';
import { systemClock } from '../base/system.ts';
import type { Engine } from '../engine/contract.ts';
import { EtcdEngine } from '../engine/etcd/engine.ts';
import { type LmdbEngine, type LmdbOptions, openLmdbEngine } from '../engine/lmdb/engine.ts';
import { openingFailed } from '../engine/lmdb/failures.ts';
import type { OwnerRecord } from '../engine/lmdb/format.ts';
import { inUse, presentOwner } from '../engine/lmdb/opening.ts';
import { socketAddress } from '../engine/lmdb/owner.ts';
import { HoldfastError } from '../model/errors.ts';
import type { RangeRequest } from '../model/transaction.ts';
import { serve } from '../server/serve.ts';
import { ownedEngine } from './owned.ts';
import { patience, watchForSigns } from './signs-of-life.ts';

/** Why a membership is of no use any more. */
export interface Loss {
  /** The socket of an owner that stands still; absent: the owner is gone, or replaced. */
  readonly standing?: string;
}

export interface Membership {
  readonly role: 'owner' | 'guest';
  readonly engine: Engine;
  /** Resolves when it is lost, also while this process asks for nothing. */
  readonly lost: Promise<Loss>;
  close(): Promise<void>;
}

export interface JoinOptions {
  readonly store: LmdbOptions;
  /** An owner that is silent for so long stands still. */
  readonly standstillMs: number;
  /** On the system's clock: until then it is tried. */
  readonly untilMs: number;
  /** The socket of an owner that is known to stand still. */
  readonly standing?: string | undefined;
}

/** Between two looks at a directory that changes hands. */
const LOOK_AGAIN_MS = 20;
/** A guest's call that the owner does not answer in this time: the owner stands still. */
const OWNER_ANSWERS_MS = 2_000;
/** To finish what guests have under way when the owner leaves. */
const LEAVE_GRACE_MS = 1_000;
/** A visit listens for so long; the connection has its own patience, which is longer. */
const LISTEN_MS_MAX = 1_000;
/** A question that costs nothing to answer. */
const SIGN_OF_LIFE: RangeRequest = { key: Uint8Array.of(0x61), keysOnly: true };
const NONE: Silence = { socket: '', ms: 0 };
/** Whoever folds a long journal before its first answer is silent for longer than others may be. */
const OPENING_PATIENCE = 8;

/** Of an owner whose socket lives: for how long it has said nothing. */
interface Silence {
  readonly socket: string;
  readonly ms: number;
}

/** Becomes the owner or somebody's guest. */
export async function joinDirectory(path: string, options: JoinOptions): Promise<Membership> {
  try {
    return await becomeMember(path, options);
  } catch (error) {
    throw openingFailed(path, error);
  }
}

async function becomeMember(path: string, options: JoinOptions): Promise<Membership> {
  let silence = options.standing
    ? { socket: options.standing, ms: Number.POSITIVE_INFINITY }
    : NONE;
  for (;;) {
    let held: HoldfastError;
    try {
      return await own(path, standing(path, silence, options), options);
    } catch (error) {
      if (!isHeld(error)) throw error;
      held = error;
    }
    const visited = await visit(path, options);
    if ('engine' in visited) return visited;
    if (systemClock.now() > options.untilMs) throw given(visited.refused, held);
    const { socket, ms } = visited.silence;
    silence = { socket, ms: socket === silence.socket ? silence.ms + ms : ms };
    await sleep(systemClock, LOOK_AGAIN_MS);
  }
}

/** The socket of an owner whose silence has lasted too long. */
function standing(path: string, { socket, ms }: Silence, options: JoinOptions): string | undefined {
  if (ms === 0) return undefined;
  const patienceMs = options.standstillMs * (presentOwner(path)?.opening ? OPENING_PATIENCE : 1);
  return ms >= patienceMs ? socket : undefined;
}

/** Somebody owns the directory, or holds up whoever wants to. */
function isHeld(error: unknown): error is HoldfastError {
  return HoldfastError.is(error, 'store-in-use') || HoldfastError.is(error, 'unavailable');
}

/** What a caller hears when the time is up: why he is nobody's guest, and why not the owner. */
function given(refused: HoldfastError, held: HoldfastError): HoldfastError {
  const message = `${refused.message}, and it could not be had: ${held.message}`;
  return new HoldfastError('unavailable', message, { cause: refused.cause ?? held });
}

async function own(
  path: string,
  standing: string | undefined,
  { store: options, standstillMs }: JoinOptions,
): Promise<Membership> {
  const store = await openLmdbEngine(path, { ...options, shared: true, standing });
  try {
    return await serveOthers(store, standstillMs);
  } catch (error) {
    await store.close();
    // It may have stood still itself meanwhile.
    const owner = presentOwner(path)?.record;
    throw owner && owner.socket !== store.owner.record.socket ? inUse(path, owner) : error;
  }
}

async function serveOthers(store: LmdbEngine, standstillMs: number): Promise<Membership> {
  const engine = ownedEngine(store);
  const server = await serve({ engine, silent: true, trusted: true, name: 'shared' });
  store.owner.serve((socket) => server.accept(socket));
  const lost = deferred<Loss>();
  // Who asks the store for nothing must hear all the same that another has it; and nothing else: a
  // store that has found damage stays, and says so.
  const stop = watchForSigns({
    clock: systemClock,
    patienceMs: standstillMs,
    ask: async () => store.look(),
    failed: () => lost.resolve({}),
  });
  return {
    role: 'owner',
    engine,
    lost: lost.promise,
    close: async () => {
      stop();
      await server.drain(LEAVE_GRACE_MS);
      await store.close();
    },
  };
}

/** A visit that came to nothing. */
interface Refused {
  readonly refused: HoldfastError;
  readonly silence: Silence;
}

async function visit(path: string, options: JoinOptions): Promise<Membership | Refused> {
  const owner = presentOwner(path)?.record;
  if (!owner) return refused(`nobody owns ${path} yet`);
  const address = socketAddress(path, owner.socket);
  const lost = deferred<Loss>();
  const listenMs = Math.min(options.standstillMs, LISTEN_MS_MAX);
  try {
    const opening = EtcdEngine.open({
      endpoints: [{ host: 'localhost', port: 0, path: address.path }],
      callTimeoutMs: OWNER_ANSWERS_MS,
      failFast: true,
      onDisconnect: () => lost.resolve({}),
    });
    const engine = await Promise.race([opening, patience(systemClock, listenMs)]);
    if (engine) return guest({ engine, owner, lost, release: address.release }, options);
    opening.then((late) => late.close()).catch(() => {});
  } catch (error) {
    address.release();
    const failure = HoldfastError.from(error);
    const gone = failure.code === 'unavailable' || failure.code === 'deadline-exceeded';
    if (!gone) throw failure;
    return refused(`the owner at ${join(path, owner.socket)} does not answer`, failure);
  }
  address.release();
  const silence = { socket: owner.socket, ms: listenMs };
  return { ...refused(`the owner at ${join(path, owner.socket)} stands still`), silence };
}

function refused(message: string, cause?: HoldfastError): Refused {
  return { refused: new HoldfastError('unavailable', message, { cause }), silence: NONE };
}

interface Guest {
  readonly engine: Engine;
  readonly owner: OwnerRecord;
  readonly lost: Deferred<Loss>;
  release(): void;
}

function guest({ engine, owner, lost, release }: Guest, { standstillMs }: JoinOptions): Membership {
  const stop = watchForSigns({
    clock: systemClock,
    patienceMs: standstillMs,
    ask: () => engine.range(SIGN_OF_LIFE),
    failed: (how) => lost.resolve(how === 'silent' ? { standing: owner.socket } : {}),
  });
  return {
    role: 'guest',
    engine,
    lost: lost.promise,
    close: async () => {
      stop();
      await engine.close();
      release();
    },
  };
}
