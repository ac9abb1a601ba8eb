/**
 * Bugs that peers have had, planted into ours from outside: each stands between the recipes and
 * the line and changes what is sent or what is heard, so that the client as a whole behaves as if
 * it had the bug. The simulation must catch every one.
 */
import { text, utf8 } from '../../base/bytes.ts';
import { sleep } from '../../base/clock.ts';
import type { CallOptions, Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { LeaseGrant, LeaseGrantRequest, LeaseRenewal } from '../../model/lease.ts';
import { prefixRange } from '../../model/range.ts';
import { makeToken } from '../../model/token.ts';
import type {
  LeaseId,
  Operation,
  OperationResult,
  PutOperation,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Watch, WatchBatch, WatchRequest } from '../../model/watch.ts';
import type { Leader } from '../../recipes/election.ts';
import { EngineWrapper } from '../engine-wrapper.ts';
import type { ProcessClock } from './process-clock.ts';
import type { Observe } from './scenario.ts';
import type { Plant, SimulatedProcess } from './world.ts';

export interface PlantedBug {
  readonly name: string;
  /** Where a peer had it. */
  readonly seen: string;
  readonly plant?: Plant;
  readonly sleepyClocks?: boolean;
  readonly observe?: Observe;
}

type Sending = (request: TxnRequest) => Promise<TxnResult>;

/** An engine whose transactions go through `change`. */
function changingTxn(change: (request: TxnRequest, send: Sending) => Promise<TxnResult>): Plant {
  return (engine) =>
    new (class extends EngineWrapper {
      override txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
        return change(request, (changed) => this.inner.txn(changed, options));
      }
    })(engine);
}

class Renewing extends EngineWrapper {
  readonly #renew: (send: () => Promise<LeaseRenewal>, id: LeaseId) => Promise<LeaseRenewal>;

  constructor(
    inner: Engine,
    renew: (send: () => Promise<LeaseRenewal>, id: LeaseId) => Promise<LeaseRenewal>,
  ) {
    super(inner);
    this.#renew = renew;
  }

  override keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal> {
    return this.#renew(() => this.inner.keepAlive(id, options), id);
  }
}

/** Claims more TTL than the authority gave: `more` makes it of the TTL and when it was asked for. */
class Optimist extends EngineWrapper {
  readonly #more: (ttlMs: number, sentAtMs: number) => number;
  readonly #clock: ProcessClock;

  constructor(
    inner: Engine,
    clock: ProcessClock,
    more: (ttlMs: number, sentAtMs: number) => number,
  ) {
    super(inner);
    this.#clock = clock;
    this.#more = more;
  }

