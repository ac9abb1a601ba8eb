/**
 * What a request takes from somebody who holds it.
 *
 * A release by force says so itself: the recipes put a note under the holder's lease, with the
 * reason and who did it, in the transaction that deletes the claim. Beyond that the store does not
 * know whose a lease is. What can be told honestly: an operator deletes a claim on a lock or an
 * election, `…/<lease in hex>` on that very lease, or ends a lease, which this connection of his did
 * not get itself.
 */
import { type Bytes, fromBinaryString, printable, text } from '../../base/bytes.ts';
import type { Engine } from '../../engine/contract.ts';
import { isSingle, type KeyRange } from '../../model/range.ts';
import type {
  KeyValue,
  LeaseId,
  Operation,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import { parseRecord } from '../../recipes/authority.ts';

export interface Taking {
  readonly act: string;
  readonly subject: string;
  readonly reason: string;
}

const NOTES = '.holdfast/broken/';
const CLAIM = /\/([0-9a-f]{1,16})(?:[-~][^/]*)?$/;
/** Keys looked at in what an operator deletes. */
const LOOKED_AT_MAX = 1_000;

/** As quick as can be: nearly no transaction is one. */
export function mayBreak({ success }: TxnRequest): boolean {
  return success !== undefined && success.length > 1 && success[0]!.type === 'delete';
}

export function breakingOf({ success = [] }: TxnRequest): Taking | undefined {
  for (const operation of success) {
    if (operation.type !== 'put' || !text(operation.key).includes(NOTES)) continue;
    const { key, reason, by } = parseRecord(operation.value ?? new Uint8Array(0)) ?? {};
    if (typeof key !== 'string') continue;
    const why = typeof reason === 'string' ? reason : '';
    const who = typeof by === 'string' ? ` (by ${by})` : '';
    return { act: 'lock.break', subject: printable(fromBinaryString(key)), reason: why + who };
  }
  return undefined;
}

/** What an operator's transaction deletes of others, whichever branch runs. */
export async function takingOf(
  request: TxnRequest,
  view: Engine,
  isOwn: (lease: LeaseId) => boolean,
): Promise<Taking | undefined> {
  const claims: string[] = [];
  let unseen = false;
  for (const range of deletions(request)) {
    if (isSingle(range) && !isOthers(leaseIn(range.key), isOwn)) continue;
    const { kvs, more } = await view.range({ ...range, keysOnly: true, limit: LOOKED_AT_MAX });
    for (const kv of kvs) if (isClaim(kv) && !isOwn(kv.lease)) claims.push(printable(kv.key));
    unseen ||= more;
  }
  if (claims.length === 0 && !unseen) return undefined;
  const reason = unseen ? `of more than ${LOOKED_AT_MAX} keys, in which there may be more` : '';
  return { act: 'claim.delete', subject: claims.join(' '), reason };
}

/** Whether a key went, whichever branch ran. */
export function deletesIn({ results }: Pick<TxnResult, 'results'>): boolean {
  return results.some((result) => {
    if (result.type === 'txn') return deletesIn(result);
    return result.type === 'delete' && result.deleted > 0;
  });
}

function deletions(request: TxnRequest): KeyRange[] {
  const found: KeyRange[] = [];
  const visit = (operation: Operation): void => {
    if (operation.type === 'txn') all(operation).forEach(visit);
    else if (operation.type === 'delete') found.push({ key: operation.key, end: operation.end });
  };
  all(request).forEach(visit);
  return found;
}

function all({ success = [], failure = [] }: TxnRequest): Operation[] {
  return [...success, ...failure];
}

export function leaseIn(key: Bytes): LeaseId | undefined {
  const hex = CLAIM.exec(text(key))?.[1];
  return hex === undefined ? undefined : BigInt(`0x${hex}`);
}

function isOthers(lease: LeaseId | undefined, isOwn: (lease: LeaseId) => boolean): boolean {
  return lease !== undefined && !isOwn(lease);
}

function isClaim({ key, lease }: KeyValue): boolean {
  return lease !== 0n && leaseIn(key) === lease;
}
