/** Looking at a line from outside, and the operator's hand in it. */
import { type Bytes, binaryString, utf8 } from '../base/bytes.ts';
import { crc32c } from '../base/checksum.ts';
import { HoldfastError } from '../model/errors.ts';
import { leaseHex } from '../model/lease.ts';
import { prefixRange } from '../model/range.ts';
import { makeToken, type Token } from '../model/token.ts';
import type { KeyValue } from '../model/transaction.ts';
import { type Claim, claimOf } from './claim.ts';
import { ownKey, standsIn } from './keys.ts';
import { isOurs } from './line.ts';
import type { Session } from './session.ts';

export interface SeenClaim extends Claim {
  readonly token: Token;
  /** 0: the holder. */
  readonly position: number;
  /** What is left of its lease; absent when it ended meanwhile. */
  readonly ttlLeftMs?: number | undefined;
}

export interface LineReport {
  readonly holder: SeenClaim | undefined;
  readonly waiters: readonly SeenClaim[];
  /** Both, in order. */
  readonly claims: readonly SeenClaim[];
}

export interface Breaking {
  /** Why; the holder is told. */
  readonly reason: string;
  /** Who; default: this session's holder name. */
  readonly by?: string;
}

export async function inspectLine(
  session: Session,
  prefix: Bytes,
  leases = true,
): Promise<LineReport> {
  const { engine } = session.authority;
  const { kvs, header } = await readLine(session, prefix);
  const claims = await Promise.all(
    withoutDelays(kvs).map(async (kv, position): Promise<SeenClaim> => {
      const token = makeToken(header.era, kv.createRevision);
      const claim = { ...claimOf(kv), token, position };
      if (!leases || kv.lease === 0n) return claim;
      return { ...claim, ttlLeftMs: await remaining(() => engine.leaseInfo(kv.lease)) };
    }),
  );
  return { holder: claims[0], waiters: claims.slice(1), claims };
}

async function remaining(
  ask: () => Promise<{ readonly remainingTtlMs: number }>,
): Promise<number | undefined> {
  try {
    return (await ask()).remainingTtlMs;
  } catch (error) {
    if (HoldfastError.is(error, 'lease-not-found')) return undefined;
    throw error;
  }
}

async function readLine(session: Session, prefix: Bytes) {
  const { engine } = session.authority;
  const { kvs, header } = await session.call(() =>
    engine.range({ ...prefixRange(prefix), sortTarget: 'create', sortOrder: 'ascend' }),
  );
  return { kvs: kvs.filter((kv) => standsIn(prefix, kv.key)), header };
}

/** A claim with a lock-delay stands there twice, made in one revision. */
function withoutDelays(kvs: readonly KeyValue[]): KeyValue[] {
  return kvs.filter((kv, i) => kvs[i - 1]?.createRevision !== kv.createRevision);
}

/** Claims of one session on several names may have one revision. */
function noteName({ key, createRevision }: KeyValue): string {
  return `${createRevision}/${crc32c(key).toString(16)}`;
}

/**
 * Removes the first claim and leaves a note under its lease, so that the holder learns why. The
 * compare names the claim: a holder that came meanwhile is not touched.
 */
export async function breakClaim(
  session: Session,
  prefix: Bytes,
  breaking: Breaking,
): Promise<boolean> {
  const { engine, namespace } = session.authority;
  const { kvs } = await readLine(session, prefix);
  const first = kvs[0];
  if (!first) return false;
  const same = kvs.filter((kv) => kv.createRevision === first.createRevision);
  const by = breaking.by ?? session.identity.holder;
  const notes = same
    .filter((kv) => kv.lease !== 0n)
    .map((kv) => ({
      type: 'put' as const,
      key: ownKey(namespace, 'broken', leaseHex(kv.lease), noteName(kv)),
      value: utf8(JSON.stringify({ key: binaryString(kv.key), reason: breaking.reason, by })),
      lease: kv.lease,
    }));
  const answer = await session.call(() =>
    engine.txn({
      compare: same.map((kv) => isOurs(kv.key, kv.createRevision)),
      success: [...same.map((kv) => ({ type: 'delete' as const, key: kv.key })), ...notes],
      failure: [{ type: 'range', key: first.key, countOnly: true }],
    }),
  );
  return answer.succeeded;
}
