/**
 * Writing: one `Writer` per commit evaluates requests in order on the open table.
 *
 * Every request is checked against the state first and changes something only when nothing can
 * fail any more, so a refused request leaves no trace and the next one in the commit goes on. All
 * changes of one request share one revision; a request without effect takes none.
 * Deterministic; no I/O, no clock.
 */
import { type Bytes, compareBytes, equalBytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { contains, type Interval, interval, isEmptyInterval, isSingle } from '../model/range.ts';
import type {
  Compare,
  DeleteOperation,
  KeyValue,
  LeaseId,
  NestedTransaction,
  Operation,
  OperationResult,
  PutOperation,
  RangeOperation,
  Revision,
  TxnRequest,
} from '../model/transaction.ts';
import {
  attachmentEnd,
  attachmentKey,
  attachmentStart,
  createOfVersion,
  decodeVersion,
  encodeLog,
  encodeVersion,
  keyOfAttachment,
  keyOfLive,
  type LoggedChange,
  leaseKey,
  leaseOfVersion,
  liveEnd,
  liveKey,
  logKey,
  type State,
  valueOfVersion,
  versionOfVersion,
} from './layout.ts';
import { compactedError, NUMBERS, readRange, readRevision } from './read.ts';
import type { Table } from './table.ts';

const NOTHING: Bytes = new Uint8Array(0);
/**
 * What the ranges that one request deletes may hold, and what of a lease ends in one revision. The log
 * keeps it in one record, and the store does nothing else meanwhile.
 */
const DELETED_BYTES_MAX = 256 * 1024 * 1024;

/** All that one revision changed, in order, for those who watch. */
export interface RevisionChanges {
  readonly revision: Revision;
  readonly changes: readonly LoggedChange[];
}

/** Which leases exist while a commit is being evaluated. */
export interface LeaseRegister {
  has(id: LeaseId): boolean;
}

/** A transaction with its comparisons decided, on the state before anything of it ran. */
interface Decided {
  readonly succeeded: boolean;
  readonly steps: readonly (PlainOperation | { readonly type: 'decided'; readonly txn: Decided })[];
}

type PlainOperation = Exclude<Operation, NestedTransaction>;

export interface Evaluated {
  readonly succeeded: boolean;
  readonly results: readonly OperationResult[];
  /** The revision of its changes, or the newest one if it changed nothing. */
  readonly revision: Revision;
}

/** How a key stands in the table. */
interface Standing {
  readonly key: Bytes;
  /** The key as the table knows it. */
  readonly stored: Bytes;
  /** Undefined: the key does not exist. */
  readonly record: Bytes | undefined;
}

export class Writer {
  readonly #table: Table;
  readonly #leases: LeaseRegister;
  readonly #deletedBytesMax: number;
  /** What this commit did so far, in order. */
  readonly committed: RevisionChanges[] = [];
  /** But for its revision, which rises with every request. */
  #state: State;
  #revision: Revision;
  /** What the request under evaluation did so far: for the log, and for those who watch. */
  #changes: LoggedChange[] = [];
  /** The key looked up last: what is compared is mostly what is written next. */
  #last: Standing | undefined;
  /** A range found empty: who takes an empty line need not look for his own key in it. */
  #gap: Interval | undefined;

  constructor(
    table: Table,
    state: State,
    leases: LeaseRegister,
    deletedBytesMax: number = DELETED_BYTES_MAX,
  ) {
    this.#deletedBytesMax = deletedBytesMax;
    this.#table = table;
    this.#state = state;
    this.#revision = state.revision;
    this.#leases = leases;
  }

  /** As what ran so far leaves it behind. */
  get state(): State {
    const revision = this.#revision;
    if (this.#state.revision !== revision) this.#state = { ...this.#state, revision };
    return this.#state;
  }

  get era(): number {
    return this.#state.era;
  }

  get noSpace(): boolean {
    return this.#state.noSpace;
  }

  get table(): Table {
    return this.#table;
  }

  /** Changes the state beside the keys: compaction, era, alarms. */
  amend(change: Partial<Omit<State, 'revision'>>): void {
    this.#state = { ...this.state, ...change };
  }

  txn(request: TxnRequest): Evaluated {
    const decided = this.#decide(request);
    this.#checkBranch(decided);
    const results = this.#run(decided);
    return { succeeded: decided.succeeded, results, revision: this.#seal() };
  }

  /**
   * Deletes every key attached to a lease and then the lease itself, in one revision. What is more
   * than the log can take is left for another call, in which the lease is still there.
   */
  revoke(id: LeaseId): { readonly revision: Revision; readonly done: boolean } {
    const keys: Bytes[] = [];
    this.#table.scan(attachmentStart(id), attachmentEnd(id), (stored) => {
      keys.push(keyOfAttachment(stored));
      return true;
    });
    let bytes = 0;
    for (const key of keys) {
      if (bytes > this.#deletedBytesMax) return { revision: this.#seal(), done: false };
      const standing = this.#look(key);
      bytes += key.length + (standing.record?.length ?? 0);
      this.#remove(standing);
    }
    this.#table.remove(leaseKey(id));
    return { revision: this.#seal(), done: true };
  }

  #decide(request: TxnRequest): Decided {
    const succeeded = this.#allHold(request.compare);
    const branch = (succeeded ? request.success : request.failure) ?? [];
    if (!hasNested(branch)) return { succeeded, steps: branch as Decided['steps'] };
    const steps = branch.map((operation) =>
      operation.type === 'txn'
        ? { type: 'decided' as const, txn: this.#decide(operation) }
        : operation,
    );
    return { succeeded, steps };
  }

  #allHold(compares: readonly Compare[] = []): boolean {
    for (const compare of compares) if (!this.#holds(compare)) return false;
    return true;
  }

  #holds(compare: Compare): boolean {
    if (isSingle(compare)) return holds(compare, this.#look(compare.key).record);
    const range = interval(compare);
    // One key that fails is enough: who joins a long line must not read it to its end.
    let found = false;
    let all = true;
    if (!isEmptyInterval(range)) {
      this.#table.scan(liveKey(range.start), liveEnd(range.end), (_stored, record) => {
        found = true;
        all = holds(compare, record);
        return all;
      });
    }
    if (found) return all;
    this.#gap = range;
    return holds(compare, undefined);
  }

  /** Everything that can refuse the taken branch, before anything of it runs: puts first, as etcd. */
  #checkBranch(decided: Decided): void {
    this.#checkPuts(decided);
    this.#checkRanges(decided, 0);
  }

  #checkPuts(decided: Decided): void {
    for (const step of decided.steps) {
      if (step.type === 'put') this.#checkPut(step);
      else if (step.type === 'decided') this.#checkPuts(step.txn);
    }
  }

  /** Answers what is deleted so far. */
  #checkRanges(decided: Decided, before: number): number {
    let deleted = before;
    for (const step of decided.steps) {
      if (step.type === 'range') this.#checkRevision(step);
      else if (step.type === 'decided') deleted = this.#checkRanges(step.txn, deleted);
      else if (step.type === 'delete' && !isSingle(step))
        deleted = this.#checkDelete(step, deleted);
    }
    return deleted;
  }

  #checkDelete(request: DeleteOperation, before: number): number {
    const range = interval(request);
    if (isEmptyInterval(range)) return before;
    let deleted = before;
    this.#table.scan(liveKey(range.start), liveEnd(range.end), (stored, record) => {
      deleted += stored.length + record.length;
      return deleted <= this.#deletedBytesMax;
    });
    if (deleted <= this.#deletedBytesMax) return deleted;
    throw new HoldfastError(
      'request-too-large',
      `more than ${this.#deletedBytesMax} bytes would be deleted at once: delete them in parts`,
    );
  }

  /** A revision below 0 means the newest outside of transactions only; here etcd finds it too old. */
  #checkRevision(range: RangeOperation): void {
    const { revision = 0 } = range;
    const oldest = this.#state.compactRevision || -1;
    if (revision < 0 && revision < oldest) throw compactedError(revision, this.state);
    readRevision(range, this.state);
  }

  #checkPut(put: PutOperation): void {
    if (put.lease && !this.#leases.has(put.lease)) throw leaseNotFound(put.lease);
    if ((put.ignoreValue || put.ignoreLease) && !this.#look(put.key).record) {
      throw new HoldfastError(
        'key-not-found',
        'a put that keeps the present value or lease needs a key that exists',
      );
    }
  }

  #run(decided: Decided): OperationResult[] {
    const results: OperationResult[] = [];
    for (const step of decided.steps) results.push(this.#perform(step));
    return results;
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
    }
  }

  /** A read of an earlier revision must not show the writes beside it: they go to the log first. */
  #range(request: RangeOperation): OperationResult {
    if (!request.revision || this.#changes.length === 0) {
      return readRange(this.#table, request, this.state);
    }
    const revision = this.#revision + 1;
    this.#table.put(logKey(revision), encodeLog(this.#changes));
    return readRange(this.#table, request, { ...this.state, revision });
  }

  #put(put: PutOperation): OperationResult {
    const revision = this.#revision + 1;
    const standing = this.#look(put.key);
    const { record } = standing;
    const formerLease = record ? leaseOfVersion(record) : 0n;
    const lease = put.ignoreLease ? formerLease : (put.lease ?? 0n);
    const after = encodeVersion({
      value: (put.ignoreValue && record ? valueOfVersion(record) : put.value) ?? NOTHING,
      createRevision: record ? createOfVersion(record) : revision,
      modRevision: revision,
      version: (record ? versionOfVersion(record) : 0) + 1,
      lease,
    });
    if (formerLease !== lease) this.#attach(put.key, formerLease, lease);
    this.#change(standing, after);
    return { type: 'put', prevKv: put.prevKv ? keyValue(standing) : undefined };
  }

  #delete(request: DeleteOperation): OperationResult {
    const doomed = this.#present(request);
    for (const standing of doomed) this.#remove(standing);
    return {
      type: 'delete',
      deleted: doomed.length,
      prevKvs: request.prevKv ? doomed.map((standing) => keyValue(standing)!) : [],
    };
  }

  #present(request: DeleteOperation): Standing[] {
    if (isSingle(request)) {
      const standing = this.#look(request.key);
      return standing.record ? [standing] : [];
    }
    const range = interval(request);
    const found: Standing[] = [];
    if (isEmptyInterval(range)) return found;
    this.#table.scan(liveKey(range.start), liveEnd(range.end), (stored, record) => {
      found.push({ key: keyOfLive(stored), stored, record });
      return true;
    });
    return found;
  }

  #remove(standing: Standing): void {
    const { key, record } = standing;
    if (!record) return;
    this.#attach(key, leaseOfVersion(record), 0n);
    this.#change(standing, undefined);
  }

  /** Moves a key from what one lease owns to what another does; 0n is none. */
  #attach(key: Bytes, former: LeaseId, lease: LeaseId): void {
    if (former !== 0n) this.#table.remove(attachmentKey(former, key));
    if (lease !== 0n) this.#table.put(attachmentKey(lease, key), NOTHING);
  }

  /** The one place where a live key changes. */
  #change({ key, stored, record }: Standing, after: Bytes | undefined): void {
    if (after) this.#table.put(stored, after);
    else this.#table.remove(stored);
    this.#gap = undefined;
    this.#changes.push({ key: keyOfLive(stored), after, before: record });
    this.#last = { key, stored, record: after };
  }

  #look(key: Bytes): Standing {
    const last = this.#last;
    if (last && (last.key === key || equalBytes(last.key, key))) return last;
    const stored = liveKey(key);
    const absent = this.#gap !== undefined && contains(this.#gap, key);
    this.#last = { key, stored, record: absent ? undefined : this.#table.get(stored) };
    return this.#last;
  }

  /** Closes the request: its changes become one revision with its line in the log. */
  #seal(): Revision {
    if (this.#changes.length === 0) return this.#revision;
    const revision = ++this.#revision;
    this.#table.put(logKey(revision), encodeLog(this.#changes));
    this.committed.push({ revision, changes: this.#changes });
    this.#changes = [];
    return revision;
  }
}

function keyValue({ stored, record }: Standing): KeyValue | undefined {
  return record && decodeVersion(keyOfLive(stored), record);
}

function hasNested(operations: readonly Operation[]): boolean {
  for (const { type } of operations) if (type === 'txn') return true;
  return false;
}

export function tombstone(key: Bytes, modRevision: Revision): KeyValue {
  return { key, value: NOTHING, createRevision: 0, modRevision, version: 0, lease: 0n };
}

export function leaseNotFound(id: LeaseId): HoldfastError {
  return new HoldfastError('lease-not-found', `lease ${id.toString(16)} does not exist`);
}

/** Of a version as it is stored. A missing key has no value to compare; its numbers are all 0. */
function holds(compare: Compare, record: Bytes | undefined): boolean {
  switch (compare.target) {
    case 'value': {
      if (!record) return false;
      return satisfies(compareBytes(valueOfVersion(record), compare.value), compare.result);
    }
    case 'lease': {
      const lease = record ? leaseOfVersion(record) : 0n;
      return satisfies(lease < compare.value ? -1 : lease > compare.value ? 1 : 0, compare.result);
    }
    default: {
      const number = record ? NUMBERS[compare.target](record) : 0;
      return satisfies(number - compare.value, compare.result);
    }
  }
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
