/**
 * Moving house: everything of one engine into another, so that whoever queued still queues in the
 * same order and every token granted afterwards is above every token granted before.
 *
 * Keys are put in the order of their creation, each creation in a transaction of its own, because
 * the order of creation is the order of the line at a lock. Leases keep their ids and their full TTL,
 * counted anew; versions and revisions count anew too. The era of the target is raised above the source's first, so the number of a
 * revision in the old house never competes with one in the new; a grant from the old house is not
 * held in the new one, but its place in the line is kept under the same key.
 *
 * Invariant: the target is written only after its era was raised, and `copy` answers only if the
 * source did not change meanwhile. If it fails on the way, the target is not a house to move into;
 * say so to its users, or empty it and begin again.
 */
import type { Bytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { keyAfter } from '../model/range.ts';
import type { Header, KeyValue, LeaseId, Operation, Revision } from '../model/transaction.ts';
import type { Engine } from './contract.ts';

export interface CopyOptions {
  /** Copy into a target that holds keys already; keys of the same name are overwritten. */
  readonly intoNonEmpty?: boolean;
  readonly signal?: AbortSignal;
  /** Told after each step. */
  readonly onProgress?: (progress: CopyProgress) => void;
}

export interface CopyProgress {
  readonly keys: number;
  readonly leases: number;
}

export interface Copied extends CopyProgress {
  /** Where the source stood, and what was copied. */
  readonly source: Header;
  /** Where the target stands afterwards; its era is above that of both before. */
  readonly target: Header;
}

const PAGE = 500;
const ZERO: Bytes = Uint8Array.of(0);

export async function copy(from: Engine, to: Engine, options: CopyOptions = {}): Promise<Copied> {
  const { signal, onProgress = () => {} } = options;
  const call = { signal };
  const before = await to.range({ key: ZERO, end: ZERO, limit: 1, keysOnly: true }, call);
  if (before.count > 0 && !options.intoNonEmpty) {
    const message = `the target holds ${before.count} keys; move into an empty one, or say intoNonEmpty`;
    throw new HoldfastError('invalid-argument', message);
  }
  const { header: source } = await from.status(call);
  await to.liftEra(Math.max(source.era, before.header.era) + 1, call);

  const kvs = await everything(from, source.revision, signal);
  const leases = await copyLeases(from, to, kvs, signal);
  onProgress({ keys: 0, leases: leases.size });
  let keys = 0;
  for (const creation of byCreation(kvs)) {
    for (const part of parts(creation, to.capabilities)) {
      await to.txn({ success: part.map((kv) => putOf(kv, leases)) }, call);
      keys += part.length;
    }
    onProgress({ keys, leases: leases.size });
  }
  await refuseChange(from, source, signal);
  const { header: target } = await to.status(call);
  return { source, target, keys, leases: leases.size };
}

/** All keys as they stood at one revision. */
async function everything(
  engine: Engine,
  revision: Revision,
  signal: AbortSignal | undefined,
): Promise<KeyValue[]> {
  const kvs: KeyValue[] = [];
  for (let key: Bytes | undefined = ZERO; key; ) {
    const page = await engine.range({ key, end: ZERO, revision, limit: PAGE }, { signal });
    kvs.push(...page.kvs);
    const last: KeyValue | undefined = page.kvs[page.kvs.length - 1];
    key = page.more && last ? keyAfter(last.key) : undefined;
  }
  return kvs;
}

/** A lease that just ended is left behind. */
async function copyLeases(
  from: Engine,
  to: Engine,
  kvs: readonly KeyValue[],
  signal: AbortSignal | undefined,
): Promise<ReadonlySet<LeaseId>> {
  const ids = new Set(await (from.operator?.leases() ?? []));
  for (const { lease } of kvs) if (lease !== 0n) ids.add(lease);
  const copied = new Set<LeaseId>();
  for (const id of ids) {
    try {
      const { grantedTtlMs } = await from.leaseInfo(id, { signal });
      await to.grantLease({ id, ttlMs: grantedTtlMs }, { signal });
      copied.add(id);
    } catch (error) {
      if (!HoldfastError.is(error, 'lease-not-found')) throw error;
    }
  }
  return copied;
}

/** Keys that were created together, oldest creation first. */
function* byCreation(kvs: readonly KeyValue[]): Iterable<readonly KeyValue[]> {
  const sorted = [...kvs].sort((a, b) => a.createRevision - b.createRevision);
  for (let i = 0; i < sorted.length; ) {
    const first = sorted[i]!;
    const start = i;
    while (sorted[i]?.createRevision === first.createRevision) i++;
    yield sorted.slice(start, i);
  }
}

/** What was created together goes together, as far as one transaction of the target can carry it. */
function* parts(
  kvs: readonly KeyValue[],
  limits: { readonly operationsMax: number; readonly requestBytesMax: number },
): Iterable<readonly KeyValue[]> {
  let part: KeyValue[] = [];
  let bytes = 0;
  for (const kv of kvs) {
    const size = kv.key.length + kv.value.length;
    const full = part.length >= limits.operationsMax || bytes + size > limits.requestBytesMax;
    if (part.length > 0 && full) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(kv);
    bytes += size;
  }
  if (part.length > 0) yield part;
}

/** A key whose lease has ended meanwhile would live for ever; it is refused as a change. */
function putOf(kv: KeyValue, leases: ReadonlySet<LeaseId>): Operation {
  const { key, value, lease } = kv;
  if (lease === 0n) return { type: 'put', key, value };
  if (!leases.has(lease)) throw changed('a lease ended while it was copied');
  return { type: 'put', key, value, lease };
}

async function refuseChange(
  from: Engine,
  source: Header,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { header } = await from.status({ signal });
  if (header.revision === source.revision && header.era === source.era) return;
  throw changed(`it went from revision ${source.revision} to ${header.revision}`);
}

function changed(what: string): HoldfastError {
  return new HoldfastError(
    'conflict',
    `the source changed while it was copied (${what}); stop its users, empty the target, begin again`,
    { outcome: 'unknown' },
  );
}
