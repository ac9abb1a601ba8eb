/**
 * Writing: one `Writer` per commit evaluates requests in order on the open table.
 *
 * Every request is checked against the state first and changes something only when nothing can
 * fail any more, so a refused request leaves no trace and the next one in the commit goes on. All
 * changes of one request share one revision; a request without effect takes none.
 * Deterministic; no I/O, no clock.
 */
import { type Bytes, compareBytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { type Interval, interval, isEmptyInterval } from '../model/range.ts';
import type {
  Compare,
  DeleteOperation,
  KeyValue,
  LeaseId,
  Operation,
  OperationResult,
  PutOperation,
  RangeOperation,
  Revision,
  TxnRequest,
} from '../model/transaction.ts';
import type { Event } from '../model/watch.ts';
import {
  attachmentEnd,
  attachmentKey,
  attachmentStart,
  decodeVersion,
  encodeLog,
  encodeVersion,
  keyOfAttachment,
  keyOfLive,
  type LoggedChange,
  leaseKey,
  liveEnd,
  liveKey,
  logKey,
  type State,
} from './layout.ts';
import { current, live, readRange, readRevision } from './read.ts';
import type { Table } from './table.ts';

const NOTHING: Bytes = new Uint8Array(0);

/** All that one revision changed, for those who watch. */
export interface RevisionEvents {
  readonly revision: Revision;
  readonly events: readonly Event[];
}

/** Which leases exist while a commit is being evaluated. */
export interface LeaseRegister {
  has(id: LeaseId): boolean;
}

/** A transaction with its comparisons decided, on the state before anything of it ran. */
interface Decided {
  readonly succeeded: boolean;
  readonly steps: readonly (Operation | { readonly type: 'decided'; readonly txn: Decided })[];
}

export interface Evaluated {
  readonly succeeded: boolean;
  readonly results: readonly OperationResult[];
  /** The revision of its changes, or the newest one if it changed nothing. */
  readonly revision: Revision;
}

export class Writer {
  readonly #table: Table;
  readonly #leases: LeaseRegister;
  /** What this commit did so far, in order. */
  readonly committed: RevisionEvents[] = [];
  #state: State;
  /** What the request under evaluation did so far: for the log, and for those who watch. */
  #changes: LoggedChange[] = [];
  #events: Event[] = [];

  constructor(table: Table, state: State, leases: LeaseRegister) {
    this.#table = table;
    this.#state = state;
    this.#leases = leases;
  }

  get state(): State {
    return this.#state;
  }

  get table(): Table {
    return this.#table;
  }

  /** Changes the state beside the keys: compaction, era, alarms. */
  amend(change: Partial<Omit<State, 'revision'>>): void {
    this.#state = { ...this.#state, ...change };
  }

  txn(request: TxnRequest): Evaluated {
    const decided = this.#decide(request);
    this.#checkBranch(decided);
    const results = this.#run(decided);
    return { succeeded: decided.succeeded, results, revision: this.#seal() };
  }

  /** Deletes every key attached to a lease and the lease itself, in one revision. */
  revoke(id: LeaseId): Revision {
    const keys: Bytes[] = [];
    this.#table.scan(attachmentStart(id), attachmentEnd(id), (stored) => {
      keys.push(keyOfAttachment(stored));
      return true;
    });
    for (const key of keys) {
      const kv = current(this.#table, key);
      if (kv) this.#remove(kv);
    }
    this.#table.remove(leaseKey(id));
    return this.#seal();
  }

  #decide(request: TxnRequest): Decided {
    const succeeded = (request.compare ?? []).every((compare) => this.#holds(compare));
    const branch = (succeeded ? request.success : request.failure) ?? [];
    const steps = branch.map((operation) =>
      operation.type === 'txn'
        ? { type: 'decided' as const, txn: this.#decide(operation) }
        : operation,
    );
    return { succeeded, steps };
  }

  #holds(compare: Compare): boolean {
    const range = interval(compare);
    if (range.single) return holds(compare, current(this.#table, compare.key));
    // One key that fails is enough: who joins a long line must not read it to its end.
    let found = false;
    let all = true;
    if (!isEmptyInterval(range)) {
      this.#table.scan(liveKey(range.start), liveEnd(range.end), (stored, record) => {
        found = true;
        all = holds(compare, decodeVersion(keyOfLive(stored), record));
        return all;
      });
    }
    return found ? all : holds(compare, undefined);
  }

  /** Everything that can refuse the taken branch, before anything of it runs: puts first, as etcd. */
  #checkBranch(decided: Decided): void {
    visitSteps(decided, (step) => {
      if (step.type === 'put') this.#checkPut(step);
    });
    visitSteps(decided, (step) => {
      if (step.type === 'range') readRevision(step, this.#state);
    });
  }

  #checkPut(put: PutOperation): void {
    if (put.lease && !this.#leases.has(put.lease)) throw leaseNotFound(put.lease);
    if ((put.ignoreValue || put.ignoreLease) && !this.#table.get(liveKey(put.key))) {
      throw new HoldfastError(
        'key-not-found',
        'a put that keeps the present value or lease needs a key that exists',
      );
    }
  }

  #run(decided: Decided): OperationResult[] {
    return decided.steps.map((step) => this.#perform(step));
  }

  #perform(step: Decided['steps'][number]): OperationResult {
    switch (step.type) {
      case 'range':
        return this.#range(step);
      case 'put':
        return this.#put(step);
      case 'delete':
        return this.#delete(step);
      case 'decided':
        return { type: 'txn', succeeded: step.txn.succeeded, results: this.#run(step.txn) };
      case 'txn':
        throw new Error('a nested transaction is decided before it runs');
    }
  }

  /** A read of an earlier revision must not show the writes beside it: they go to the log first. */
  #range(request: RangeOperation): OperationResult {
    if (!request.revision || this.#changes.length === 0) {
      return readRange(this.#table, request, this.#state);
    }
    const revision = this.#state.revision + 1;
    this.#table.put(logKey(revision), encodeLog(this.#changes));
    return readRange(this.#table, request, { ...this.#state, revision });
  }

  #put(put: PutOperation): OperationResult {
    const revision = this.#state.revision + 1;
    const stored = liveKey(put.key);
    const key = stored.subarray(1);
    const before = this.#table.get(stored);
    const former = before && decodeVersion(key, before);
    const lease = put.ignoreLease ? (former?.lease ?? 0n) : (put.lease ?? 0n);
    const after = encodeVersion({
      value: (put.ignoreValue ? former?.value : put.value) ?? NOTHING,
      createRevision: former?.createRevision ?? revision,
      modRevision: revision,
      version: (former?.version ?? 0) + 1,
      lease,
    });
    if (former && former.lease !== 0n && former.lease !== lease) {
      this.#table.remove(attachmentKey(former.lease, key));
    }
    if (lease !== 0n && former?.lease !== lease) {
      this.#table.put(attachmentKey(lease, key), NOTHING);
    }
    this.#table.put(stored, after);
    this.#changes.push({ key, after, before });
    this.#events.push({ type: 'put', kv: decodeVersion(key, after), prevKv: former });
    return { type: 'put', prevKv: put.prevKv ? former : undefined };
  }

  #delete(request: DeleteOperation): OperationResult {
    const range = interval(request);
    const doomed = this.#present(range);
    for (const kv of doomed) this.#remove(kv);
    return {
      type: 'delete',
      deleted: doomed.length,
      prevKvs: request.prevKv ? doomed : [],
    };
  }

  #present(range: Interval): KeyValue[] {
    if (isEmptyInterval(range)) return [];
    if (!range.single) return live(this.#table, range);
    const kv = current(this.#table, range.start);
    return kv ? [kv] : [];
  }

  #remove(kv: KeyValue): void {
    const revision = this.#state.revision + 1;
    if (kv.lease !== 0n) this.#table.remove(attachmentKey(kv.lease, kv.key));
    this.#table.remove(liveKey(kv.key));
    this.#changes.push({ key: kv.key, after: undefined, before: encodeVersion(kv) });
    this.#events.push({ type: 'delete', kv: tombstone(kv.key, revision), prevKv: kv });
  }

  /** Closes the request: its changes become one revision with its line in the log. */
  #seal(): Revision {
    if (this.#changes.length === 0) return this.#state.revision;
    const revision = this.#state.revision + 1;
    this.#state = { ...this.#state, revision };
    this.#table.put(logKey(revision), encodeLog(this.#changes));
    this.committed.push({ revision, events: this.#events });
    this.#changes = [];
    this.#events = [];
    return revision;
  }
}

function visitSteps(decided: Decided, visit: (step: Decided['steps'][number]) => void): void {
  for (const step of decided.steps) {
    if (step.type === 'decided') visitSteps(step.txn, visit);
    else visit(step);
  }
}

export function tombstone(key: Bytes, modRevision: Revision): KeyValue {
  return { key, value: NOTHING, createRevision: 0, modRevision, version: 0, lease: 0n };
}

export function leaseNotFound(id: LeaseId): HoldfastError {
  return new HoldfastError('lease-not-found', `lease ${id.toString(16)} does not exist`);
}

/** A missing key has no value to compare; its numbers are all 0. */
function holds(compare: Compare, kv: KeyValue | undefined): boolean {
  if (compare.target === 'value') {
    return kv !== undefined && satisfies(compareBytes(kv.value, compare.value), compare.result);
  }
  if (compare.target === 'lease') {
    const lease = kv?.lease ?? 0n;
    return satisfies(lease < compare.value ? -1 : lease > compare.value ? 1 : 0, compare.result);
  }
  return satisfies(numberOf(compare.target, kv) - compare.value, compare.result);
}

function numberOf(target: 'version' | 'create' | 'mod', kv: KeyValue | undefined): number {
  if (!kv) return 0;
  if (target === 'version') return kv.version;
  return target === 'create' ? kv.createRevision : kv.modRevision;
}

function satisfies(order: number, result: Compare['result']): boolean {
  switch (result) {
    case '=':
      return order === 0;
    case '!=':
      return order !== 0;
    case '<':
      return order < 0;
    case '>':
      return order > 0;
  }
}
