/**
 * Several transactions as one request, and its answer as several.
 *
 * etcd pays for a request, not for what is in it: a way through its log, a sync, a stream. Each
 * transaction is nested with its own comparisons and branches; whether it succeeds is its own affair.
 *
 *   then  if the era:  then  [if … then … else …]  [if … then … else …]  …
 *                      else  read the era, to try again
 *   else  put          never: nothing is compared, so the first branch is always taken
 *
 * The put that never happens is there for servers which do not look for puts in nested transactions
 * when they ask whether there is space left (before the fix etcd-io/etcd#22134): it makes them ask.
 */
import type { Bytes } from '../../base/bytes.ts';
import type {
  Compare,
  KeyValue,
  Operation,
  OperationResult,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import { eraIn, READ_ERA } from './tied.ts';

export interface Binding {
  /** Given, the transactions hold only in this era. */
  readonly era: Compare | undefined;
  /** A key that one of them puts. */
  readonly put: Bytes | undefined;
}

/** What the bundle adds to the operations of its heaviest member, besides one for each member. */
export const BUNDLE_OPERATIONS = 1;

export function bundle(requests: readonly TxnRequest[], { era, put }: Binding): TxnRequest {
  const nested = requests.map((request): Operation => ({ type: 'txn', ...request }));
  const failure: Operation[] = put ? [{ type: 'put', key: put }] : [];
  if (!era) return { success: nested, failure };
  const tied = { type: 'txn', compare: [era], success: nested, failure: [READ_ERA] } as const;
  return { success: [tied], failure };
}

/** An answer for each; or where the era's key stands now, because it has been lifted. */
export function unbundle(
  { header, results }: TxnResult,
  { era }: Binding,
): readonly TxnResult[] | { readonly lifted: KeyValue | undefined } {
  if (!era) return each(results, header);
  const [tied] = results;
  if (tied?.type !== 'txn') throw new Error('a nested transaction was asked for');
  if (!tied.succeeded) return { lifted: eraIn(tied.results[0]) };
  return each(tied.results, header);
}

function each(results: readonly OperationResult[], header: TxnResult['header']): TxnResult[] {
  return results.map((result) => {
    if (result.type !== 'txn') throw new Error('a nested transaction was asked for');
    return { header, succeeded: result.succeeded, results: result.results };
  });
}
