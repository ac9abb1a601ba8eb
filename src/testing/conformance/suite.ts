/**
 * What a conformance case is and what it is given.
 *
 * A case is a sentence that states a rule of the engine contract, and a function that throws when
 * the rule is broken. Nothing here knows a test framework or an engine. Cases own their keys (all
 * begin with the store's prefix) and compare revisions relative to what they saw first, so they
 * also hold against a real server that has a history.
 */
import type { ManualClock } from '../../base/clock.ts';
import type { Engine } from '../../engine/contract.ts';
import type { TestStore } from './test-store.ts';

/** What a case needs beyond the contract's verbs. */
export type Need =
  /** Time that the case moves itself. Without it leases are waited for in real time. */
  | 'clock'
  /** Closing the engine and opening the same data again. */
  | 'reopen'
  /** A space quota chosen by the case. */
  | 'quota'
  /** Compaction, which a store shared with others does not let a test do. */
  | 'compaction'
  /** The operator's verbs. */
  | 'operator'
  /** Raising the era. */
  | 'era';

export interface OpenOptions {
  /** Bytes the store may use. Asked for by cases that need `quota`. */
  readonly quotaBytes?: number;
}

/** An engine opened for one case. */
export interface Fixture {
  readonly engine: Engine;
  /** The engine's own clock, if a test may move it. */
  readonly clock?: ManualClock | undefined;
  /** Every key of the case begins with these bytes. */
  readonly prefix: Uint8Array;
  /** How long something that must happen may take in real time, in a hurry or on a slow machine. */
  readonly patienceMs?: number;
  /** Closes the engine and opens another one on the same data. */
  reopen?(): Promise<Engine>;
  /** Closes the engine and removes its data. */
  dispose(): Promise<void>;
}

export type Open = (options: OpenOptions) => Promise<Fixture>;

export interface ConformanceCase {
  readonly group: string;
  /** A sentence that states the rule. */
  readonly name: string;
  readonly needs?: readonly Need[];
  readonly options?: OpenOptions;
  run(store: TestStore): Promise<void>;
}

/** A case before its group is known. */
export type CaseBody = Omit<ConformanceCase, 'group'>;

export function group(name: string, cases: readonly CaseBody[]): readonly ConformanceCase[] {
  return cases.map((body) => ({ group: name, ...body }));
}

/** What an engine does not do, said as data: the cases and the reason. */
export type Skip =
  | { readonly reason: string; readonly cases: readonly string[] }
  | { readonly reason: string; readonly needs: readonly Need[] };
