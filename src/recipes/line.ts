/**
 * Standing in a line: the part that locks, multi-locks and elections have in common.
 *
 * A claim is a key under the line's prefix, attached to the session's lease; the order is that of
 * create revisions. Who is not first watches the one claim before its own and nothing else, so a
 * handover wakes one waiter. Whoever waited reads its own claim again before it believes in it: in
 * the meantime its lease may have ended or an operator may have removed it.
 *
 *   prefix            "orders/42/"
 *   orders/42/7a3f    created at 10, held      ← first
 *   orders/42/51c0    created at 12            watches 7a3f
 *   orders/42/7a3f-1  created at 15            watches 51c0; another task of the first session
 *
 * A holder of ours marks its claim as held. A waiter whose predecessor was marked knows, when that
 * one is gone, that nobody else is left before it: the handover costs the same however long the
 * line is. Behind a foreign holder, who marks nothing, the line is read again.
 */
import { type Bytes, equalBytes } from '../base/bytes.ts';
import { HoldfastError } from '../model/errors.ts';
import { prefixRange } from '../model/range.ts';
import type {
  Compare,
  Header,
  KeyValue,
  Operation,
  OperationResult,
  RangeOperation,
  Revision,
  TxnRequest,
  TxnResult,
} from '../model/transaction.ts';
import { backOff, mayResume } from './authority.ts';
import { decodeClaim } from './claim.ts';
import type { Interruption } from './interruption.ts';
import { type ClaimKeys, claimKeys, standsIn } from './keys.ts';
import type { Session } from './session.ts';

/** Newest claims read with an enqueueing; the one before ours is nearly always among them. */
const NEWEST_LIMIT = 8;

export interface Place {
  readonly key: Bytes;
  readonly createRevision: Revision;
  /** Where the history stood, for the watch that follows. */
  readonly header: Header;
  /** The claim is first, and was when it was made. */
  readonly first: boolean;
  readonly before: KeyValue | undefined;
  /** The request was sent more than once: an earlier one may still arrive. */
  readonly doubtful: boolean;
}

/** A place in the line; or none, because it is taken and the claim was not to wait. */
export type Entered = Place | { readonly taken: true; readonly doubtful: boolean };

/** Which earlier claims a claim must wait for. */
export type Blocks = (other: KeyValue) => boolean;

export interface Line {
  readonly session: Session;
  readonly prefix: Bytes;
  readonly blocks: Blocks;
  /** Claims say in their value when they became holds; not so where the value is the user's. */
  readonly marked: boolean;
  /** Where this session's claims have their keys. */
  readonly keys: ClaimKeys;
  /** They stand in the line's own range: while it is empty, none of them exists. */
  readonly holdsKeys: boolean;
  /** Holds while nobody claims. */
  readonly empty: Compare;
  readonly newest: RangeOperation;
}

export interface LineOptions {
  /** Default true. */
  readonly marked?: boolean;
  /** Default: every claim in the line itself, not those in lines below it. */
  readonly blocks?: Blocks;
  /** Where claims are made. Default: directly in the line. */
  readonly keyPrefix?: Bytes;
}

/** All that an acquire needs to know of its line; it may be kept for the next one. */
export function lineOf(session: Session, prefix: Bytes, options: LineOptions = {}): Line {
  const { marked = true, keyPrefix = prefix } = options;
  return {
    session,
    prefix,
    marked,
    blocks: options.blocks ?? ((other) => standsIn(prefix, other.key)),
    keys: claimKeys(keyPrefix, session.id),
    holdsKeys: startsWith(keyPrefix, prefix),
    empty: emptyLine(prefix),
    newest: newestClaims(prefix),
  };
}

/** True while nobody claims. */
export function emptyLine(prefix: Bytes): Compare {
  const { key, end } = prefixRange(prefix);
  return { key, end, target: 'create', result: '=', value: 0 };
}

export function isOurs(key: Bytes, createRevision: Revision): Compare {
  return { key, target: 'create', result: '=', value: createRevision };
}

