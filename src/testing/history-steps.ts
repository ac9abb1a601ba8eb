/**
 * The steps of random histories as data. Steps speak of keys, leases, watches and revisions by
 * small numbers that are resolved when they run, so any part of a history is a history again and
 * can be shrunk.
 */
import { concatBytes, utf8 } from '../base/bytes.ts';
import { type KeyRange, prefixEnd } from '../model/range.ts';
import type { Compare, CompareResult, LeaseId, Operation, Revision } from '../model/transaction.ts';
import type { Model } from './model.ts';

/** Keys that lie close together: prefixes of each other, zero bytes, 0xff. */
const KEYS: readonly Uint8Array[] = [
  utf8('a'),
  utf8('a\0'),
  utf8('ab'),
  utf8('b'),
  Uint8Array.of(0x62, 0xff),
  Uint8Array.of(0x62, 0xff, 0xff),
  utf8('c'),
];
export const KEY_COUNT: number = KEYS.length;

const VALUES: readonly Uint8Array[] = [
  utf8(''),
  utf8('1'),
  utf8('10'),
  utf8('2'),
  Uint8Array.of(0x31, 0x00),
  Uint8Array.of(0xff),
];
export const VALUE_COUNT: number = VALUES.length;

/** An end below 0 is the single key; `KEY_COUNT` is the end of the prefix. */
export interface RangeStep {
  readonly from: number;
  readonly to: number;
}

export interface ReadStep extends RangeStep {
  readonly type: 'range';
  /** How far back to read; absent is now, negative is the future, `bound` the compact revision. */
  readonly back?: number | 'bound' | undefined;
  readonly limit: number;
  readonly sortTarget?: 'key' | 'version' | 'create' | 'mod' | 'value' | undefined;
  readonly sortOrder?: 'ascend' | 'descend' | undefined;
  readonly keysOnly: boolean;
  readonly countOnly: boolean;
  /** Filters, as how far back each bound lies. */
  readonly minMod?: number | undefined;
  readonly maxMod?: number | undefined;
  readonly minCreate?: number | undefined;
  readonly maxCreate?: number | undefined;
}

export interface PutStep {
  readonly type: 'put';
  readonly key: number;
  readonly value: number;
  /** Which lease of the history; 0 none, below 0 one that never was. */
  readonly lease: number;
  readonly prevKv: boolean;
  readonly ignoreValue: boolean;
  readonly ignoreLease: boolean;
}

export interface DeleteStep extends RangeStep {
  readonly type: 'delete';
  readonly prevKv: boolean;
}

export interface CompareStep extends RangeStep {
  readonly target: Compare['target'];
  readonly result: CompareResult;
  readonly value: number;
}

export interface TxnStep {
  readonly type: 'txn';
  readonly compare: readonly CompareStep[];
  readonly success: readonly OperationStep[];
  readonly failure: readonly OperationStep[];
}

export type OperationStep = ReadStep | PutStep | DeleteStep | TxnStep;

export interface WatchStep extends RangeStep {
  readonly type: 'watch';
  /** How far back it starts; absent is from now on, negative is the future, `bound` as above. */
  readonly back?: number | 'bound' | undefined;
  readonly prevKv: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
}

export type Step =
  | ReadStep
  | TxnStep
  | WatchStep
  /** Puts handed over in one turn, without waiting for each other. */
  | { readonly type: 'burst'; readonly puts: readonly PutStep[] }
  | { readonly type: 'grant'; readonly ttlMs: number; readonly again: boolean }
  | { readonly type: 'keepAlive' | 'revoke' | 'leaseInfo'; readonly lease: number }
  | { readonly type: 'advance'; readonly ms: number }
  | { readonly type: 'progress' | 'unwatch'; readonly watch: number }
  | { readonly type: 'drain' }
  | { readonly type: 'compact'; readonly back: number; readonly physical: boolean }
  | { readonly type: 'reopen' };

/** A lease that nobody ever granted. */
const STRANGER: LeaseId = 0x7fff_0000_0000_0001n;

/** Gives the numbers in steps their meaning in one run. */
export class Resolver {
  readonly #prefix: Uint8Array;
  readonly #model: Model;
  /** Every lease granted so far, dead ones included. */
  readonly leases: LeaseId[] = [];

  constructor(prefix: Uint8Array, model: Model) {
    this.#prefix = prefix;
    this.#model = model;
  }

  key(index: number): Uint8Array {
    return concatBytes(this.#prefix, KEYS[index]!);
  }

  range({ from, to }: RangeStep): KeyRange {
    if (to < 0) return { key: this.key(from) };
    return { key: this.key(from), end: to < KEY_COUNT ? this.key(to) : prefixEnd(this.#prefix) };
  }

  everything(): KeyRange {
    return { key: this.#prefix, end: prefixEnd(this.#prefix) };
  }

  revision(back: number | 'bound'): Revision {
    const { revision, compactRevision } = this.#model;
    return Math.max(1, back === 'bound' ? compactRevision : revision - back);
  }

  lease(index: number): LeaseId {
    if (index < 0) return STRANGER;
    return index === 0 ? 0n : (this.leases[(index - 1) % this.leases.length] ?? 0n);
  }

  /** The same where "no lease" makes no sense. */
  someLease(index: number): LeaseId {
    return this.lease(index) || STRANGER;
  }

  read(step: ReadStep): Extract<Operation, { type: 'range' }> {
    const bound = (back: number | 'bound' | undefined): number =>
      back === undefined ? 0 : this.revision(back);
    const { sortTarget, sortOrder } = step;
    return {
      type: 'range',
      ...this.range(step),
      limit: step.limit,
      revision: bound(step.back),
      keysOnly: step.keysOnly,
      countOnly: step.countOnly,
      ...(sortTarget && { sortTarget }),
      ...(sortOrder && { sortOrder }),
      minModRevision: bound(step.minMod),
      maxModRevision: bound(step.maxMod),
      minCreateRevision: bound(step.minCreate),
      maxCreateRevision: bound(step.maxCreate),
    };
  }

  operation(step: OperationStep): Operation {
    switch (step.type) {
      case 'range':
        return this.read(step);
      case 'put':
        return this.put(step);
      case 'delete':
        return { type: 'delete', ...this.range(step), prevKv: step.prevKv };
      case 'txn':
        return this.txn(step);
    }
  }

  put(step: PutStep): Extract<Operation, { type: 'put' }> {
    const { prevKv, ignoreValue, ignoreLease } = step;
    const value = VALUES[step.value]!;
    const lease = this.lease(step.lease);
    return { type: 'put', key: this.key(step.key), value, lease, prevKv, ignoreValue, ignoreLease };
  }

  txn(step: TxnStep): Extract<Operation, { type: 'txn' }> {
    return {
      type: 'txn',
      compare: step.compare.map((compare) => this.#compare(compare)),
      success: step.success.map((operation) => this.operation(operation)),
      failure: step.failure.map((operation) => this.operation(operation)),
    };
  }

  #compare(step: CompareStep): Compare {
    const { result, target, value } = step;
    const base = { ...this.range(step), result };
    switch (target) {
      case 'value':
        return { ...base, target, value: VALUES[value]! };
      case 'lease':
        return { ...base, target, value: this.lease(value) };
      case 'version':
        return { ...base, target, value };
      default:
        return { ...base, target, value: value === 0 ? 0 : this.revision(value - 1) };
    }
  }
}
