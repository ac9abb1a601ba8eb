/**
 * Requests as the JSON that the functions in the database read, and their answers back.
 *
 * The short names: `o` what it is (`p` put, `d` delete, `r` range, `t` nested transaction), `k` key
 * and `e` end as hex, `v` value or revision, `l` lease, `pk` previous wanted, `iv`/`il` keep value
 * or lease, `n` limit, `t` sort target, `d` descending, `ko`/`co` keys or count only, `f` the four
 * revision filters, `i` a single key. On a transaction `c`/`s`/`f` are compares and branches, `n`
 * says that there are nested ones, `x` that something needs checking, `p` that it may put.
 *
 * All text is hex digits, decimal digits and our own words, so it can stand in a quoted SQL literal;
 * `literal` holds it to that.
 */
import { type Bytes, EMPTY } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { interval, type KeyRange } from '../../model/range.ts';
import type {
  Compare,
  KeyValue,
  Operation,
  OperationResult,
  RangeRequest,
  TxnRequest,
} from '../../model/transaction.ts';
import { mayPut } from '../../mvcc/check.ts';
import { BEYOND_KEYS } from './schema.ts';

export type Json = Readonly<Record<string, unknown>>;

/** A JSON value as a quoted SQL literal, refused if it holds anything that could end the quote. */
export function literal(value: unknown): string {
  const json = JSON.stringify(value);
  if (!/^[\x20-\x26\x28-\x5b\x5d-\x7e]*$/.test(json)) {
    throw new HoldfastError('internal', 'a request holds text that must not reach SQL');
  }
  return `'${json}'`;
}

export function hex(bytes: Bytes): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

export function unhex(text: string): Bytes {
  if (text.length === 0) return EMPTY;
  const from = Buffer.from(text, 'hex');
  return new Uint8Array(from.buffer, from.byteOffset, from.byteLength);
}

/** Both ends of a range; "no end" becomes a bound above every key that can be stored. */
export function bounds(range: KeyRange): { readonly k: string; readonly e: string } {
  const { start, end } = interval(range);
  return { k: hex(start), e: end === undefined ? BEYOND_KEYS : hex(end) };
}

export function encodeRange(request: RangeRequest): Json {
  const { limit = 0, revision = 0, sortTarget, sortOrder } = request;
  const { minModRevision = 0, maxModRevision = 0 } = request;
  const { minCreateRevision = 0, maxCreateRevision = 0 } = request;
  const filters = [minModRevision, maxModRevision, minCreateRevision, maxCreateRevision];
  return {
    o: 'r',
    ...bounds(request),
    ...(interval(request).single && { i: 1 }),
    ...(limit > 0 && { n: whole(limit) }),
    ...(revision > 0 && { v: whole(revision) }),
    ...(sortTarget !== undefined && { t: sortTarget }),
    ...(sortOrder === 'descend' && { d: 1 }),
    ...(request.keysOnly && { ko: 1 }),
    ...(request.countOnly && { co: 1 }),
    ...(filters.some(Boolean) && { f: filters.map(whole) }),
  };
}

export function encodeTxn(request: TxnRequest): Json {
  const { compare = [], success = [], failure = [] } = request;
  const operations = [...success, ...failure];
  return {
    o: 'txn',
    ...branches(compare, success, failure),
    ...(operations.some((op) => op.type === 'txn') && { n: 1 }),
    ...(operations.some(needsCheck) && { x: 1 }),
    ...(mayPut(request) && { p: 1 }),
  };
}

function branches(
  compare: readonly Compare[],
  success: readonly Operation[],
  failure: readonly Operation[],
): Json {
  return {
    c: compare.map(encodeCompare),
    s: success.map(encodeOperation),
    f: failure.map(encodeOperation),
  };
}

