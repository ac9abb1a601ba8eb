/**
 * The owner's engine, as long as it is the owner's: what is answered from memory is answered only
 * after a look at who owns the store.
 *
 * The process may have been stopped, and replaced, between any two instructions. An answer that was
 * found before a look, and the look found the store still ours, was true at the look: nobody else
 * had claimed it, so nobody else had changed anything. That the answer then leaves late, after
 * another pause, is nothing but a slow answer. A look that fails voids what was found, errors too:
 * "no such lease" may be as wrong as a value.
 *
 * Writes need none of it here: the store looks after their sync, see `engine/lmdb/store.ts`.
 */
import type { CallOptions, Engine, Operator } from '../engine/contract.ts';
import type { LmdbEngine } from '../engine/lmdb/engine.ts';
import { mayWrite } from '../mvcc/check.ts';

export function ownedEngine(store: LmdbEngine): Engine {
  const sure = withLook(store);
  return {
    ...store,
    range: (request, call) => sure(store.range(request, call)),
    txn: (request, call) => {
      const result = store.txn(request, call);
      return mayWrite(request) ? result : sure(result);
    },
    keepAlive: (id, call) => sure(store.keepAlive(id, call)),
    leaseInfo: (id, call) => sure(store.leaseInfo(id, call)),
    status: (call?: CallOptions) => sure(store.status(call)),
    operator: ownedOperator(store.operator, sure),
    atOnce: {
      // The table looks before it is read.
      range: (request) => store.atOnce.range(request),
      keepAlive: (id) => {
        store.look();
        return store.atOnce.keepAlive(id);
      },
    },
  };
}

type Sure = <T>(answer: Promise<T>) => Promise<T>;

/** One look for all answers that were found in one go. */
function withLook(store: LmdbEngine): Sure {
  let looking: Promise<void> | undefined;
  const look = async (): Promise<void> => {
    await Promise.resolve();
    looking = undefined;
    store.ensureOwned();
  };
  return async (answer) => {
    try {
      return await answer;
    } finally {
      looking ??= look();
      await looking;
    }
  };
}

function ownedOperator(operator: Operator, sure: Sure): Operator {
  return {
    ...operator,
    leases: () => sure(operator.leases()),
    hash: (revision) => sure(operator.hash(revision)),
  };
}
