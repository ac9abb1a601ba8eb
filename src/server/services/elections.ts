/** etcd's Lock and Election recipes on any engine, for clients that leave the waiting to the server. */
import { type Bytes, equalBytes, text } from '../../base/bytes.ts';
import type { Engine } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import { leaseHex } from '../../model/lease.ts';
import { prefixRange } from '../../model/range.ts';
import type { Header, KeyValue, LeaseId, Revision } from '../../model/transaction.ts';
import { type Claim, type ClaimRequest, claim, linePrefix } from './line.ts';

/** What identifies one leadership; a proof only together with its create revision. */
export interface LeaderKey {
  readonly name: Bytes;
  readonly key: Bytes;
  readonly rev: Revision;
  readonly lease: LeaseId;
}

const NO_VALUE: Bytes = new Uint8Array(0);

/** When to stop waiting; see `ClaimRequest`. */
export type Wait = Pick<ClaimRequest, 'signal' | 'abandoned'>;

export function lock(
  engine: Engine,
  { name, lease }: { readonly name: Bytes; readonly lease: LeaseId },
  wait: Wait,
): Promise<Claim> {
  const expired = new HoldfastError('session-lost', 'mutex: session is expired');
  return claim(engine, { name, lease, value: NO_VALUE, expired, ...wait });
}

/** Removes a claim from its line; a key that is no claim is left alone. */
export async function unlock(engine: Engine, key: Bytes): Promise<Header> {
  const slash = key.lastIndexOf(0x2f);
  const lease = /^[0-9a-f]{1,16}$/.exec(text(key.subarray(slash + 1)));
  if (slash < 0 || !lease) {
    throw new HoldfastError('invalid-argument', 'this is not the key of a lock');
  }
  const { header } = await engine.txn({
    compare: [{ key, target: 'lease', result: '=', value: BigInt(`0x${lease[0]}`) }],
    success: [{ type: 'delete', key }],
  });
  return header;
}

export async function campaign(
  engine: Engine,
  request: { readonly name: Bytes; readonly lease: LeaseId; readonly value: Bytes },
  wait: Wait,
): Promise<{ readonly header: Header; readonly leader: LeaderKey }> {
  const { name, lease, value } = request;
  const expired = new HoldfastError(
    'lease-not-found',
    `the lease ${leaseHex(lease)} of this candidate ended while it waited`,
  );
  const won = await claim(engine, { name, lease, value, expired, ...wait });
  const leader: LeaderKey = { name, key: won.key, rev: won.createRevision, lease };
  if (equalBytes(won.value, value)) return { header: won.header, leader };
  return { header: await proclaim(engine, leader, value), leader };
}

export async function proclaim(engine: Engine, leader: LeaderKey, value: Bytes): Promise<Header> {
  const { succeeded, header } = await engine.txn({
    compare: [{ key: leader.key, target: 'create', result: '=', value: leader.rev }],
    success: [{ type: 'put', key: leader.key, value, ignoreLease: true }],
  });
  if (!succeeded) throw new HoldfastError('not-leader', 'election: not leader');
  return header;
}

/** Who does not lead any more has nothing to give up; that is a success. */
export async function resign(engine: Engine, leader: LeaderKey): Promise<Header> {
  const { header } = await engine.txn({
    compare: [{ key: leader.key, target: 'create', result: '=', value: leader.rev }],
    success: [{ type: 'delete', key: leader.key }],
  });
  return header;
}

export async function leader(
  engine: Engine,
  name: Bytes,
  signal: AbortSignal,
): Promise<{ readonly header: Header; readonly kv: KeyValue }> {
  const { kvs, header } = await oldest(engine, name, signal);
  const kv = kvs[0];
  if (!kv) throw new HoldfastError('no-leader', 'election: no leader');
  return { header, kv };
}

/** The current leader first, then each of its proclamations, then the next leader, and so on. */
export async function* observe(
  engine: Engine,
  name: Bytes,
  signal: AbortSignal,
): AsyncGenerator<{ readonly header: Header; readonly kv: KeyValue }> {
  for (;;) {
    const { kvs, header } = await oldest(engine, name, signal);
    const current = kvs[0];
    if (current) yield { header, kv: current };
    const range = current ? { key: current.key } : prefixRange(linePrefix(name));
    await using watch = engine.watch({ ...range, startRevision: header.revision + 1 }, { signal });
    reign: for await (const batch of watch) {
      for (const event of batch.events) {
        if (!current || event.type === 'delete') break reign;
        yield { header: batch.header, kv: event.kv };
      }
    }
  }
}

function oldest(engine: Engine, name: Bytes, signal: AbortSignal): ReturnType<Engine['range']> {
  return engine.range(
    { ...prefixRange(linePrefix(name)), sortTarget: 'create', sortOrder: 'ascend', limit: 1 },
    { signal },
  );
}
