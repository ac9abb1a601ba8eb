/**
 * What may be sealed: the claim of a lock or an election that is held now.
 *
 * A claim is a key `<name>/<lease in hex>` that stands on this very lease, and it is held when no
 * claim in its line is older. A waiter's token is higher than the holder's; sealed too early it
 * would shut the holder out.
 */
import { type Bytes, equalBytes, text, utf8 } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import { prefixRange } from '../../model/range.ts';
import { RESOURCE_LENGTH_MAX } from '../../model/seal.ts';
import { makeToken, type Token } from '../../model/token.ts';
import type {
  Header,
  KeyValue,
  LeaseId,
  RangeOperation,
  RangeOperationResult,
  TxnResult,
} from '../../model/transaction.ts';
import { leaseOfClaim, standsIn } from '../../recipes/keys.ts';
import type { Backend, Call } from '../backend.ts';

export interface ClaimRequest {
  readonly key: Bytes;
  /** 0: the one that the key names. */
  readonly lease: LeaseId;
  /** 0: whichever the claim has. */
  readonly token: Token;
}

export interface HeldClaim {
  readonly header: Header;
  /** The name of the lock or election; guards know the resource by it. */
  readonly resource: string;
  readonly lease: LeaseId;
  readonly token: Token;
}

interface Place {
  readonly prefix: Bytes;
  readonly resource: string;
  readonly lease: LeaseId;
}

/** Claims read at first; those of locks below this one's name stand among them. */
const OLDEST_LIMIT = 16;
const SLASH = 0x2f;
const OUR_OWN = /(^|\/)\.holdfast(\/|$)/;

/** Judged at the one door, then read linearizably. Errors: `invalid-argument`, `grant-lost`. */
export async function heldClaim(
  backend: Backend,
  request: ClaimRequest,
  call: Call,
): Promise<HeldClaim> {
  const { key } = request;
  // Who may not write the claim could not have made it.
  backend.gate.keys(call.identity, [{ right: 'write', range: { key } }]);
  const place = placeOf(request);
  const { kv, header } = await holder(backend, key, place.prefix, call);
  if (!kv || kv.lease !== place.lease) throw notHeld('there is no claim of this lease');
  const token = makeToken(header.era, kv.createRevision);
  if (request.token !== 0n && request.token !== token) {
    throw notHeld(`the claim there has token ${token}, not ${request.token}`);
  }
  return { header, resource: place.resource, lease: place.lease, token };
}

function placeOf({ key, lease }: ClaimRequest): Place {
  const slash = key.lastIndexOf(SLASH);
  const prefix = key.subarray(0, slash + 1);
  const named = slash > 0 ? leaseOfClaim(prefix, key) : undefined;
  if (named === undefined || named === 0n) {
    throw new HoldfastError(
      'invalid-argument',
      'this is not the key of a lock or an election: its name, a slash, its lease in hex',
    );
  }
  if (lease !== 0n && lease !== named) {
    throw notHeld(`the claim is of lease ${leaseHex(named)}, not of ${leaseHex(lease)}`);
  }
  return { prefix, resource: resourceOf(key.subarray(0, slash)), lease: named };
}

/** One name for one line: bytes that are no text would be the name of several. */
function resourceOf(name: Bytes): string {
  const resource = text(name);
  if (!equalBytes(utf8(resource), name) || resource.length > RESOURCE_LENGTH_MAX) {
    throw new HoldfastError(
      'invalid-argument',
      `a guard knows resources by text of 1 to ${RESOURCE_LENGTH_MAX} characters`,
    );
  }
  if (OUR_OWN.test(resource)) {
    throw new HoldfastError(
      'invalid-argument',
      'only locks and elections are sealed, no permits and read-write locks',
    );
  }
  return resource;
}

/** The key as it stands, if no older claim stands in its line; `grant-lost` if one does. */
async function holder(
  backend: Backend,
  key: Bytes,
  prefix: Bytes,
  call: Call,
): Promise<{ readonly kv: KeyValue | undefined; readonly header: Header }> {
  const own: RangeOperation = { type: 'range', key, keysOnly: true };
  const oldest: RangeOperation = {
    type: 'range',
    ...prefixRange(prefix),
    sortTarget: 'create',
    sortOrder: 'ascend',
    keysOnly: true,
  };
  for (const limit of [OLDEST_LIMIT, 0]) {
    const answer = await backend.txn({ success: [own, { ...oldest, limit }] }, call);
    const [kv] = rangeIn(answer, 0).kvs;
    if (!kv) return { kv, header: answer.header };
    const { kvs, more } = rangeIn(answer, 1);
    const first = kvs.find((other) => standsIn(prefix, other.key));
    if (!first && more) continue;
    // A lock with a delay has two keys of one revision: the same claim.
    if (first && first.createRevision < kv.createRevision) {
      throw notHeld('the claim waits in its line; only a holder’s token is sealed');
    }
    return { kv, header: answer.header };
  }
  throw new Error('without a limit there is no more');
}

function rangeIn({ results }: TxnResult, at: number): RangeOperationResult {
  const result = results[at];
  if (result?.type !== 'range') throw new Error('a range was asked for');
  return result;
}

function notHeld(why: string): HoldfastError {
  return new HoldfastError('grant-lost', `not held: ${why}`);
}
