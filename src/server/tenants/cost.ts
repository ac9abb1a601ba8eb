/**
 * What a request costs the others, in milliseconds of a server: roughly, and never less than nothing.
 * What can be known before it runs is reckoned before; what an answer held, afterwards. The figures
 * are those of a plain processor and a plain disk; only their proportions matter.
 */
import type { OperationResult, RangeResult, TxnRequest } from '../../model/transaction.ts';

/** Any request: it is read, judged and answered. */
export const REQUEST_MS = 0.02;
const OPERATION_MS = 0.02;
/** A byte is written to a journal, synced, and moved into the tree later: about 50 MB/s. */
const BYTE_WRITTEN_MS = 2e-5;
/** An event is encoded and sent once for each watch. */
const EVENT_MS = 0.01;
const KEY_COUNTED_MS = 5e-4;
const KEY_READ_MS = 2e-3;
const BYTE_READ_MS = 5e-6;

/** Of either branch, the dearer one: `watches` of its tenant may be told of it. */
export function costOfTxn(request: TxnRequest, watches: number): number {
  return REQUEST_MS + operationsMs(request, watches);
}

function operationsMs(request: TxnRequest, watches: number): number {
  const branch = (operations: TxnRequest['success'] = []): number => {
    let ms = 0;
    for (const operation of operations) {
      ms += OPERATION_MS;
      if (operation.type === 'txn') ms += operationsMs(operation, watches);
      if (operation.type !== 'put') continue;
      const bytes = operation.key.length + (operation.value?.length ?? 0);
      ms += bytes * BYTE_WRITTEN_MS + watches * (EVENT_MS + bytes * BYTE_READ_MS);
    }
    return ms;
  };
  return Math.max(branch(request.success), branch(request.failure));
}

/** What could not be known before: how much was found. */
export function costOfFound({ kvs, count }: Pick<RangeResult, 'kvs' | 'count'>): number {
  let bytes = 0;
  for (const { key, value } of kvs) bytes += key.length + value.length;
  return count * KEY_COUNTED_MS + kvs.length * KEY_READ_MS + bytes * BYTE_READ_MS;
}

export function costOfResults(results: readonly OperationResult[], watches: number): number {
  let ms = 0;
  for (const result of results) {
    if (result.type === 'range') ms += costOfFound(result);
    if (result.type === 'delete') ms += result.deleted * (OPERATION_MS + watches * EVENT_MS);
    if (result.type === 'txn') ms += costOfResults(result.results, watches);
  }
  return ms;
}
