/**
 * Engines with a known bug each, most of them bugs that stores of this kind really had. A suite
 * that lets one of them pass would let the real bug pass.
 */
import { binaryString } from '../../src/base/bytes.ts';
import type { CallOptions, Engine } from '../../src/engine/contract.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { prefixRange } from '../../src/model/range.ts';
import type {
  Compare,
  Header,
  KeyValue,
  LeaseId,
  Operation,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
} from '../../src/model/transaction.ts';
import type { Watch, WatchBatch, WatchRequest } from '../../src/model/watch.ts';
import { EngineWrapper } from '../../src/testing/engine-wrapper.ts';

export interface Mutant {
  /** The bug, as a sentence. */
  readonly bug: string;
  /** Where it was seen. */
  readonly seen?: string;
  wrap(engine: Engine): Engine;
}

/** A watch whose batches pass through `change`; one batch may become none or several. */
function altered(watch: Watch, change: (batch: WatchBatch) => readonly WatchBatch[]): Watch {
  const waiting: WatchBatch[] = [];
  const inner = watch[Symbol.asyncIterator]();
  const next = async (): Promise<IteratorResult<WatchBatch>> => {
    for (;;) {
      const batch = waiting.shift();
      if (batch) return { done: false, value: batch };
      const result = await inner.next();
      if (result.done) return result;
      waiting.push(...change(result.value));
    }
  };
  return {
    created: watch.created,
    requestProgress: () => watch.requestProgress(),
    close: () => watch.close(),
    [Symbol.asyncDispose]: () => watch.close(),
    [Symbol.asyncIterator]: () => ({
      next,
      return: async () => {
        await watch.close();
        return { done: true, value: undefined };
      },
    }),
  };
}

/** A mutant that changes what watches tell; `tell` is made once per watch. */
function watchMutant(
  tell: (
    request: WatchRequest,
    engine: WatchTeller,
  ) => (batch: WatchBatch) => readonly WatchBatch[],
): (engine: Engine) => Engine {
  return (engine) => new WatchTeller(engine, tell);
}

/** Keeps what the mutants of watches need to know: where the store stands. */
class WatchTeller extends EngineWrapper {
  readonly #tell: (
    request: WatchRequest,
    engine: WatchTeller,
  ) => (batch: WatchBatch) => readonly WatchBatch[];
  revision = 0;
  compactRevision = 0;

  constructor(
    inner: Engine,
    tell: (request: WatchRequest, engine: WatchTeller) => (b: WatchBatch) => readonly WatchBatch[],
  ) {
    super(inner);
    this.#tell = tell;
  }

  override async txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    const result = await this.inner.txn(request, options);
    this.revision = result.header.revision;
    return result;
  }

  override async compact(revision: number): Promise<Header> {
    const header = await this.inner.compact(revision, { physical: true });
    this.compactRevision = revision;
    return header;
  }

  override watch(request: WatchRequest, options?: CallOptions): Watch {
    return altered(this.inner.watch(request, options), this.#tell(request, this));
  }
}

class FutureWatch extends WatchTeller {
  override watch(request: WatchRequest, options?: CallOptions): Watch {
    const future = (request.startRevision ?? 0) > this.revision;
    return this.inner.watch(future ? { ...request, startRevision: 0 } : request, options);
  }
}

class BoundRead extends EngineWrapper {
  #compactRevision = 0;

  override async compact(revision: number): Promise<Header> {
    const header = await this.inner.compact(revision);
    this.#compactRevision = revision;
    return header;
  }

  override range(request: RangeRequest): Promise<RangeResult> {
    const { revision = 0 } = request;
    if (revision > 0 && revision <= this.#compactRevision) {
      const compactRevision = this.#compactRevision;
      return Promise.reject(new HoldfastError('compacted', 'compacted', { compactRevision }));
    }
    return this.inner.range(request);
  }
}

class KeyByKeyRevoke extends EngineWrapper {
  override async revokeLease(id: LeaseId, options?: CallOptions): Promise<Header> {
    const { keys = [] } = await this.inner.leaseInfo(id, { keys: true });
    for (const key of keys) await this.inner.txn({ success: [{ type: 'delete', key }] });
    return this.inner.revokeLease(id, options);
  }
}

/** Adds the versions a key had in a former life. */
class VersionOn extends EngineWrapper {
  readonly #lives = new Map<string, KeyValue>();

  override async range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    const result = await this.inner.range(request, options);
    return { ...result, kvs: result.kvs.map((kv) => this.#age(kv)) };
  }

  #age(kv: KeyValue): KeyValue {
    const name = binaryString(kv.key);
    const former = this.#lives.get(name);
    if (!former || former.createRevision >= kv.createRevision) this.#lives.set(name, kv);
    else return { ...kv, version: kv.version + former.version };
    return kv;
  }
}

