/**
 * The engine contract as a deliberately dumb model: one list of everything that ever happened, and
 * every question answered by walking it from the start. Nothing is indexed, cached or removed, so
 * it is slow and obviously right; engines are compared with it on random histories.
 *
 * Where the contract leaves a choice the model says so instead of choosing: `Refusal` carries every
 * true reason, and ranges sorted by equal values may come in any order (`acceptsRange`).
 */
import { type Bytes, compareBytes, EMPTY, equalBytes } from '../base/bytes.ts';
import type { ErrorCode } from '../model/errors.ts';
import { contains, interval, isEmptyInterval, type KeyRange } from '../model/range.ts';
import type {
  Compare,
  DeleteOperation,
  KeyValue,
  LeaseId,
  Operation,
  OperationResult,
  PutOperation,
  RangeOperationResult,
  RangeRequest,
  Revision,
  TxnRequest,
} from '../model/transaction.ts';
import type { Event, WatchRequest } from '../model/watch.ts';
import type { Change } from './validators.ts';

/** Thrown by the model: the request is refused, for any of these reasons. */
export class Refusal extends Error {
  readonly codes: readonly ErrorCode[];

  constructor(...codes: ErrorCode[]) {
    super(codes.join(' or '));
    this.codes = codes;
  }
}

export interface ModelLease {
  readonly id: LeaseId;
  readonly ttlMs: number;
  deadlineMs: number;
}

export interface ModelTxn {
  readonly revision: Revision;
  readonly succeeded: boolean;
  readonly results: readonly OperationResult[];
}

/** A transaction whose compares have been evaluated. */
interface Decided {
  readonly succeeded: boolean;
  readonly steps: readonly (Exclude<Operation, { type: 'txn' }> | Decided)[];
}

export class Model {
  /** Everything that happened, in order. */
  readonly changes: Change[] = [];
  readonly #operationsMax: number;
  leases: ModelLease[] = [];
  revision: Revision;
  compactRevision: Revision = 0;

  /** A store that stands empty at `revision`. */
  constructor(options: { readonly revision: Revision; readonly operationsMax: number }) {
    this.revision = options.revision;
    this.#operationsMax = options.operationsMax;
  }

  /** Every pair as it stood at `revision`, in key order. */
  state(revision: Revision): readonly KeyValue[] {
    let pairs: KeyValue[] = [];
    for (const { type, kv } of this.changes) {
      if (kv.modRevision > revision) break;
      pairs = pairs.filter((pair) => !equalBytes(pair.key, kv.key));
      if (type === 'put') pairs.push(kv);
    }
    return pairs.sort((a, b) => compareBytes(a.key, b.key));
  }

  range(request: RangeRequest): RangeOperationResult {
    const reasons = rangeReasons(request);
    if (reasons.length > 0) throw new Refusal(...reasons);
    this.#refuseRevision(request);
    return this.#read(request, this.revision);
  }

