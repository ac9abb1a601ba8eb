/**
 * What can be said of a request without looking at the store: forms, sizes, duplicate keys.
 * Deterministic; throws a HoldfastError and changes nothing.
 */
import { type Bytes, binaryString, escapedLength, printable } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { contains, type Interval, interval, isEmptyInterval } from '../model/range.ts';
import type {
  Compare,
  Operation,
  PutOperation,
  RangeRequest,
  TxnRequest,
} from '../model/transaction.ts';

export interface Limits {
  readonly keyBytesMax: number;
  readonly requestBytesMax: number;
  readonly operationsMax: number;
}

const RESULTS = new Set(['=', '!=', '<', '>']);
const TARGETS = new Set(['version', 'create', 'mod', 'lease', 'value']);
const SORT_TARGETS = new Set(['key', 'version', 'create', 'mod', 'value']);

export function checkRange(request: RangeRequest): void {
  checkKey(request.key);
  const { sortTarget, sortOrder } = request;
  if (sortTarget !== undefined && !SORT_TARGETS.has(sortTarget)) {
    throw new HoldfastError('invalid-argument', `"${sortTarget}" is not a sort target`);
  }
  if (sortOrder !== undefined && sortOrder !== 'ascend' && sortOrder !== 'descend') {
    throw new HoldfastError('invalid-argument', `"${sortOrder}" is not a sort order`);
  }
}

export function checkTxn(request: TxnRequest, limits: Limits): void {
  const bytes = checkLevel(request, limits, limits.operationsMax);
  if (bytes > limits.requestBytesMax) {
    throw new HoldfastError(
      'request-too-large',
      `the request has ${bytes} bytes of keys and values; ${limits.requestBytesMax} are allowed`,
    );
  }
  for (const branch of [request.success, request.failure]) {
    // One write alone, the common case, cannot meet another.
    if (branch && countWrites(branch) > 1) checkDuplicates(branch);
  }
}

/** Writes that may happen in this branch, nested ones included. */
function countWrites(operations: readonly Operation[]): number {
  let count = 0;
  for (const operation of operations) {
    if (operation.type === 'txn') {
      count += countWrites(operation.success ?? []) + countWrites(operation.failure ?? []);
    } else if (operation.type !== 'range') count++;
  }
  return count;
}

const NONE: readonly never[] = [];

/** Checks one level of nesting and answers how many bytes of keys and values it brings. */
function checkLevel(request: TxnRequest, limits: Limits, operationsMax: number): number {
  const { compare = NONE, success = NONE, failure = NONE } = request;
  const longest = Math.max(compare.length, success.length, failure.length);
  if (longest > operationsMax) {
    throw new HoldfastError(
      'too-many-operations',
      `${longest} operations in one list of a transaction; ${operationsMax} are allowed here`,
    );
  }
  let bytes = 0;
  for (const condition of compare) bytes += checkCompare(condition);
  const nestedMax = operationsMax - longest;
  for (const operation of success) bytes += checkOperation(operation, limits, nestedMax);
  for (const operation of failure) bytes += checkOperation(operation, limits, nestedMax);
  return bytes;
}

function checkOperation(operation: Operation, limits: Limits, nestedMax: number): number {
  switch (operation.type) {
    case 'range':
      checkRange(operation);
      return operation.key.length + (operation.end?.length ?? 0);
    case 'put':
      return checkPut(operation, limits);
    case 'delete':
      checkKey(operation.key);
      return operation.key.length + (operation.end?.length ?? 0);
    case 'txn':
      return checkLevel(operation, limits, nestedMax);
    default:
      throw new HoldfastError('invalid-argument', 'a transaction holds an unknown operation');
  }
}

function checkPut(put: PutOperation, limits: Limits): number {
  checkKey(put.key);
  // At most every byte counts twice.
  if (put.key.length * 2 > limits.keyBytesMax && escapedLength(put.key) > limits.keyBytesMax) {
    throw new HoldfastError(
      'key-too-large',
      `the key has ${put.key.length} bytes; ${limits.keyBytesMax} are allowed, zero bytes counting twice`,
    );
  }
  if (put.ignoreValue && put.value !== undefined && put.value.length > 0) {
    throw new HoldfastError('value-provided', 'a put with ignoreValue must not bring a value');
  }
  if (put.ignoreLease && put.lease !== undefined && put.lease !== 0n) {
    throw new HoldfastError('lease-provided', 'a put with ignoreLease must not bring a lease');
  }
  return put.key.length + (put.value?.length ?? 0);
}

function checkCompare(condition: Compare): number {
  checkKey(condition.key);
  if (!RESULTS.has(condition.result)) {
    throw new HoldfastError('invalid-argument', `"${condition.result}" is not a comparison`);
  }
  if (!TARGETS.has(condition.target)) {
    throw new HoldfastError('invalid-argument', `"${condition.target}" cannot be compared`);
  }
  const { value } = condition;
  return condition.key.length + (value instanceof Uint8Array ? value.length : 8);
}

function checkKey(key: Bytes): void {
  if (key.length === 0) throw new HoldfastError('key-empty', 'a key must have at least one byte');
}

interface Writes {
  readonly puts: Map<string, Bytes>;
  readonly deletes: Interval[];
}

/**
 * No key may be written twice in one branch, so that each revision changes a key at most once. The
 * two branches of a nested transaction exclude each other; deleting twice is harmless.
 */
function checkDuplicates(operations: readonly Operation[]): Writes {
  const writes: Writes = { puts: new Map(), deletes: [] };
  for (const operation of operations) {
    const own: Writes = { puts: new Map(), deletes: [] };
    if (operation.type === 'txn') {
      for (const branch of [operation.success ?? [], operation.failure ?? []]) {
        merge(own, checkDuplicates(branch));
      }
    } else collect(operation, own);
    refuseOverlap(writes, own);
    merge(writes, own);
  }
  return writes;
}

function collect(operation: Exclude<Operation, { type: 'txn' }>, into: Writes): Writes {
  if (operation.type === 'put') into.puts.set(binaryString(operation.key), operation.key);
  if (operation.type === 'delete') {
    const range = interval(operation);
    if (!isEmptyInterval(range)) into.deletes.push(range);
  }
  return into;
}

function merge(into: Writes, from: Writes): void {
  for (const [name, key] of from.puts) into.puts.set(name, key);
  into.deletes.push(...from.deletes);
}

function refuseOverlap(a: Writes, b: Writes): void {
  for (const [name, key] of b.puts) {
    if (a.puts.has(name) || a.deletes.some((range) => contains(range, key))) refuse(key);
  }
  for (const range of b.deletes) {
    for (const key of a.puts.values()) if (contains(range, key)) refuse(key);
  }
}

function refuse(key: Bytes): never {
  throw new HoldfastError('duplicate-key', `the transaction writes ${printable(key)} twice`);
}

/** Whether any branch may put: such a transaction needs space. */
export function mayPut({ success = NONE, failure = NONE }: TxnRequest): boolean {
  for (const op of success) if (op.type === 'put' || (op.type === 'txn' && mayPut(op))) return true;
  for (const op of failure) if (op.type === 'put' || (op.type === 'txn' && mayPut(op))) return true;
  return false;
}

/** Whether any branch may change anything. */
export function mayWrite({ success = NONE, failure = NONE }: TxnRequest): boolean {
  for (const { type } of success) if (type !== 'range') return true;
  for (const { type } of failure) if (type !== 'range') return true;
  return false;
}