function newestClaims(prefix: Bytes): RangeOperation {
  const { key, end } = prefixRange(prefix);
  const order = { sortTarget: 'create', sortOrder: 'descend' } as const;
  return { type: 'range', key, end, ...order, limit: NEWEST_LIMIT };
}

export interface Entry {
  readonly key: Bytes;
  /** Writes that make the claim a hold. */
  readonly hold: readonly Operation[];
  /** Writes that join the line. */
  readonly wait: readonly Operation[];
  /** False: a taken line is left alone. */
  readonly join: boolean;
  /** The claim's place matters among other lines too, as in the search for deadlocks. */
  readonly placedAmongAll?: boolean | undefined;
}

/**
 * Takes the line if it is empty, joins it otherwise. Sent again after a lost answer it finds its
 * own key and changes nothing.
 */
export function enter(line: Line, entry: Entry, interruption?: Interruption): Promise<Entered> {
  const { session } = line;
  const { engine } = session.authority;
  const request = entryRequest(line, entry);
  // No other claim on this line can share the revision: the comparison covers the key.
  const options = { shareRevision: !entry.placedAmongAll && line.holdsKeys };
  let sent = 0;
  const send = (): Promise<TxnResult> => {
    sent++;
    return engine.txn(request, options);
  };
  return session
    .call(send, interruption)
    .then((answer) =>
      answer.succeeded ? taken(entry, answer, sent > 1) : joined(line, entry, answer, sent > 1),
    );
}

function taken({ key }: Entry, { header }: TxnResult, doubtful: boolean): Place {
  const createRevision = header.revision;
  return { key, createRevision, header, first: true, before: undefined, doubtful };
}

function entryRequest(line: Line, { key, hold, wait, join }: Entry): TxnRequest {
  const { empty, newest, holdsKeys } = line;
  const absent: Compare = { key, target: 'create', result: '=', value: 0 };
  const joining: Operation = {
    type: 'txn',
    compare: [absent],
    success: join ? [...wait, newest] : [newest],
    failure: [{ type: 'range', key }, newest],
  };
  return { compare: holdsKeys ? [empty] : [empty, absent], success: hold, failure: [joining] };
}

function startsWith(key: Bytes, prefix: Bytes): boolean {
  return equalBytes(key.subarray(0, prefix.length), prefix);
}

async function joined(
  line: Line,
  entry: Entry,
  answer: TxnResult,
  doubtful: boolean,
): Promise<Entered> {
  const nested = answer.results[0];
  if (nested?.type !== 'txn') throw new Error('a nested transaction was asked for');
  const newest = claimsIn(nested.results.at(-1));
  const { header } = answer;
  if (nested.succeeded && !entry.join) {
    const blocked = await findBefore(line, header.revision + 1, newest);
    // The prefix holds claims of lines below it: it is not empty, and this line is free.
    if (blocked) return { taken: true, doubtful };
    const entered = await enter(line, { ...entry, join: true });
    return { ...entered, doubtful: doubtful || entered.doubtful };
  }
  const own = nested.succeeded ? undefined : claimsIn(nested.results[0])[0];
  const createRevision = own?.createRevision ?? header.revision;
  const first = line.marked && own !== undefined && decodeClaim(own.value).heldMs !== undefined;
  const before = first ? undefined : await findBefore(line, createRevision, newest);
  return { key: entry.key, createRevision, header, first, before, doubtful };
}

function claimsIn(result: OperationResult | undefined): readonly KeyValue[] {
  return result?.type === 'range' ? result.kvs : [];
}

