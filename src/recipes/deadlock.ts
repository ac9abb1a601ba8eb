/**
 * Deadlocks among owners: cycles of "waits for what the next one holds".
 *
 * No scan: from a waiting claim the holder of its line is read, from the holder's lease the keys
 * it owns, and among them the claims of the same owner that still wait. Only claims that name an
 * owner take part; tasks that merely share a session do not block each other.
 *
 * The claim that came last in the cycle gives way, so that exactly one of them fails.
 */
import { type Bytes, binaryString, equalBytes, text } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import type { KeyValue, LeaseId } from '../model/transaction.ts';
import type { Authority } from './authority.ts';
import { decodeClaim } from './claim.ts';
import type { Interruption } from './interruption.ts';
import { leaseOfClaim, standsIn } from './keys.ts';
import type { Session } from './session.ts';

/** How long a claim waits before it is suspected, and how often the search is repeated. */
const SEARCH_EVERY_MS = 1_000;
const DEPTH_MAX = 64;

export interface Cycle {
  /** The locks, each held by the owner that waits for the next. */
  readonly names: readonly string[];
  readonly owners: readonly string[];
}

interface Step {
  readonly prefix: Bytes;
  readonly waiter: KeyValue;
}

interface Owner {
  readonly lease: LeaseId;
  readonly name: string;
}

/** Searches while the claim waits and interrupts it if it is the one to give way. */
export function watchForDeadlock(
  session: Session,
  prefix: Bytes,
  key: Bytes,
  interruption: Interruption,
): () => void {
  const { clock } = session.authority;
  let stopped = false;
  let cancel = (): void => {};
  const search = async (): Promise<void> => {
    try {
      const cycle = await findCycle(session.authority, prefix, key);
      if (cycle?.giveWay) interruption.interrupt(deadlockError(cycle));
    } catch {
      // The wait itself meets whatever is wrong with the connection.
    }
    arm();
  };
  const arm = (): void => {
    if (stopped) return;
    cancel = clock.wakeAt(clock.now() + SEARCH_EVERY_MS, () => session.background(search()));
  };
  arm();
  return () => {
    stopped = true;
    cancel();
  };
}

export function deadlockError(cycle: Cycle): HoldfastError {
  const story = cycle.names
    .map((name, i) => `"${name}" is held by ${cycle.owners[i]}`)
    .join(', who waits for ');
  return new HoldfastError('deadlock', `a cycle of holders and waiters: ${story}`, {
    cycle: cycle.names,
  });
}

/** Follows holders and what they wait for, from the claim at `key` until it comes back to it. */
export async function findCycle(
  authority: Authority,
  prefix: Bytes,
  key: Bytes,
): Promise<(Cycle & { readonly giveWay: boolean }) | undefined> {
  const start = (await authority.engine.range({ key })).kvs[0];
  const self = start && ownerOf(start);
  if (!start || !self) return undefined;
  const names: string[] = [];
  const owners: string[] = [];
  let youngest = start.createRevision;
  let step: Step | undefined = { prefix, waiter: start };
  const seen = new Set<string>();
  while (step && names.length < DEPTH_MAX) {
    const holder: KeyValue | undefined = await holderOf(authority, step.prefix);
    if (!holder || equalBytes(holder.key, step.waiter.key)) return undefined;
    const owner = ownerOf(holder);
    if (!owner) return undefined;
    names.push(nameOf(authority, step.prefix));
    owners.push(owner.name);
    if (owner.lease === self.lease && owner.name === self.name) {
      return { names, owners, giveWay: youngest === start.createRevision };
    }
    const id = `${owner.lease} ${owner.name}`;
    if (seen.has(id)) return undefined;
    seen.add(id);
    step = await waitingClaimOf(authority, owner);
    if (step) youngest = Math.max(youngest, step.waiter.createRevision);
  }
  return undefined;
}

/** Every cycle among the claims below a namespace; reads all of them. */
export async function findCycles(authority: Authority): Promise<Cycle[]> {
  const { kvs } = await authority.engine.range(
    prefixRange(new TextEncoder().encode(authority.namespace)),
  );
  const cycles = new Map<string, Cycle>();
  for (const kv of kvs) {
    const prefix = prefixOf(kv.key);
    if (!prefix || !ownerOf(kv) || decodeClaim(kv.value).heldMs !== undefined) continue;
    const cycle = await findCycle(authority, prefix, kv.key);
    if (cycle)
      cycles.set([...cycle.names].sort().join('\0'), { names: cycle.names, owners: cycle.owners });
  }
  return [...cycles.values()];
}

async function holderOf(authority: Authority, prefix: Bytes): Promise<KeyValue | undefined> {
  const { kvs } = await authority.engine.range({
    ...prefixRange(prefix),
    sortTarget: 'create',
    sortOrder: 'ascend',
  });
  return kvs.find((kv) => standsIn(prefix, kv.key));
}

async function waitingClaimOf(authority: Authority, owner: Owner): Promise<Step | undefined> {
  const { keys = [] } = await authority.engine.leaseInfo(owner.lease, { keys: true });
  for (const key of keys) {
    const prefix = prefixOf(key);
    if (!prefix || leaseOfClaim(prefix, key) !== owner.lease) continue;
    const waiter = (await authority.engine.range({ key })).kvs[0];
    if (!waiter || ownerOf(waiter)?.name !== owner.name) continue;
    if (decodeClaim(waiter.value).heldMs === undefined) return { prefix, waiter };
  }
  return undefined;
}

function ownerOf(kv: KeyValue): Owner | undefined {
  const { owner } = decodeClaim(kv.value);
  return owner === undefined ? undefined : { lease: kv.lease, name: owner };
}

function prefixOf(key: Bytes): Bytes | undefined {
  const slash = key.lastIndexOf(0x2f);
  return slash < 1 ? undefined : key.subarray(0, slash + 1);
}

function nameOf(authority: Authority, prefix: Bytes): string {
  return binaryString(prefix) === '' ? '' : text(prefix).slice(authority.namespace.length, -1);
}
