/**
 * The line of claims below a name, as etcd's own recipes form it: one key per lease, in order of
 * creation, each claim waiting only for the one before it.
 *
 * After waiting a claim reads its own key again. A claimant whose lease ended meanwhile is told so;
 * it never gets what it waited for. One that went away takes its claim along: its lease may live on,
 * and nobody would ever give up what it is granted then.
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
  /** Ends the wait. */
  readonly signal: AbortSignal;
  /** The caller went away; a wait that ends for another reason leaves the claim where it is. */
  readonly abandoned: AbortSignal;
}

/** A claim that stands, and what a call that gives it up must find. */
interface Joined {
  readonly claim: Claim;
  readonly first: boolean;
  /** This call made it: as long as the key has not changed since, no other call relies on it. */
  readonly made: boolean;
}

const SLASH = utf8('/');

export function linePrefix(name: Bytes): Bytes {
  return concatBytes(name, SLASH);
}

/** Joins the line, waits for the head of it, and answers the claim that stands there. */
export async function claim(engine: Engine, request: ClaimRequest): Promise<Claim> {
  const prefix = linePrefix(request.name);
  request.signal.throwIfAborted();
  const joined = await join(engine, prefix, request);
  if (joined.first) return joined.claim;
  try {
    return await turnOf(engine, prefix, joined.claim, request);
  } catch (error) {
    if (joined.made && request.abandoned.aborted) await giveUp(engine, joined.claim);
    throw error;
  }
}

async function turnOf(
  engine: Engine,
  prefix: Bytes,
  joined: Claim,
  { signal, expired }: ClaimRequest,
): Promise<Claim> {
  await headOfLine(engine, prefix, joined, signal);
  const { kvs, header } = await engine.range({ key: joined.key }, { signal });
  const own = kvs[0];
  if (!own || own.createRevision !== joined.createRevision) throw expired;
  return { ...joined, header };
}

/** Where the key cannot be removed now, the end of its lease does it. */
async function giveUp(engine: Engine, { key, createRevision }: Claim): Promise<void> {
  const untouched = { key, target: 'mod', result: '=', value: createRevision } as const;
  await engine.txn({ compare: [untouched], success: [{ type: 'delete', key }] }).catch(() => {});
}

/**
 * Makes the claim, or finds the one that a former call of the same lease made, and changes it: that
 * call must not give it up any more. Not called back when the caller goes away: then it would not be
 * known what there is to give up.
 */
async function join(
  engine: Engine,
  prefix: Bytes,
  { lease, value }: ClaimRequest,
): Promise<Joined> {
  const key = concatBytes(prefix, utf8(leaseHex(lease)));
  const owner = oldestOf(prefix);
  const takeUp = { type: 'put', key, ignoreValue: true, ignoreLease: true } as const;
  const { header, succeeded, results } = await engine.txn({
    compare: [{ key, target: 'create', result: '=', value: 0 }],
    success: [{ type: 'put', key, value, lease }, owner],
    failure: [{ type: 'range', key }, takeUp, owner],
  });
  const former = succeeded ? undefined : first(results[0]);
  const createRevision = former?.createRevision ?? header.revision;
  const oldest = first(results[succeeded ? 1 : 2]);
  return {
    claim: { key, createRevision, value: former?.value ?? value, header },
    first: !oldest || oldest.createRevision === createRevision,
    made: succeeded,
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
