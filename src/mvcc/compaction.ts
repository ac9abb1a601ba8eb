/**
 * Forgetting history. The bound moves at once and durably; the log before it is removed afterwards
 * in small steps, so that no commit grows long. What is left of the log is its own progress record:
 * after a restart the removal goes on where it stopped.
 */
import type { Revision } from '../model/transaction.ts';
import { LOG_START, logKey, revisionOfLog } from './layout.ts';
import type { Table, TableReader } from './table.ts';

/** Revisions removed in one step. */
const STEP_REVISIONS = 5_000;

/** Whether records before the bound wait to be removed. */
export function compactionPending(table: TableReader, bound: Revision): boolean {
  return first(table, bound) !== undefined;
}

/**
 * Removes up to a step's worth of the log before `bound` and answers whether nothing is left. The
 * record of the bound itself stays, since a watch may start there.
 */
export function compactStep(table: Table, bound: Revision): boolean {
  const begin = first(table, bound);
  if (begin === undefined) return true;
  const end = Math.min(bound, begin + STEP_REVISIONS);
  table.cut(LOG_START, logKey(end));
  return end === bound;
}

function first(table: TableReader, bound: Revision): Revision | undefined {
  let found: Revision | undefined;
  table.scan(LOG_START, logKey(bound), (stored) => {
    found = revisionOfLog(stored);
    return false;
  });
  return found;
}
