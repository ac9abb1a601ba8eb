/**
 * Wire messages to the model's types and back, for the server (requests in, results out) and for
 * the etcd engine (requests out, results in).
 *
 * Names: `…ToModel` reads a decoded message, `…ToWire` makes what `encode` takes. Requests that make
 * no sense are a HoldfastError `invalid-argument`; limits that an engine checks are left to it.
 * Requests keep their arguments as they came: ranges are not normalised, so that authorisation sees
 * what the caller sent.
 */
import { EMPTY } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { LEASE_ID_MAX } from '../../model/lease.ts';
import type {
  Compare,
  CompareResult,
  DeleteOperation,
  Header,
  KeyValue,
  LeaseId,
  NestedResult,
  NestedTransaction,
  Operation,
  OperationResult,
  PutOperation,
  RangeOperation,
  RangeOperationResult,
  RangeRequest,
  RangeResult,
  SortTarget,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import type { Event, WatchRequest } from '../../model/watch.ts';
import type {
  Event as WireEvent,
  EventInit as WireEventInit,
  KeyValue as WireKeyValue,
  KeyValueInit as WireKeyValueInit,
} from './gen/kv.ts';
import type {
  RequestOp,
  RequestOpInit,
  ResponseHeader,
  ResponseHeaderInit,
  ResponseOp,
  ResponseOpInit,
  Compare as WireCompare,
  CompareInit as WireCompareInit,
  DeleteRangeRequest as WireDelete,
  DeleteRangeRequestInit as WireDeleteInit,
  PutRequest as WirePut,
  PutRequestInit as WirePutInit,
  RangeRequest as WireRange,
  RangeRequestInit as WireRangeInit,
  RangeResponse as WireRangeResponse,
  RangeResponseInit as WireRangeResponseInit,
  TxnRequest as WireTxn,
  TxnRequestInit as WireTxnInit,
  TxnResponse as WireTxnResponse,
  TxnResponseInit as WireTxnResponseInit,
  WatchCreateRequest as WireWatch,
  WatchCreateRequestInit as WireWatchInit,
} from './gen/rpc.ts';
import { rpcError } from './status.ts';

const REVISION_BITS = 48;
const REVISION_SPAN = 2 ** REVISION_BITS;

// ─── headers ───────────────────────────────────────────────────────────────────────────────────

/** Who answers; the same object for every answer of a server. */
export interface Identity {
  readonly clusterId: bigint;
  readonly memberId: bigint;
  /** Of etcd's consensus; one process says 1. Never below 1: clients take 0 for "unknown". */
  readonly term: number;
}

/**
 * The era travels above the term's low 32 bits, where etcd's own term (a count of elections) never
 * gets: clients of etcd see a term that only rises, and Holdfast reads the era back.
 */
const TERM_SPAN = 2 ** 32;

export function headerToWire(header: Header, identity: Identity): ResponseHeaderInit {
  return {
    clusterId: identity.clusterId,
    memberId: identity.memberId,
    revision: header.revision,
    raftTerm: header.era * TERM_SPAN + identity.term,
  };
}

/** An answer without a header is taken as revision 0 of era 0. */
export function headerToModel(header: ResponseHeader | undefined): Header {
  if (header === undefined) return { revision: 0, era: 0 };
  return { revision: revisionOf(header.revision), era: Math.floor(header.raftTerm / TERM_SPAN) };
}

/** A peer whose revision leaves the range of tokens cannot be worked with. */
function revisionOf(revision: number): number {
  if (revision >= 0 && revision < REVISION_SPAN) return revision;
  throw new HoldfastError('internal', `the server's revision ${revision} is out of range`);
}

// ─── pairs and events ──────────────────────────────────────────────────────────────────────────

export function keyValueToModel(kv: WireKeyValue): KeyValue {
  // The generated type has all of the model's fields under the same names.
  return kv;
}

export function keyValueToWire(kv: KeyValue): WireKeyValueInit {
  return kv;
}

const EVENT_DELETE = 1;

export function eventToModel(event: WireEvent): Event {
  if (event.kv === undefined) throw new HoldfastError('internal', 'an event without a key');
  const type = event.type === EVENT_DELETE ? 'delete' : 'put';
  return event.prevKv === undefined
    ? { type, kv: event.kv }
    : { type, kv: event.kv, prevKv: event.prevKv };
}

export function eventToWire(event: Event): WireEventInit {
  return { type: event.type === 'delete' ? EVENT_DELETE : 0, kv: event.kv, prevKv: event.prevKv };
}

// ─── ranges ────────────────────────────────────────────────────────────────────────────────────

const SORT_TARGETS: readonly SortTarget[] = ['key', 'version', 'create', 'mod', 'value'];
const SORT_NONE = 0;
const SORT_ASCEND = 1;
const SORT_DESCEND = 2;

/**
 * A request of its own, or an operation of a transaction. As in etcd: without an order, a target
 * other than the key means ascending.
 */
export function rangeToModel(range: WireRange): RangeOperation {
  const sortTarget = SORT_TARGETS[range.sortTarget];
  if (sortTarget === undefined || range.sortOrder < SORT_NONE || range.sortOrder > SORT_DESCEND) {
    throw rpcError('invalidSortOption');
  }
  return {
    type: 'range',
    key: range.key,
    end: range.rangeEnd,
    limit: Math.max(0, range.limit),
    revision: range.revision,
    sortTarget,
    sortOrder: range.sortOrder === SORT_DESCEND ? 'descend' : 'ascend',
    serializable: range.serializable,
    keysOnly: range.keysOnly,
    countOnly: range.countOnly,
    minModRevision: range.minModRevision,
    maxModRevision: range.maxModRevision,
    minCreateRevision: range.minCreateRevision,
    maxCreateRevision: range.maxCreateRevision,
  };
}

export function rangeToWire(range: RangeRequest): WireRangeInit {
  const sorted = range.sortOrder !== undefined || range.sortTarget !== undefined;
  return {
    key: range.key,
    rangeEnd: range.end,
    limit: range.limit,
    revision: range.revision,
    sortOrder: !sorted ? SORT_NONE : range.sortOrder === 'descend' ? SORT_DESCEND : SORT_ASCEND,
    sortTarget: range.sortTarget === undefined ? 0 : SORT_TARGETS.indexOf(range.sortTarget),
    serializable: range.serializable,
    keysOnly: range.keysOnly,
    countOnly: range.countOnly,
    minModRevision: range.minModRevision,
    maxModRevision: range.maxModRevision,
    minCreateRevision: range.minCreateRevision,
    maxCreateRevision: range.maxCreateRevision,
  };
}

export function rangeResultToWire(result: RangeResult, identity: Identity): WireRangeResponseInit {
  return {
    header: headerToWire(result.header, identity),
    kvs: result.kvs,
    more: result.more,
    count: result.count,
  };
}

export function rangeResultToModel(response: WireRangeResponse): RangeResult {
  return {
    header: headerToModel(response.header),
    kvs: response.kvs,
    more: response.more,
    count: response.count,
  };
}

// ─── single operations ─────────────────────────────────────────────────────────────────────────

/** etcd keeps no lease below 1; a negative id names none that could exist. */
export function leaseToModel(id: bigint): LeaseId {
  if (id < 0n || id > LEASE_ID_MAX) throw rpcError('leaseNotFound');
  return id;
}

export function putToModel(put: WirePut): PutOperation {
  return {
    type: 'put',
    key: put.key,
    value: put.value,
    lease: leaseToModel(put.lease),
    prevKv: put.prevKv,
    ignoreValue: put.ignoreValue,
    ignoreLease: put.ignoreLease,
  };
}

export function putToWire(put: PutOperation): WirePutInit {
  return put;
}

export function deleteToModel(request: WireDelete): DeleteOperation {
  return { type: 'delete', key: request.key, end: request.rangeEnd, prevKv: request.prevKv };
}

export function deleteToWire(operation: DeleteOperation): WireDeleteInit {
  return { key: operation.key, rangeEnd: operation.end, prevKv: operation.prevKv };
}

// ─── transactions ──────────────────────────────────────────────────────────────────────────────

export function txnToModel(txn: WireTxn): TxnRequest {
  return {
    compare: txn.compare.map(compareToModel),
    success: txn.success.map(operationToModel),
    failure: txn.failure.map(operationToModel),
  };
}

/** Like that above; a copy with a field more would be a slow object. */
function nestedToModel(txn: WireTxn): NestedTransaction {
  return {
    type: 'txn',
    compare: txn.compare.map(compareToModel),
    success: txn.success.map(operationToModel),
    failure: txn.failure.map(operationToModel),
  };
}

export function txnToWire(txn: TxnRequest): WireTxnInit {
  return {
    compare: txn.compare?.map(compareToWire),
    success: txn.success?.map(operationToWire),
    failure: txn.failure?.map(operationToWire),
  };
}

export function operationToModel(op: RequestOp): Operation {
  if (op.requestRange) return rangeToModel(op.requestRange);
  if (op.requestPut) return putToModel(op.requestPut);
  if (op.requestDeleteRange) return deleteToModel(op.requestDeleteRange);
  if (op.requestTxn) return nestedToModel(op.requestTxn);
  // What etcd says about an operation without a kind.
  throw rpcError('keyNotFound');
}

export function operationToWire(operation: Operation): RequestOpInit {
  switch (operation.type) {
    case 'range':
      return { requestRange: rangeToWire(operation) };
    case 'put':
      return { requestPut: putToWire(operation) };
    case 'delete':
      return { requestDeleteRange: deleteToWire(operation) };
    case 'txn':
      return { requestTxn: txnToWire(operation) };
  }
}

const RESULTS: readonly CompareResult[] = ['=', '>', '<', '!='];
const TARGETS = ['version', 'create', 'mod', 'value', 'lease'] as const;

/** The target decides which member of the union counts; one that is not set is zero. */
export function compareToModel(compare: WireCompare): Compare {
  const result = RESULTS[compare.result];
  const target = TARGETS[compare.target];
  if (result === undefined || target === undefined) {
    throw new HoldfastError('invalid-argument', 'a comparison of an unknown kind');
  }
  const value = comparedValue(compare, target);
  return { key: compare.key, end: compare.rangeEnd, result, target, value } as Compare;
}

function comparedValue(compare: WireCompare, target: Compare['target']): Compare['value'] {
  switch (target) {
    case 'version':
      return compare.version ?? 0;
    case 'create':
      return compare.createRevision ?? 0;
    case 'mod':
      return compare.modRevision ?? 0;
    case 'value':
      return compare.value ?? EMPTY;
    case 'lease':
      return compare.lease ?? 0n;
  }
}

/** One shape for all targets: the encoder meets nothing else, and stays quick. */
export function compareToWire(compare: Compare): WireCompareInit {
  const { target, value } = compare;
  return {
    result: RESULTS.indexOf(compare.result),
    target: TARGETS.indexOf(target),
    key: compare.key,
    rangeEnd: compare.end,
    version: target === 'version' ? value : undefined,
    createRevision: target === 'create' ? value : undefined,
    modRevision: target === 'mod' ? value : undefined,
    value: target === 'value' ? value : undefined,
    lease: target === 'lease' ? value : undefined,
  };
}

/**
 * As etcd answers: operations inside carry the revision alone, that before the transaction as long as
 * nothing has been changed in it; nested transactions carry nothing.
 */
export function txnResultToWire(result: TxnResult, identity: Identity): WireTxnResponseInit {
  const { revision } = result.header;
  const before = result.results.some(changes) ? revision - 1 : revision;
  const headers = { before: { revision: before }, after: { revision }, changed: false };
  return {
    header: headerToWire(result.header, identity),
    succeeded: result.succeeded,
    responses: result.results.map((item) => resultToWire(item, headers)),
  };
}

const NESTED_HEADER: ResponseHeaderInit = {};

interface InnerHeaders {
  readonly before: ResponseHeaderInit;
  readonly after: ResponseHeaderInit;
  /** Whether an operation so far has changed something. */
  changed: boolean;
}

function changes(result: OperationResult): boolean {
  switch (result.type) {
    case 'put':
      return true;
    case 'delete':
      return result.deleted > 0;
    case 'txn':
      return result.results.some(changes);
    default:
      return false;
  }
}

function resultToWire(result: OperationResult, headers: InnerHeaders): ResponseOpInit {
  if (result.type === 'txn') {
    const { succeeded, results } = result;
    const responses = results.map((item) => resultToWire(item, headers));
    return { responseTxn: { header: NESTED_HEADER, succeeded, responses } };
  }
  headers.changed ||= changes(result);
  const header = headers.changed ? headers.after : headers.before;
  switch (result.type) {
    case 'range': {
      const { kvs, more, count } = result;
      return { responseRange: { header, kvs, more, count } };
    }
    case 'put':
      return { responsePut: { header, prevKv: result.prevKv } };
    case 'delete':
      return {
        responseDeleteRange: { header, deleted: result.deleted, prevKvs: result.prevKvs },
      };
  }
}

export function txnResultToModel(
  response: WireTxnResponse,
  header: Header = headerToModel(response.header),
): TxnResult {
  return {
    header,
    succeeded: response.succeeded,
    results: response.responses.map(resultToModel),
  };
}

function resultToModel(op: ResponseOp): OperationResult {
  if (op.responseRange) return rangeOperationResult(op.responseRange);
  if (op.responsePut) return { type: 'put', prevKv: op.responsePut.prevKv };
  if (op.responseDeleteRange) {
    const { deleted, prevKvs } = op.responseDeleteRange;
    return { type: 'delete', deleted, prevKvs };
  }
  if (op.responseTxn) return nestedResult(op.responseTxn);
  throw new HoldfastError('internal', 'the server answered an operation with nothing', {
    outcome: 'unknown',
  });
}

function rangeOperationResult({ kvs, more, count }: WireRangeResponse): RangeOperationResult {
  return { type: 'range', kvs, more, count };
}

function nestedResult({ succeeded, responses }: WireTxnResponse): NestedResult {
  return { type: 'txn', succeeded, results: responses.map(resultToModel) };
}

// ─── watches ───────────────────────────────────────────────────────────────────────────────────

const FILTER_NO_PUT = 0;
const FILTER_NO_DELETE = 1;
const ZERO_BYTE = Uint8Array.of(0);

/** As in etcd, an empty key is read as one zero byte. A negative start is "from now on". */
export function watchToModel(request: WireWatch): WatchRequest {
  return {
    key: request.key.length === 0 ? ZERO_BYTE : request.key,
    end: request.rangeEnd,
    startRevision: Math.max(0, request.startRevision),
    prevKv: request.prevKv,
    noPut: request.filters.includes(FILTER_NO_PUT),
    noDelete: request.filters.includes(FILTER_NO_DELETE),
    progressNotify: request.progressNotify,
  };
}

export function watchToWire(request: WatchRequest): WireWatchInit {
  const filters: number[] = [];
  if (request.noPut) filters.push(FILTER_NO_PUT);
  if (request.noDelete) filters.push(FILTER_NO_DELETE);
  return {
    key: request.key,
    rangeEnd: request.end,
    startRevision: request.startRevision,
    prevKv: request.prevKv,
    progressNotify: request.progressNotify,
    filters,
  };
}

// ─── leases ────────────────────────────────────────────────────────────────────────────────────

/** The wire counts seconds. A part of a second is rounded up, so that no lease is shorter than asked. */
export function ttlToWire(ttlMs: number): number {
  return Math.ceil(ttlMs / 1_000);
}

export function ttlToModel(seconds: number): number {
  return seconds * 1_000;
}
