/**
 * Transactions that hold only in the era they were made for.
 *
 * etcd knows no era; it stands under a key of ours. A transaction that attaches a lease, as every
 * grant does, compares that key too. The usual answer, success, then comes back flat; only a failure
 * has to be told apart: by the caller's own comparison, or by the era's.
 *
 *   if    what the caller compares, and the era
 *   then  what the caller wants
 *   else  if the era: what the caller wants else; if not: read the era, to try again
 */
import type {
  Compare,
  KeyValue,
  OperationResult,
  RangeOperation,
  TxnRequest,
  TxnResult,
} from '../../model/transaction.ts';
import { ERA_KEY } from './history.ts';

export interface Survey {
  attachesLease: boolean;
  writes: boolean;
  /** Comparisons and operations on all levels. */
  parts: number;
}

export function survey(request: TxnRequest, into?: Survey): Survey {
  const found = into ?? { attachesLease: false, writes: false, parts: 0 };
  const { compare, success, failure } = request;
  if (compare) found.parts += compare.length;
  for (const branch of [success, failure]) {
    if (!branch) continue;
    found.parts += branch.length;
    for (const operation of branch) {
      if (operation.type === 'txn') survey(operation, found);
      else if (operation.type !== 'range') {
        found.writes = true;
        if (operation.type === 'put' && operation.lease) found.attachesLease = true;
      }
    }
  }
  return found;
}

/** What tying adds: two comparisons, two operations. */
const TIE_PARTS = 4;
export const READ_ERA: RangeOperation = { type: 'range', key: ERA_KEY };

export interface Tie {
  readonly request: TxnRequest;
  /** The caller's answer; or where the era's key stands now, because it has been lifted. */
  untie(answer: TxnResult): TxnResult | { readonly lifted: KeyValue | undefined };
}

/**
 * The server counts the operations of nested transactions against those around them; a request so
 * large that this could matter is nested as a whole, which costs one operation only.
 */
export function tie(request: TxnRequest, era: Compare, parts: number, partsMax: number): Tie {
  return parts + TIE_PARTS > partsMax ? tieWhole(request, era) : tieFlat(request, era);
}

function tieFlat({ compare = [], success = [], failure = [] }: TxnRequest, era: Compare): Tie {
  const otherwise = { type: 'txn', compare: [era], success: failure, failure: [READ_ERA] } as const;
  return {
    request: { compare: [...compare, era], success, failure: [otherwise] },
    untie: (answer) => {
      if (answer.succeeded) return answer;
      const inner = answer.results[0];
      if (inner?.type !== 'txn') throw new Error('a nested transaction was asked for');
      if (!inner.succeeded) return { lifted: eraIn(inner.results[0]) };
      return { header: answer.header, succeeded: false, results: inner.results };
    },
  };
}

function tieWhole(request: TxnRequest, era: Compare): Tie {
  return {
    request: { compare: [era], success: [{ type: 'txn', ...request }], failure: [READ_ERA] },
    untie: ({ header, succeeded, results: [inner] }) => {
      if (!succeeded) return { lifted: eraIn(inner) };
      if (inner?.type !== 'txn') throw new Error('a nested transaction was asked for');
      return { header, succeeded: inner.succeeded, results: inner.results };
    },
  };
}

export function eraIn(result: OperationResult | undefined): KeyValue | undefined {
  return result?.type === 'range' ? result.kvs[0] : undefined;
}
