/**
 * What this process is to a shared directory at the moment: its owner, or a guest of the owner.
 *
 * The owner has the store open and serves the others through the socket that shows it lives. A
 * guest is an ordinary client of that server. Whoever finds the owner gone tries to be the next;
 * the store's own claim decides between several (see `engine/lmdb/owner.ts`).
 */
import { join } from 'node:path';
import { sleep } from '../base/clock.ts';
import { deferred } from '../base/deferred.ts';
import { systemClock } from '../base/system.ts';
import type { Engine } from '../engine/contract.ts';
import { EtcdEngine } from '../engine/etcd/engine.ts';
import { type LmdbOptions, openLmdbEngine } from '../engine/lmdb/engine.ts';
import { lastOwner } from '../engine/lmdb/opening.ts';
import { socketAddress } from '../engine/lmdb/owner.ts';
import { HoldfastError } from '../model/errors.ts';
import { serve } from '../server/serve.ts';

export interface Membership {
  readonly role: 'owner' | 'guest';
  readonly engine: Engine;
  /** Resolves when a guest has lost its owner, also while it asks for nothing; else never. */
  readonly lost: Promise<void>;
  close(): Promise<void>;
}

/** Between two looks at a directory that changes hands. */
const LOOK_AGAIN_MS = 20;
/** A guest's call that the owner does not answer in this time: the owner stands still. */
const OWNER_ANSWERS_MS = 2_000;
/** To finish what guests have under way when the owner leaves. */
const LEAVE_GRACE_MS = 1_000;

/** Becomes the owner or somebody's guest; tries until `untilMs` on the system's clock. */
export async function joinDirectory(
  path: string,
  options: LmdbOptions,
  untilMs: number,
): Promise<Membership> {
  for (;;) {
    try {
      return await own(path, options);
    } catch (error) {
      if (!HoldfastError.is(error, 'store-in-use')) throw error;
      try {
        return await visit(path);
      } catch (refused) {
        if (!HoldfastError.is(refused, 'unavailable') || systemClock.now() > untilMs) throw refused;
      }
    }
    await sleep(systemClock, LOOK_AGAIN_MS);
  }
}

async function own(path: string, options: LmdbOptions): Promise<Membership> {
  const store = await openLmdbEngine(path, options);
  // A renewal is answered from memory: it must not come from one who has been replaced.
  const engine: Engine = {
    ...store,
    keepAlive: async (id, call) => {
      store.ensureOwned();
      return store.keepAlive(id, call);
    },
    atOnce: {
      range: (request) => store.atOnce.range(request),
      keepAlive: (id) => {
        store.ensureOwned();
        return store.atOnce.keepAlive(id);
      },
    },
  };
  const server = await serve({ engine, silent: true, trusted: true, name: 'shared' });
  store.owner.serve((socket) => server.accept(socket));
  return {
    role: 'owner',
    engine,
    lost: new Promise(() => {}),
    close: async () => {
      await server.drain(LEAVE_GRACE_MS);
      await store.close();
    },
  };
}

async function visit(path: string): Promise<Membership> {
  const owner = lastOwner(path);
  if (!owner) throw new HoldfastError('unavailable', `nobody owns ${path} yet`);
  const address = socketAddress(path, owner.socket);
  const lost = deferred<void>();
  try {
    const engine = await EtcdEngine.open({
      endpoints: [{ host: 'localhost', port: 0, path: address.path }],
      callTimeoutMs: OWNER_ANSWERS_MS,
      failFast: true,
      onDisconnect: () => lost.resolve(),
    });
    return {
      role: 'guest',
      engine,
      lost: lost.promise,
      close: async () => {
        await engine.close();
        address.release();
      },
    };
  } catch (error) {
    address.release();
    const failure = HoldfastError.from(error);
    const gone = failure.code === 'unavailable' || failure.code === 'deadline-exceeded';
    if (!gone) throw failure;
    const where = join(path, owner.socket);
    throw new HoldfastError('unavailable', `the owner at ${where} does not answer`, {
      cause: error,
    });
  }
}