  txn(request: TxnRequest): ModelTxn {
    const reasons = [
      ...txnReasons(request, this.#operationsMax),
      ...duplicates(request.success),
      ...duplicates(request.failure),
    ];
    if (reasons.length > 0) throw new Refusal(...reasons);
    const decided = this.#decide(request);
    const refusals = this.#refusals(decided);
    if (refusals.length > 0) throw new Refusal(...refusals);
    const before = this.changes.length;
    const results = this.#run(decided);
    if (this.changes.length > before) this.revision++;
    return { revision: this.revision, succeeded: decided.succeeded, results };
  }

  grant(id: LeaseId, ttlMs: number, nowMs: number): void {
    if (this.#lease(id)) throw new Refusal('lease-exists');
    this.leases.push({ id, ttlMs, deadlineMs: nowMs + ttlMs });
  }

  keepAlive(id: LeaseId, nowMs: number): number {
    const lease = this.#lease(id);
    if (!lease) throw new Refusal('lease-not-found');
    lease.deadlineMs = nowMs + lease.ttlMs;
    return lease.ttlMs;
  }

  revoke(id: LeaseId): Revision {
    if (!this.#lease(id)) throw new Refusal('lease-not-found');
    this.leases = this.leases.filter((lease) => lease.id !== id);
    const doomed = this.keysOf(id);
    for (const kv of doomed) this.#remove(kv);
    if (doomed.length > 0) this.revision++;
    return this.revision;
  }

  /** Ends every lease whose time is over, the soonest first. */
  expire(nowMs: number): readonly LeaseId[] {
    const due = this.leases.filter((lease) => lease.deadlineMs <= nowMs);
    due.sort((a, b) => a.deadlineMs - b.deadlineMs);
    for (const { id } of due) this.revoke(id);
    return due.map((lease) => lease.id);
  }

  keysOf(id: LeaseId): readonly KeyValue[] {
    return this.state(this.revision + 1).filter((kv) => kv.lease === id);
  }

  compact(revision: Revision): void {
    if (revision <= this.compactRevision) throw new Refusal('compacted');
    if (revision > this.revision) throw new Refusal('future-revision');
    this.compactRevision = revision;
  }

  /** What a watch from `start` must have told when everything up to now has been told. */
  events(request: WatchRequest, start: Revision): readonly Event[] {
    const range = interval(request);
    return this.changes
      .filter(({ kv }) => kv.modRevision >= start && contains(range, kv.key))
      .filter(({ type }) => !(type === 'put' ? request.noPut : request.noDelete))
      .map(({ type, kv, before }) =>
        request.prevKv ? { type, kv, prevKv: before } : { type, kv },
      );
  }

  #lease(id: LeaseId): ModelLease | undefined {
    return this.leases.find((lease) => lease.id === id);
  }

  #refuseRevision({ revision = 0 }: RangeRequest): void {
    if (revision > this.revision) throw new Refusal('future-revision');
    if (revision > 0 && revision < this.compactRevision) throw new Refusal('compacted');
  }

  /** Reads at the revision asked for, else at `newest`. */
  #read(request: RangeRequest, newest: Revision): RangeOperationResult {
    const { revision = 0, limit = 0 } = request;
    const all = within(request, this.state(revision > 0 ? revision : newest));
    if (request.countOnly) return { type: 'range', kvs: [], more: false, count: all.length };
    const sorted = [...all.filter((kv) => passes(kv, request))].sort(order(request));
    const kvs = limit > 0 ? sorted.slice(0, limit) : sorted;
    return {
      type: 'range',
      kvs: request.keysOnly ? kvs.map((kv) => ({ ...kv, value: EMPTY })) : kvs,
      more: kvs.length < sorted.length,
      count: all.length,
    };
  }