/** The newest claim before `createRevision` that blocks; `newest` is what is already known. */
export async function findBefore(
  line: Line,
  createRevision: Revision,
  newest?: readonly KeyValue[],
  interruption?: Interruption,
): Promise<KeyValue | undefined> {
  const isBefore = (kv: KeyValue): boolean => kv.createRevision < createRevision && line.blocks(kv);
  const known = newest?.find(isBefore);
  if (known || (newest && newest.length < NEWEST_LIMIT)) return known;
  const { engine } = line.session.authority;
  for (const limit of [NEWEST_LIMIT, 0]) {
    const request = { ...line.newest, limit, maxCreateRevision: createRevision - 1 };
    const { kvs, more } = await line.session.call(() => engine.range(request), interruption);
    const found = kvs.find(isBefore);
    if (found || !more) return found;
  }
  return undefined;
}

export interface Waiting {
  readonly interruption: Interruption;
  /** Told when the claim before ours is another one, or has become the holder. */
  readonly onChange?: ((before: KeyValue) => void) | undefined;
}

/** Resolves when nobody is before the place any more. The claim itself is yet to be read again. */
export async function waitForTurn(line: Line, place: Place, waiting: Waiting): Promise<void> {
  let { before } = place;
  while (before) {
    waiting.onChange?.(before);
    const last = await untilGone(line.session, before, place.header, waiting);
    const record = decodeClaim(last.value);
    if (line.marked && record.heldMs !== undefined && !record.delayed) return;
    before = await findBefore(line, place.createRevision, undefined, waiting.interruption);
  }
}

/** Waits until this very claim is gone; answers how it stood last. */
async function untilGone(
  session: Session,
  claim: KeyValue,
  header: Header,
  waiting: Waiting,
): Promise<KeyValue> {
  const { authority } = session;
  let last = claim;
  // Never before the claim's own revision: an earlier claim may have stood under the same key.
  let from = Math.max(header.revision, claim.modRevision) + 1;
  for (let attempt = 0; ; attempt++) {
    try {
      const end = await watchOnce(session, last, from, waiting);
      if (end) return end;
    } catch (error) {
      if (waiting.interruption.interrupted || !mayResume(error)) throw error;
    }
    await waiting.interruption.race(backOff(authority, attempt));
    const { kvs, header: now } = await session.call(
      () => authority.engine.range({ key: claim.key }),
      waiting.interruption,
    );
    const present = kvs[0];
    if (present?.createRevision !== claim.createRevision) return last;
    last = present;
    from = now.revision + 1;
  }
}

async function watchOnce(
  session: Session,
  claim: KeyValue,
  startRevision: Revision,
  waiting: Waiting,
): Promise<KeyValue | undefined> {
  const { interruption, onChange } = waiting;
  const watch = session.authority.engine.watch({ key: claim.key, startRevision });
  watch.created.catch(() => {});
  const iterator = watch[Symbol.asyncIterator]();
  let last = claim;
  try {
    for (;;) {
      const step = await interruption.race(iterator.next());
      if (step.done) return undefined;
      for (const { type, kv } of step.value.events) {
        if (type === 'delete' || kv.createRevision !== claim.createRevision) return last;
        last = kv;
        onChange?.(kv);
      }
    }
  } finally {
    void watch.close().catch(() => {});
  }
}

/**
 * Reads the own claim again and, with `hold`, marks it as held, in one transaction; sent again it
 * changes nothing. Throws if the claim, or what else it stands on, is gone. The header's era goes
 * into the token.
 */
export async function confirm(
  session: Session,
  place: Pick<Place, 'key' | 'createRevision'>,
  hold: readonly Operation[],
  interruption?: Interruption,
  alsoOurs: readonly Compare[] = [],
): Promise<Header> {
  const { engine } = session.authority;
  const { key, createRevision } = place;
  const mark: Operation = {
    type: 'txn',
    compare: [{ key, target: 'version', result: '=', value: 1 }],
    success: hold,
  };
  const compare = [isOurs(key, createRevision), ...alsoOurs];
  const success = hold.length > 0 ? [mark] : [];
  const answer = await session.call(() => engine.txn({ compare, success }), interruption);
  session.ensureAlive();
  if (answer.succeeded) return answer.header;
  throw new HoldfastError('grant-lost', 'the claim was removed while it waited', {
    reason: 'broken',
  });
}