function encodeOperation(operation: Operation): Json {
  switch (operation.type) {
    case 'range':
      return encodeRange(operation);
    case 'delete':
      return { o: 'd', ...bounds(operation), ...(operation.prevKv && { pk: 1 }) };
    case 'put':
      return {
        o: 'p',
        k: hex(operation.key),
        ...(operation.ignoreValue ? { iv: 1 } : { v: hex(operation.value ?? EMPTY) }),
        ...(operation.ignoreLease ? { il: 1 } : encodeLease(operation.lease)),
        ...(operation.prevKv && { pk: 1 }),
      };
    case 'txn': {
      const { compare = [], success = [], failure = [] } = operation;
      return { o: 't', ...branches(compare, success, failure), n: 1 };
    }
  }
}

function encodeLease(lease: bigint | undefined): Json {
  return lease === undefined || lease === 0n ? {} : { l: int64(lease) };
}

function encodeCompare(compare: Compare): Json {
  const { target, result } = compare;
  const value =
    target === 'value'
      ? hex(compare.value)
      : target === 'lease'
        ? int64(compare.value)
        : String(whole(compare.value));
  return { ...bounds(compare), t: target, r: result, v: value };
}

/** A number beyond 64 bits compares like the nearest one that fits: no lease has either. */
function int64(value: bigint): string {
  const most = 2n ** 63n - 1n;
  return String(value > most ? most : value < -most ? -most : value);
}

/** No revision, version or count comes near 2^53, so a larger number may as well be that. */
function whole(value: number): number {
  if (Number.isNaN(value)) throw new HoldfastError('invalid-argument', 'NaN is not a number here');
  return Math.max(-(2 ** 53), Math.min(2 ** 53, Math.trunc(value)));
}

function needsCheck(operation: Operation): boolean {
  if (operation.type === 'txn') return true;
  if (operation.type === 'range') return (operation.revision ?? 0) > 0;
  if (operation.type === 'delete') return false;
  return Boolean(operation.lease || operation.ignoreValue || operation.ignoreLease);
}

/** `[key, value, created, modified, version, lease]` */
export type KvJson = readonly [string, string, number, number, number, string];

export function decodeKv([key, value, created, modified, version, lease]: KvJson): KeyValue {
  return {
    key: unhex(key),
    value: unhex(value),
    createRevision: created,
    modRevision: modified,
    version,
    lease: lease === '0' ? 0n : BigInt(lease),
  };
}

/** What an operation of the branch answered; which fields there are depends on the operation. */
export interface PieceJson {
  readonly r?: readonly KvJson[];
  readonly m?: boolean;
  readonly n?: number;
  readonly d?: number;
  readonly p?: KvJson | readonly KvJson[];
  readonly ok?: boolean;
  readonly o?: readonly PieceJson[];
}

export function decodeRange({ r = [], m = false, n = 0 }: PieceJson): {
  readonly kvs: readonly KeyValue[];
  readonly more: boolean;
  readonly count: number;
} {
  return { kvs: r.map(decodeKv), more: m, count: n };
}

export function decodeResults(
  operations: readonly Operation[],
  pieces: readonly PieceJson[],
): readonly OperationResult[] {
  return operations.map((operation, i) => decodePiece(operation, pieces[i] ?? {}));
}

function decodePiece(operation: Operation, piece: PieceJson): OperationResult {
  switch (operation.type) {
    case 'range':
      return { type: 'range', ...decodeRange(piece) };
    case 'put':
      return { type: 'put', prevKv: piece.p && decodeKv(piece.p as KvJson) };
    case 'delete': {
      const former = (piece.p ?? []) as readonly KvJson[];
      return { type: 'delete', deleted: piece.d ?? 0, prevKvs: former.map(decodeKv) };
    }
    case 'txn': {
      const succeeded = piece.ok === true;
      const taken = (succeeded ? operation.success : operation.failure) ?? [];
      return { type: 'txn', succeeded, results: decodeResults(taken, piece.o ?? []) };
    }
  }
}
