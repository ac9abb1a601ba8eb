/**
 * The line of claims below a name, as etcd's own recipes form it: one key per lease, in order of
 * creation, each claim waiting only for the one before it.
 *
 * After waiting a claim reads its own key again. A claimant whose lease ended meanwhile is told so;
 * it never gets what it waited for.
 */
import { linkAbort } from '../../base/abort.ts';
import { type Bytes, concatBytes, utf8 } from '../../base/bytes.ts';
import type { Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import { prefixRange } from '../../model/range.ts';
import type {
  Header,
  KeyValue,
  LeaseId,
  OperationResult,
  RangeOperation,
  Revision,
} from '../../model/transaction.ts';

export interface Claim {
  readonly key: Bytes;
  readonly createRevision: Revision;
  /** What stands under the key; another value than asked for if the claim stood there before. */
  readonly value: Bytes;
  readonly header: Header;
}

export interface ClaimRequest {
  readonly name: Bytes;
  readonly lease: LeaseId;
  readonly value: Bytes;
  /** What a claimant hears whose own key is gone after the wait. */
  readonly expired: HoldfastError;
  readonly signal: AbortSignal;
}

const SLASH = utf8('/');

export function linePrefix(name: Bytes): Bytes {
  return concatBytes(name, SLASH);
}

/** Joins the line, waits for the head of it, and answers the claim that stands there. */
export async function claim(engine: Engine, request: ClaimRequest): Promise<Claim> {
  const prefix = linePrefix(request.name);
  const joined = await join(engine, prefix, request);
  if (joined.first) return joined.claim;
  await headOfLine(engine, prefix, joined.claim, request.signal);
  const { kvs, header } = await engine.range({ key: joined.claim.key }, { signal: request.signal });
  const own = kvs[0];
  if (!own || own.createRevision !== joined.claim.createRevision) throw request.expired;
  return { ...joined.claim, header };
}

async function join(
  engine: Engine,
  prefix: Bytes,
  { lease, value, signal }: ClaimRequest,
): Promise<{ claim: Claim; first: boolean }> {
  const key = concatBytes(prefix, utf8(leaseHex(lease)));
  const owner = oldestOf(prefix);
  const { header, succeeded, results } = await engine.txn(
    {
      compare: [{ key, target: 'create', result: '=', value: 0 }],
      success: [{ type: 'put', key, value, lease }, owner],
      failure: [{ type: 'range', key }, owner],
    },
    { signal },
  );
  const former = succeeded ? undefined : first(results[0]);
  const createRevision = former?.createRevision ?? header.revision;
  const oldest = first(results[1]);
  return {
    claim: { key, createRevision, value: former?.value ?? value, header },
    first: !oldest || oldest.createRevision === createRevision,
  };
}

/** Waits until nobody who came before stands in the line any more. */
async function headOfLine(
  engine: Engine,
  prefix: Bytes,
  own: Claim,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const { kvs, header } = await engine.range(
      {
        ...prefixRange(prefix),
        sortTarget: 'create',
        sortOrder: 'descend',
        limit: 1,
        maxCreateRevision: own.createRevision - 1,
      },
      { signal },
    );
    const before = kvs[0];
    if (!before) return;
    await gone(engine, before.key, header.revision + 1, own.key, signal);
  }
}

/**
 * Waits for the end of a key, or of one's own: who lost its place need not wait for its turn. Two
 * single keys and not the whole line, so that a departure wakes one waiter and not all.
 */
async function gone(
  engine: Engine,
  key: Bytes,
  startRevision: Revision,
  own: Bytes,
  signal: AbortSignal,
): Promise<void> {
  const over = linkAbort(signal);
  const ends = [key, own].map((watched) =>
    deletion(engine, { key: watched, startRevision }, over.signal),
  );
  try {
    await Promise.race(ends);
  } finally {
    over.unlink();
    over.controller.abort();
    await Promise.allSettled(ends);
  }
}

async function deletion(
  engine: Engine,
  from: { readonly key: Bytes; readonly startRevision: Revision },
  signal: AbortSignal,
): Promise<void> {
  await using watch = engine.watch({ ...from, noPut: true }, { signal });
  for await (const { events } of watch) if (events.length > 0) return;
  throw new HoldfastError('closed', 'the watch ended while waiting in line');
}

export function oldestOf(prefix: Bytes): RangeOperation {
  return {
    type: 'range',
    ...prefixRange(prefix),
    sortTarget: 'create',
    sortOrder: 'ascend',
    limit: 1,
  };
}

export function first(result: OperationResult | undefined): KeyValue | undefined {
  return result?.type === 'range' ? result.kvs[0] : undefined;
}