  override async grantLease(
    request: LeaseGrantRequest,
    options?: CallOptions,
  ): Promise<LeaseGrant> {
    const sentAtMs = this.#clock.now();
    const grant = await this.inner.grantLease(request, options);
    return { ...grant, ttlMs: this.#more(grant.ttlMs, sentAtMs) };
  }

  override async keepAlive(id: LeaseId, options?: CallOptions): Promise<LeaseRenewal> {
    const sentAtMs = this.#clock.now();
    const renewal = await this.inner.keepAlive(id, options);
    return { ...renewal, ttlMs: this.#more(renewal.ttlMs, sentAtMs) };
  }
}

/** Asks now and then, and believes what a reader that lags behind answers. */
async function* naiveObserver(
  { client, clock, random }: SimulatedProcess,
  signal: AbortSignal,
): AsyncGenerator<Leader | undefined, void, undefined> {
  const { engine } = client;
  while (!signal.aborted) {
    await sleep(clock, 500 + random.next() * 5_000);
    const range = { ...prefixRange(utf8('election/')), sortTarget: 'create' } as const;
    try {
      const { header } = await engine.range({ ...range, countOnly: true });
      const revision = Math.max(1, header.revision - random.integer(0, 60));
      const { kvs } = await engine.range({ ...range, revision });
      const [first] = kvs;
      const era = header.era;
      yield first && { ...first, token: makeToken(era, first.createRevision) };
    } catch (error) {
      if (!HoldfastError.is(error)) throw error;
    }
  }
}

/** Joins a line: takes it if empty, and otherwise puts a waiting claim. */
function isEntry({ compare = [], failure = [] }: TxnRequest): boolean {
  return compare.some((one) => one.end !== undefined) && failure[0]?.type === 'txn';
}

/** Reads the own claim again, and may mark it as held. */
function isConfirmation({ compare = [], success = [], failure }: TxnRequest): boolean {
  const own = compare.every((one) => one.target === 'create' && one.value > 0);
  return own && compare.length > 0 && !failure && success.every((one) => one.type === 'txn');
}

function isRelease({ compare = [], success = [], failure }: TxnRequest): boolean {
  return (
    compare.length === 1 &&
    compare[0]?.target === 'create' &&
    !failure &&
    success.length > 0 &&
    success.every((one) => one.type === 'delete')
  );
}

function lineOfKey(key: Uint8Array): Uint8Array {
  return key.subarray(0, key.lastIndexOf(0x2f) + 1);
}

function mapPuts(
  operations: readonly Operation[],
  change: (put: PutOperation) => PutOperation,
): Operation[] {
  return operations.map((one): Operation => {
    if (one.type === 'put') return change(one);
    if (one.type !== 'txn') return one;
    return { ...one, success: mapPuts(one.success ?? [], change) };
  });
}

function deadAfterBreak(watch: Watch): Watch {
  const iterate = (): AsyncIterator<WatchBatch> => {
    const inner = watch[Symbol.asyncIterator]();
    return { next: () => inner.next().catch(() => new Promise<never>(() => {})) };
  };
  return {
    created: watch.created,
    requestProgress: () => watch.requestProgress(),
    close: () => watch.close(),
    [Symbol.asyncDispose]: () => watch.close(),
    [Symbol.asyncIterator]: iterate,
  };
}

function withoutMarker(results: readonly OperationResult[]): readonly OperationResult[] {
  const [, ...rest] = results;
  return [{ type: 'range', kvs: [], more: false, count: 0 }, ...rest];
}

const FORGOTTEN_LEASES = new WeakMap<Engine, LeaseId>();

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'the own claim is not read again after waiting',
    seen: 'etcd 11456, 9921, 12547; the election recipe in every release',
    plant: changingTxn(async (request, send) => {
      const answer = await send(request);
      return isConfirmation(request) ? { ...answer, succeeded: true } : answer;
    }),
  },
  {
    name: 'the deadline counts from the receipt of the answer',
    seen: "Go's and Java's etcd clients (G7)",
    plant: (engine, clock) =>
      new Optimist(engine, clock, (ttl, sentAt) => ttl + clock.now() - sentAt),
  },
  {
    name: 'the deadline is twice the TTL away',
    seen: 'npm etcd3 (G7)',
    plant: (engine, clock) => new Optimist(engine, clock, (ttl) => ttl * 2),
  },
  {
    name: 'a renewal of an ended lease is reported as a success',
    seen: 'etcd 20590, 20616, 21638',
    plant: (engine) =>
      new Renewing(engine, async (send, id) => {
        try {
          return await send();
        } catch (error) {
          if (!HoldfastError.is(error, 'lease-not-found')) throw error;
          return { id, ttlMs: 1e9, header: { revision: 0, era: 0 } };
        }
      }),
  },
  {
    name: 'a renewal without an answer is taken for a success',
    seen: 'redisson 5698, ClickHouse 116690',
    plant: (engine) =>
      new Renewing(engine, async (send, id) => {
        try {
          return await send();
        } catch (error) {
          if (!HoldfastError.is(error, 'unavailable')) throw error;
          return { id, ttlMs: 1e9, header: { revision: 0, era: 0 } };
        }
      }),
  },
  {
    name: 'the clock stands still while the process is suspended',
    seen: 'leapmux 403, etcd 12291',
    sleepyClocks: true,
  },
  {
    name: 'a release removes whatever stands in the line',
    seen: "etcd's Unlock deletes any key; node-redlock 369",
    plant: changingTxn((request, send) => {
      const [first] = request.success ?? [];
      if (!isRelease(request) || first?.type !== 'delete') return send(request);
      return send({ success: [{ type: 'delete', ...prefixRange(lineOfKey(first.key)) }] });
    }),
  },
  {
    name: 'a release does not compare whose claim it is',
    seen: 'etcd Unlock; live-mutex 17, 29',
    plant: changingTxn((request, send) =>
      send(isRelease(request) ? { success: request.success ?? [] } : request),
    ),
  },
  {
    name: 'claims are attached to no lease',
    seen: 'locks stuck after a crash: consul 1290, live-mutex 17',
    plant: changingTxn((request, send) =>
      send({
        ...request,
        success: mapPuts(request.success ?? [], (put) => ({ ...put, lease: 0n })),
        failure: mapPuts(request.failure ?? [], (put) => ({ ...put, lease: 0n })),
      }),
    ),
  },
  {
    name: 'claims are attached to a lease that nobody renews',
    seen: 'dotnet-etcd 321: lease 0 in Lock and Campaign',
    plant: (engine) => {
      const attach = async (): Promise<LeaseId> => {
        const { id } = await engine.grantLease({ ttlMs: 60_000 });
        FORGOTTEN_LEASES.set(engine, id);
        return id;
      };
      const change = changingTxn(async (request, send) => {
        if (!isEntry(request)) return await send(request);
        const lease = FORGOTTEN_LEASES.get(engine) ?? (await attach());
        const put = (one: PutOperation): PutOperation => ({ ...one, lease });
        return await send({
          ...request,
          success: mapPuts(request.success ?? [], put),
          failure: mapPuts(request.failure ?? [], put),
        }).catch((error: unknown) => {
          FORGOTTEN_LEASES.delete(engine);
          throw HoldfastError.is(error, 'lease-not-found')
            ? new HoldfastError('unavailable', 'again')
            : error;
        });
      });
      return change(engine, undefined as never);
    },
  },
  {
    name: 'when the claim before is gone, the lock is taken without looking further',
    seen: 'curator 1121, 1193; every waiter must find its next predecessor',
    plant: (engine) =>
      new (class extends EngineWrapper {
        override async range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
          const answer = await this.inner.range(request, options);
          return request.maxCreateRevision ? { ...answer, kvs: [], more: false } : answer;
        }
      })(engine),
  },
  {
    name: 'the lock is taken without looking whether somebody has it',
    seen: 'rust etcd-client 14: every campaign completes',
    plant: changingTxn((request, send) =>
      send(isEntry(request) ? { ...request, compare: [] } : request),
    ),
  },
  {
    name: 'a waiting claim is marked as held',
    seen: 'local state wrong after a connection loss: curator 727',
    plant: changingTxn((request, send) => {
      const [hold] = request.success ?? [];
      if (!isEntry(request) || hold?.type !== 'put') return send(request);
      const { value } = hold;
      if (!value || !text(value).includes('holdfast-held')) return send(request);
      const failure = mapPuts(request.failure ?? [], (put) => ({ ...put, value }));
      return send({ ...request, failure });
    }),
  },
  {
    name: 'the token is the revision of some later answer',
    seen: "etcdctl exports the header's revision as ETCD_LOCK_REV",
    plant: (engine, clock) => {
      const real = new Map<number, number>();
      return changingTxn(async (request, send) => {
        const compare = (request.compare ?? []).map((one) =>
          one.target === 'create' && real.has(one.value)
            ? { ...one, value: real.get(one.value)! }
            : one,
        );
        const answer = await send({ ...request, compare });
        if (!isEntry(request) || !answer.succeeded) return answer;
        const later = answer.header.revision + 5;
        real.set(later, answer.header.revision);
        return { ...answer, header: { ...answer.header, revision: later } };
      })(engine, clock);
    },
  },
  {
    name: 'an observer believes a reader that lags behind',
    seen: 'etcd 15520, 17865; consul 5358',
    observe: naiveObserver,
  },
  {
    name: 'an addition whose answer was lost is made again',
    seen: 'etcd 18424, 12020; Jepsen on jetcd 0.8.2',
    plant: changingTxn(async (request, send) => {
      const answer = await send(request);
      const counts = request.compare?.some((one) => text(one.key).includes('/done/'));
      if (!counts || answer.succeeded) return answer;
      return { ...answer, results: withoutMarker(answer.results) };
    }),
  },
  {
    name: 'a watch that broke stays silent',
    seen: 'npm etcd3 31, 78, 114; etcd 8980',
    plant: (engine) =>
      new (class extends EngineWrapper {
        override watch(request: WatchRequest, options?: CallOptions): Watch {
          return deadAfterBreak(this.inner.watch(request, options));
        }
      })(engine),
  },
  {
    name: 'a watch begins now instead of where the line was read',
    seen: 'etcd 17529, 20655: events between read and watch are missed',
    plant: (engine) =>
      new (class extends EngineWrapper {
        override watch(request: WatchRequest, options?: CallOptions): Watch {
          return this.inner.watch({ ...request, startRevision: 0 }, options);
        }
      })(engine),
  },
];
