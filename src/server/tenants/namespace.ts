/**
 * A view of an engine in which a caller sees only what is its own.
 *
 * Each request is rewritten once on its way in and each answer on its way out; revisions stay those
 * of the one history. What a namespace cannot name it cannot reach: the ends of ranges, "everything
 * from here" included, stop at its borders.
 */
import { type Bytes, concatBytes, escapedLength } from '../../base/bytes.ts';
import type { CallOptions, Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { LeaseInfo } from '../../model/lease.ts';
import { type KeyRange, prefixEnd } from '../../model/range.ts';
import type {
  Compare,
  KeyValue,
  LeaseId,
  NestedTransaction,
  Operation,
  OperationResult,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Watch, WatchBatch, WatchRequest } from '../../model/watch.ts';

export abstract class Namespace {
  /** How many bytes of every key are taken by the namespace itself. */
  abstract readonly overhead: number;
  /** Whether an empty key would become a key here. */
  abstract readonly hidesEmptyKeys: boolean;
  /** The stored form of a key; refuses what cannot be named here. */
  abstract key(key: Bytes): Bytes;
  /** The stored form of a range, cut to what can be named here. */
  abstract range<T extends KeyRange>(range: T): T;
  /** The caller's form of a stored key. */
  abstract bare(key: Bytes): Bytes;
  abstract owns(stored: Bytes): boolean;

  txn(request: TxnRequest): TxnRequest {
    return this.#rewritten(request);
  }

  #rewritten(request: TxnRequest): Required<TxnRequest> {
    return {
      compare: (request.compare ?? []).map((compare): Compare => this.range(compare)),
      success: (request.success ?? []).map((operation) => this.operation(operation)),
      failure: (request.failure ?? []).map((operation) => this.operation(operation)),
    };
  }

  operation(operation: Operation): Operation {
    switch (operation.type) {
      case 'put':
        return { ...operation, key: this.key(operation.key) };
      case 'txn':
        return this.#nested(operation);
      default:
        return this.range(operation);
    }
  }

  #nested(operation: NestedTransaction): NestedTransaction {
    const { compare, success, failure } = this.#rewritten(operation);
    return { type: 'txn', compare, success, failure };
  }

  /** What a transaction came to, as the caller sees it. */
  async answered(answer: Promise<TxnResult>): Promise<TxnResult> {
    const result = await answer;
    return { ...result, results: result.results.map((inner) => this.result(inner)) };
  }

  kv(kv: KeyValue): KeyValue {
    return { ...kv, key: this.bare(kv.key) };
  }

  result(result: OperationResult): OperationResult {
    switch (result.type) {
      case 'range':
        return { ...result, kvs: result.kvs.map((kv) => this.kv(kv)) };
      case 'put':
        return { ...result, prevKv: result.prevKv && this.kv(result.prevKv) };
      case 'delete':
        return { ...result, prevKvs: result.prevKvs.map((kv) => this.kv(kv)) };
      case 'txn':
        return { ...result, results: result.results.map((inner) => this.result(inner)) };
    }
  }

  batch(batch: WatchBatch): WatchBatch {
    const events = batch.events.map(({ type, kv, prevKv }) => ({
      type,
      kv: this.kv(kv),
      prevKv: prevKv && this.kv(prevKv),
    }));
    return { header: batch.header, events };
  }

  /** To a watch an empty key is the first key there can be. */
  watch(request: WatchRequest): WatchRequest {
    return this.range(request.key.length === 0 ? { ...request, key: Uint8Array.of(0) } : request);
  }

  /** Short ways for callers whose answers need no second look. */
  atOnce(_engine: Engine): Pick<Engine, 'atOnce'> {
    return {};
  }

  /** The watch of a stored range, as the caller sees it. */
  view(watch: Watch): Watch {
    return namespacedWatch(watch, this);
  }
}

/** A tenant's keys: all below one prefix, which the tenant never sees. */
export class TenantNamespace extends Namespace {
  readonly overhead: number;
  readonly hidesEmptyKeys = true;
  readonly #prefix: Bytes;
  readonly #end: Bytes;

  constructor(prefix: Bytes) {
    super();
    this.#prefix = prefix;
    this.#end = prefixEnd(prefix);
    this.overhead = escapedLength(prefix);
  }

