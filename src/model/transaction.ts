/** What is stored, asked and answered: keys with their history, ranges and transactions. */
import type { Bytes } from '../base/bytes.ts';
import type { KeyRange } from './range.ts';

/**
 * A place in the one history of changes. Stays below 2^48 (see `token.ts`), so a plain number
 * holds it exactly.
 */
export type Revision = number;

/** A positive 63-bit number; 0n means "no lease". */
export type LeaseId = bigint;

export interface KeyValue {
  readonly key: Bytes;
  readonly value: Bytes;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  /** Puts since creation; 1 for a new key. */
  readonly version: number;
  readonly lease: LeaseId;
}

/** Goes with every answer: where the history stood, and in which era. */
export interface Header {
  readonly revision: Revision;
  readonly era: number;
}

export type SortTarget = 'key' | 'version' | 'create' | 'mod' | 'value';
export type SortOrder = 'ascend' | 'descend';

export interface RangeRequest extends KeyRange {
  /** 0 or absent: no limit. */
  readonly limit?: number;
  /** Read as of this revision; 0 or absent: the newest. */
  readonly revision?: Revision;
  readonly sortTarget?: SortTarget;
  readonly sortOrder?: SortOrder;
  /** May be answered by a replica from its own state. */
  readonly serializable?: boolean;
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
  readonly minModRevision?: Revision;
  readonly maxModRevision?: Revision;
  readonly minCreateRevision?: Revision;
  readonly maxCreateRevision?: Revision;
}

export interface RangeResult {
  readonly header: Header;
  readonly kvs: readonly KeyValue[];
  /** The limit cut something off. */
  readonly more: boolean;
  /** Size of the whole range, whatever limit and filters say. */
  readonly count: number;
}

export interface PutOperation {
  readonly type: 'put';
  readonly key: Bytes;
  readonly value?: Bytes;
  readonly lease?: LeaseId;
  readonly prevKv?: boolean;
  readonly ignoreValue?: boolean;
  readonly ignoreLease?: boolean;
}

export interface DeleteOperation extends KeyRange {
  readonly type: 'delete';
  readonly prevKv?: boolean;
}

export interface RangeOperation extends RangeRequest {
  readonly type: 'range';
}

export interface NestedTransaction extends TxnRequest {
  readonly type: 'txn';
}

export type Operation = RangeOperation | PutOperation | DeleteOperation | NestedTransaction;

export type CompareResult = '=' | '!=' | '<' | '>';

/** A condition on a key, or on every key of a range. */
export type Compare = KeyRange & { readonly result: CompareResult } & (
    | { readonly target: 'version' | 'create' | 'mod'; readonly value: number }
    | { readonly target: 'lease'; readonly value: LeaseId }
    | { readonly target: 'value'; readonly value: Bytes }
  );

export interface TxnRequest {
  /** All must hold for `success` to run; an empty list holds. */
  readonly compare?: readonly Compare[];
  readonly success?: readonly Operation[];
  readonly failure?: readonly Operation[];
}

export interface PutResult {
  readonly type: 'put';
  readonly prevKv: KeyValue | undefined;
}

export interface DeleteResult {
  readonly type: 'delete';
  readonly deleted: number;
  readonly prevKvs: readonly KeyValue[];
}

export interface RangeOperationResult {
  readonly type: 'range';
  readonly kvs: readonly KeyValue[];
  readonly more: boolean;
  readonly count: number;
}

export interface NestedResult {
  readonly type: 'txn';
  readonly succeeded: boolean;
  readonly results: readonly OperationResult[];
}

export type OperationResult = RangeOperationResult | PutResult | DeleteResult | NestedResult;

export interface TxnResult {
  /** With effects: the revision of this transaction. Without: the newest revision. */
  readonly header: Header;
  readonly succeeded: boolean;
  readonly results: readonly OperationResult[];
}