class RenewsTheDead extends EngineWrapper {
  override async keepAlive(id: LeaseId, options?: CallOptions) {
    try {
      return await this.inner.keepAlive(id, options);
    } catch (error) {
      if (!HoldfastError.is(error, 'lease-not-found')) throw error;
      const { header } = await this.inner.status();
      return { header, id, ttlMs: 5_000 };
    }
  }
}

class InfoRenews extends EngineWrapper {
  override async leaseInfo(id: LeaseId, options?: CallOptions & { readonly keys?: boolean }) {
    await this.inner.keepAlive(id);
    return this.inner.leaseInfo(id, options);
  }
}

class CountsTheCut extends EngineWrapper {
  override async range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    const result = await this.inner.range(request, options);
    return request.countOnly ? result : { ...result, count: result.kvs.length };
  }
}

class SortsTheCut extends EngineWrapper {
  override async range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    const { limit = 0 } = request;
    if (limit === 0 || request.sortTarget !== 'mod') return this.inner.range(request, options);
    const { sortTarget: _target, sortOrder: _order, ...unsorted } = request;
    const result = await this.inner.range(unsorted, options);
    const sign = request.sortOrder === 'descend' ? -1 : 1;
    const kvs = [...result.kvs].sort((a, b) => sign * (a.modRevision - b.modRevision));
    return { ...result, kvs };
  }
}

/** Every fortieth transaction is answered and forgotten. */
class LosesWrites extends EngineWrapper {
  #count = 0;

  override async txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    const [only] = request.success ?? [];
    const losable = request.success?.length === 1 && only?.type === 'put' && !only.prevKv;
    if (!losable || ++this.#count % 10 !== 0) return this.inner.txn(request, options);
    const { header } = await this.inner.range({ ...prefixRange(only.key), limit: 1 });
    const revision = header.revision + 1;
    const results = [{ type: 'put', prevKv: undefined }] as const;
    return { header: { ...header, revision }, succeeded: true, results };
  }
}

/** Every tenth read is answered from one revision ago. */
class StaleReads extends EngineWrapper {
  #count = 0;

  override async range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    const result = await this.inner.range(request, options);
    const { revision } = result.header;
    if (++this.#count % 10 !== 0 || request.revision || revision < 3) return result;
    const stale = await this.inner
      .range({ ...request, revision: revision - 1 }, options)
      .catch(() => result);
    return { ...stale, header: { ...stale.header, revision: revision - 1 } };
  }
}

class IgnoresUnknownLeases extends EngineWrapper {
  override async txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    try {
      return await this.inner.txn(request, options);
    } catch (error) {
      if (!HoldfastError.is(error, 'lease-not-found')) throw error;
      const bare = (op: Operation): Operation => (op.type === 'put' ? { ...op, lease: 0n } : op);
      return this.inner.txn({ ...request, success: (request.success ?? []).map(bare) }, options);
    }
  }
}

/** Nested transactions are carried out after the outer one, in a revision of their own. */
class TxnInPieces extends EngineWrapper {
  override async txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    const nested = request.success?.at(-1);
    if (nested?.type !== 'txn' || request.success?.length === 1) {
      return this.inner.txn(request, options);
    }
    const success = request.success!.slice(0, -1);
    const outer = await this.inner.txn({ ...request, success }, options);
    if (!outer.succeeded) return outer;
    const inner = await this.inner.txn(nested, options);
    const { succeeded, results } = inner;
    const whole = [...outer.results, { type: 'txn', succeeded, results } as const];
    return { header: inner.header, succeeded: true, results: whole };
  }
}

/** As if a nested "does not exist" had already seen the puts of the outer transaction. */
class NestedComparesLate extends EngineWrapper {
  override async txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    const made = new Set(
      (request.success ?? []).flatMap((op) => (op.type === 'put' ? [binaryString(op.key)] : [])),
    );
    const late = (compare: Compare): Compare =>
      compare.target === 'version' && compare.value === 0 && made.has(binaryString(compare.key))
        ? { ...compare, value: -1 }
        : compare;
    const success = (request.success ?? []).map(
      (op): Operation => (op.type === 'txn' ? { ...op, compare: op.compare?.map(late) ?? [] } : op),
    );
    return this.inner.txn({ ...request, success }, options);
  }
}