  key(key: Bytes): Bytes {
    return concatBytes(this.#prefix, key);
  }

  range<T extends KeyRange>(range: T): T {
    const { key, end } = range;
    if (!end || end.length === 0) return { ...range, key: this.key(key) };
    const everything = end.length === 1 && end[0] === 0;
    return { ...range, key: this.key(key), end: everything ? this.#end : this.key(end) };
  }

  bare(key: Bytes): Bytes {
    return key.subarray(this.#prefix.length);
  }

  owns(stored: Bytes): boolean {
    return startsWith(stored, this.#prefix);
  }
}

/** Where the keys begin that everybody may have: what begins with a zero byte is the server's. */
const PUBLIC_START: Bytes = Uint8Array.of(1);

/** The keys of whoever has no tenant: as they stand in the engine, without the server's own. */
export class PublicNamespace extends Namespace {
  readonly overhead = 0;
  readonly hidesEmptyKeys = false;

  key(key: Bytes): Bytes {
    if (this.owns(key)) return key;
    throw new HoldfastError(
      'invalid-argument',
      'keys that begin with a zero byte are reserved for the server; choose another key',
    );
  }

  range<T extends KeyRange>(range: T): T {
    const { key, end } = range;
    if (!end || end.length === 0) this.key(key);
    return this.owns(key) ? range : { ...range, key: PUBLIC_START };
  }

  bare(key: Bytes): Bytes {
    return key;
  }

  owns(stored: Bytes): boolean {
    return stored[0] !== 0;
  }

  override txn(request: TxnRequest): TxnRequest {
    return everyKey(request, (key) => this.owns(key)) ? request : super.txn(request);
  }

  override operation(operation: Operation): Operation {
    if (operation.type !== 'put') return super.operation(operation);
    this.key(operation.key);
    return operation;
  }

  // Nothing of the server's can be in an answer, so answers pass as they are.

  override answered(answer: Promise<TxnResult>): Promise<TxnResult> {
    return answer;
  }

  override kv(kv: KeyValue): KeyValue {
    return kv;
  }

  override view(watch: Watch): Watch {
    return watch;
  }

  override atOnce({ atOnce }: Engine): Pick<Engine, 'atOnce'> {
    if (!atOnce) return {};
    return {
      atOnce: {
        range: (request) => atOnce.range(this.range(request)),
        keepAlive: (id) => atOnce.keepAlive(id),
      },
    };
  }
}

/** The engine as seen from inside a namespace. */
export function namespaced(engine: Engine, namespace: Namespace): Engine {
  return {
    capabilities: {
      ...engine.capabilities,
      keyBytesMax: engine.capabilities.keyBytesMax - namespace.overhead,
    },
    range: async (request, call) => {
      if (namespace.hidesEmptyKeys) refuseEmpty(request.key.length === 0);
      const result = await engine.range(namespace.range(request), call);
      return { ...result, kvs: result.kvs.map((kv) => namespace.kv(kv)) };
    },
    txn: (request, call) => {
      try {
        if (namespace.hidesEmptyKeys) refuseEmpty(!everyKey(request, isNotEmpty));
        return namespace.answered(engine.txn(namespace.txn(request), call));
      } catch (error) {
        return Promise.reject(error);
      }
    },
    watch: (request, call) => namespace.view(engine.watch(namespace.watch(request), call)),
    grantLease: (request, call) => engine.grantLease(request, call),
    keepAlive: (id, call) => engine.keepAlive(id, call),
    revokeLease: (id, call) => engine.revokeLease(id, call),
    leaseInfo: (id, call) => leaseInfo(engine, namespace, id, call),
    compact: (revision, call) => engine.compact(revision, call),
    liftEra: (era, call) => engine.liftEra(era, call),
    status: (call) => engine.status(call),
    ...namespace.atOnce(engine),
    close: () => engine.close(),
    [Symbol.asyncDispose]: () => engine.close(),
    ...(engine.operator ? { operator: engine.operator } : {}),
  };
}

/** Below a prefix an empty key would become a key; it is refused here, as the engine would. */
function refuseEmpty(empty: boolean): void {
  if (empty) throw new HoldfastError('key-empty', 'a key must have at least one byte');
}

function isNotEmpty(key: Bytes): boolean {
  return key.length > 0;
}

/** Whether every key that a transaction names, on any level, is such a one. */
function everyKey(request: TxnRequest, isSuch: (key: Bytes) => boolean): boolean {
  const { compare = [], success = [], failure = [] } = request;
  const passes = (operation: Operation): boolean =>
    operation.type === 'txn' ? everyKey(operation, isSuch) : isSuch(operation.key);
  return compare.every(({ key }) => isSuch(key)) && success.every(passes) && failure.every(passes);
}

async function leaseInfo(
  engine: Engine,
  namespace: Namespace,
  id: LeaseId,
  call: (CallOptions & { readonly keys?: boolean }) | undefined,
): Promise<LeaseInfo> {
  const info = await engine.leaseInfo(id, call);
  if (!info.keys) return info;
  const own = info.keys.filter((key) => namespace.owns(key));
  return { ...info, keys: own.map((key) => namespace.bare(key)) };
}

function startsWith(key: Bytes, prefix: Bytes): boolean {
  if (key.length < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (key[i] !== prefix[i]) return false;
  return true;
}

function namespacedWatch(inner: Watch, namespace: Namespace): Watch {
  const close = (): Promise<void> => inner.close();
  return {
    created: inner.created,
    requestProgress: () => inner.requestProgress(),
    close,
    [Symbol.asyncDispose]: close,
    [Symbol.asyncIterator]() {
      const iterator = inner[Symbol.asyncIterator]();
      return {
        async next() {
          const step = await iterator.next();
          return step.done ? step : { done: false, value: namespace.batch(step.value) };
        },
        async return() {
          await close();
          return { done: true, value: undefined };
        },
      };
    },
  };
}
