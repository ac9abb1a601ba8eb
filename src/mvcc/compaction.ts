/**
 * Forgetting history. The bound moves at once and durably; the log before it is removed afterwards
 * in small steps, so that no commit grows long. What is left of the log is its own progress record:
 * after a restart the removal goes on where it stopped.
 */
import type { Bytes } from '../base/bytes.ts';
import type { Revision } from '../model/transaction.ts';
import { LOG_START, logKey } from './layout.ts';
import type { Table, TableReader } from './table.ts';

/** Log records removed in one step. */
const STEP_RECORDS = 1_000;

/** Whether records before the bound wait to be removed. */
export function compactionPending(table: TableReader, bound: Revision): boolean {
  return first(table, bound, 1).length > 0;
}

/**
 * Removes up to a step's worth of the log before `bound` and answers whether nothing is left. The
 * record of the bound itself stays, since a watch may start there.
 */
export function compactStep(table: Table, bound: Revision): boolean {
  const doomed = first(table, bound, STEP_RECORDS);
  for (const key of doomed) table.remove(key);
  return doomed.length < STEP_RECORDS;
}

function first(table: TableReader, bound: Revision, count: number): Bytes[] {
  const found: Bytes[] = [];
  table.scan(LOG_START, logKey(bound), (stored) => {
    found.push(stored);
    return found.length < count;
  });
  return found;
}