export const MUTANTS: readonly Mutant[] = [
  {
    bug: 'drops a batch of a busy watcher and goes on',
    seen: 'etcd-io/etcd#17529',
    wrap: watchMutant(() => {
      let count = 0;
      return (batch) => (batch.events.length > 0 && ++count % 5 === 0 ? [] : [batch]);
    }),
  },
  {
    bug: 'tells a batch twice',
    seen: 'etcd-io/etcd#17247',
    wrap: watchMutant(() => {
      let count = 0;
      return (batch) => (batch.events.length > 0 && ++count % 5 === 0 ? [batch, batch] : [batch]);
    }),
  },
  {
    bug: 'goes back to the start of the watch',
    seen: 'etcd-io/etcd#15271',
    wrap: watchMutant(() => {
      const told: WatchBatch[] = [];
      return (batch) => (told.push(batch) === 4 ? [...told] : [batch]);
    }),
  },
  {
    bug: 'sends progress ahead of the events it covers',
    seen: 'etcd-io/etcd#15220',
    wrap: watchMutant(() => (batch) => [{ header: batch.header, events: [] }, batch]),
  },
  {
    bug: 'sends progress below the start of a watch from the future',
    seen: 'etcd-io/etcd#20221',
    wrap: watchMutant(({ startRevision = 0 }, { revision }) => {
      let early = startRevision > revision + 1;
      return (batch) => {
        const below = early ? [{ header: { revision, era: 0 }, events: [] }] : [];
        early = false;
        return [...below, batch];
      };
    }),
  },
  {
    bug: 'tells old events to a watch from the future',
    seen: 'etcd-io/etcd#20221',
    wrap: (engine) => new FutureWatch(engine, () => (batch) => [batch]),
  },
  {
    bug: 'leaves out the deletes of the compact revision',
    seen: 'etcd-io/etcd#19179',
    wrap: watchMutant(({ startRevision = 0 }, { compactRevision }) => (batch) => {
      if (startRevision !== compactRevision) return [batch];
      const events = batch.events.filter(
        ({ type, kv }) => type === 'put' || kv.modRevision !== compactRevision,
      );
      return [{ ...batch, events }];
    }),
  },
  {
    bug: 'splits a revision over two batches',
    wrap: watchMutant(
      () =>
        ({ header, events }) =>
          events.length < 2
            ? [{ header, events }]
            : [
                { header, events: events.slice(0, 1) },
                { header, events: events.slice(1) },
              ],
    ),
  },
  {
    bug: 'answers the new pair as the previous one',
    wrap: watchMutant(() => ({ header, events }) => {
      const wrong = events.map((event) => (event.prevKv ? { ...event, prevKv: event.kv } : event));
      return [{ header, events: wrong }];
    }),
  },
  {
    bug: 'ignores the filters of a watch while catching up',
    wrap: (engine) => {
      const loose = new WatchTeller(engine, () => (batch) => [batch]);
      loose.watch = (request, options) =>
        engine.watch({ ...request, ...(request.startRevision && { noDelete: false }) }, options);
      return loose;
    },
  },
  {
    bug: 'refuses a read at the compact revision itself',
    seen: 'etcd-io/etcd#19179',
    wrap: (engine) => new BoundRead(engine),
  },
  {
    bug: 'deletes the keys of a lease one by one',
    wrap: (engine) => new KeyByKeyRevoke(engine),
  },
  {
    bug: 'goes on counting the versions of a deleted key',
    wrap: (engine) => new VersionOn(engine),
  },
  {
    bug: 'renews a lease that is gone',
    seen: 'etcd-io/etcd#20590',
    wrap: (engine) => new RenewsTheDead(engine),
  },
  {
    bug: 'renews a lease when asked about it',
    wrap: (engine) => new InfoRenews(engine),
  },
  {
    bug: 'takes a put with an unknown lease without its lease',
    seen: 'etcd-io/etcd#14239',
    wrap: (engine) => new IgnoresUnknownLeases(engine),
  },
  {
    bug: 'counts only what the limit left',
    wrap: (engine) => new CountsTheCut(engine),
  },
  {
    bug: 'sorts after cutting to the limit',
    wrap: (engine) => new SortsTheCut(engine),
  },
  {
    bug: 'loses a write it has answered',
    seen: 'etcd-io/etcd#14370',
    wrap: (engine) => new LosesWrites(engine),
  },
  {
    bug: 'answers a read from the past',
    seen: 'etcd-io/etcd#20418',
    wrap: (engine) => new StaleReads(engine),
  },
  {
    bug: 'commits a nested transaction on its own',
    wrap: (engine) => new TxnInPieces(engine),
  },
  {
    bug: 'compares inside a transaction after its writes',
    wrap: (engine) => new NestedComparesLate(engine),
  },
];