  #decide(request: TxnRequest): Decided {
    const succeeded = (request.compare ?? []).every((compare) => this.#holds(compare));
    const branch = (succeeded ? request.success : request.failure) ?? [];
    return { succeeded, steps: branch.map((op) => (op.type === 'txn' ? this.#decide(op) : op)) };
  }

  #holds(compare: Compare): boolean {
    const pairs = within(compare, this.state(this.revision));
    return pairs.length === 0 ? holds(compare, undefined) : pairs.every((kv) => holds(compare, kv));
  }

  #refusals(decided: Decided): readonly ErrorCode[] {
    return decided.steps.flatMap((step): readonly ErrorCode[] => {
      if (!('type' in step)) return this.#refusals(step);
      if (step.type === 'put') return this.#putRefusals(step);
      if (step.type !== 'range') return [];
      try {
        this.#refuseRevision(step);
        return [];
      } catch (error) {
        return (error as Refusal).codes;
      }
    });
  }

  #putRefusals(put: PutOperation): readonly ErrorCode[] {
    const codes: ErrorCode[] = [];
    if (put.lease && !this.#lease(put.lease)) codes.push('lease-not-found');
    const keeps = put.ignoreValue || put.ignoreLease;
    if (keeps && !this.#find(put.key, this.revision)) codes.push('key-not-found');
    return codes;
  }

  #run(decided: Decided): readonly OperationResult[] {
    return decided.steps.map((step) => this.#runStep(step));
  }

  #runStep(step: Decided['steps'][number]): OperationResult {
    if (!('type' in step)) {
      return { type: 'txn', succeeded: step.succeeded, results: this.#run(step) };
    }
    switch (step.type) {
      case 'range':
        return this.#read(step, this.revision + 1);
      case 'put':
        return this.#put(step);
      case 'delete':
        return this.#delete(step);
    }
  }

  #put(put: PutOperation): OperationResult {
    const before = this.#find(put.key, this.revision + 1);
    const kv: KeyValue = {
      key: put.key,
      value: (put.ignoreValue ? before?.value : put.value) ?? EMPTY,
      createRevision: before?.createRevision ?? this.revision + 1,
      modRevision: this.revision + 1,
      version: (before?.version ?? 0) + 1,
      lease: (put.ignoreLease ? before?.lease : put.lease) ?? 0n,
    };
    this.changes.push({ type: 'put', kv, before });
    return { type: 'put', prevKv: put.prevKv ? before : undefined };
  }

  #delete(request: DeleteOperation): OperationResult {
    const doomed = within(request, this.state(this.revision + 1));
    for (const kv of doomed) this.#remove(kv);
    return { type: 'delete', deleted: doomed.length, prevKvs: request.prevKv ? doomed : [] };
  }

  #remove(before: KeyValue): void {
    const kv: KeyValue = {
      key: before.key,
      value: EMPTY,
      createRevision: 0,
      modRevision: this.revision + 1,
      version: 0,
      lease: 0n,
    };
    this.changes.push({ type: 'delete', kv, before });
  }

  #find(key: Bytes, revision: Revision): KeyValue | undefined {
    return this.state(revision).find((kv) => equalBytes(kv.key, key));
  }
}

/**
 * Whether `actual` is a right answer where `expected` is one: equal pairs in the same order of the
 * sorted property; pairs that are equal in it may come in any order, and a limit may cut among
 * them.
 */
export function acceptsRange(
  request: RangeRequest,
  actual: RangeOperationResult,
  expected: RangeOperationResult,
  uncut: readonly KeyValue[],
): boolean {
  const compare = order(request, false);
  return (
    actual.count === expected.count &&
    actual.more === expected.more &&
    actual.kvs.length === expected.kvs.length &&
    new Set(actual.kvs.map((kv) => kv.key.join())).size === actual.kvs.length &&
    actual.kvs.every((kv, i) => {
      const full = uncut.find((other) => equalBytes(other.key, kv.key));
      const due = uncut.find((other) => equalBytes(other.key, expected.kvs[i]!.key));
      return full && due && sameKv(kv, full, request.keysOnly) && compare(full, due) === 0;
    })
  );
}

export function sameKv(a: KeyValue, b: KeyValue, keysOnly = false): boolean {
  return (
    equalBytes(a.key, b.key) &&
    equalBytes(a.value, keysOnly ? EMPTY : b.value) &&
    a.createRevision === b.createRevision &&
    a.modRevision === b.modRevision &&
    a.version === b.version &&
    a.lease === b.lease
  );
}

function within(request: KeyRange, pairs: readonly KeyValue[]): readonly KeyValue[] {
  const range = interval(request);
  return pairs.filter((kv) => contains(range, kv.key));
}

function passes(kv: KeyValue, request: RangeRequest): boolean {
  const { minModRevision, maxModRevision, minCreateRevision, maxCreateRevision } = request;
  return !(
    (minModRevision && kv.modRevision < minModRevision) ||
    (maxModRevision && kv.modRevision > maxModRevision) ||
    (minCreateRevision && kv.createRevision < minCreateRevision) ||
    (maxCreateRevision && kv.createRevision > maxCreateRevision)
  );
}

/** The order asked for; ties by key unless told otherwise. */
function order(request: RangeRequest, breakTies = true): (a: KeyValue, b: KeyValue) => number {
  const sign = request.sortOrder === 'descend' ? -1 : 1;
  const by = (a: KeyValue, b: KeyValue): number => {
    switch (request.sortTarget ?? 'key') {
      case 'key':
        return compareBytes(a.key, b.key);
      case 'version':
        return a.version - b.version;
      case 'create':
        return a.createRevision - b.createRevision;
      case 'mod':
        return a.modRevision - b.modRevision;
      case 'value':
        return compareBytes(a.value, b.value);
    }
  };
  return (a, b) => sign * by(a, b) || (breakTies ? compareBytes(a.key, b.key) : 0);
}

function holds(compare: Compare, kv: KeyValue | undefined): boolean {
  switch (compare.target) {
    case 'value':
      return kv !== undefined && satisfies(compareBytes(kv.value, compare.value), compare.result);
    case 'lease':
      return satisfies(Number((kv?.lease ?? 0n) - compare.value), compare.result);
    case 'version':
      return satisfies((kv?.version ?? 0) - compare.value, compare.result);
    case 'create':
      return satisfies((kv?.createRevision ?? 0) - compare.value, compare.result);
    case 'mod':
      return satisfies((kv?.modRevision ?? 0) - compare.value, compare.result);
  }
}

function satisfies(difference: number, result: Compare['result']): boolean {
  if (result === '=') return difference === 0;
  if (result === '!=') return difference !== 0;
  return result === '<' ? difference < 0 : difference > 0;
}

function rangeReasons(request: KeyRange): readonly ErrorCode[] {
  return request.key.length === 0 ? ['key-empty'] : [];
}

function txnReasons(request: TxnRequest, operationsMax: number): readonly ErrorCode[] {
  const { compare = [], success = [], failure = [] } = request;
  const longest = Math.max(compare.length, success.length, failure.length);
  return [
    ...(longest > operationsMax ? (['too-many-operations'] as const) : []),
    ...compare.flatMap(rangeReasons),
    ...[...success, ...failure].flatMap((op): readonly ErrorCode[] => {
      if (op.type === 'txn') return txnReasons(op, operationsMax - longest);
      return op.type === 'put' ? [...rangeReasons(op), ...putReasons(op)] : rangeReasons(op);
    }),
  ];
}

function putReasons(put: PutOperation): readonly ErrorCode[] {
  const codes: ErrorCode[] = [];
  if (put.ignoreValue && put.value && put.value.length > 0) codes.push('value-provided');
  if (put.ignoreLease && put.lease) codes.push('lease-provided');
  return codes;
}

/** Two operations of one branch that write one key, at least one of them by a put. */
function duplicates(branch: readonly Operation[] = []): readonly ErrorCode[] {
  const inner = branch.flatMap((op) =>
    op.type === 'txn' ? [...duplicates(op.success), ...duplicates(op.failure)] : [],
  );
  const writes = branch.map(writesOf);
  const clash = writes.some((a, i) => writes.some((b, j) => i < j && clashes(a, b)));
  return clash ? [...inner, 'duplicate-key'] : inner;
}

type Write = PutOperation | DeleteOperation;

function writesOf(operation: Operation): readonly Write[] {
  if (operation.type === 'range') return [];
  if (operation.type !== 'txn') return [operation];
  return [...(operation.success ?? []), ...(operation.failure ?? [])].flatMap(writesOf);
}

function clashes(a: readonly Write[], b: readonly Write[]): boolean {
  return a.some((x) => b.some((y) => clash(x, y)));
}

function clash(a: Write, b: Write): boolean {
  if (a.type === 'put' && b.type === 'put') return equalBytes(a.key, b.key);
  if (a.type === 'delete' && b.type === 'delete') return false;
  const [put, range] = a.type === 'put' ? [a, interval(b)] : [b, interval(a)];
  return !isEmptyInterval(range) && contains(range, put.key);
}
