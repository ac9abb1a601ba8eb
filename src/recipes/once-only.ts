/**
 * A transaction applied once, however often it is sent.
 *
 * Its success writes a marker beside the effect, attached to the session's lease. When an answer
 * was lost the same transaction is sent again, finds the marker and changes nothing. Markers of
 * answered transactions are removed by the next one; those of doubtful ones stay until the session
 * ends, because a late request may still arrive.
 */
import { type Bytes, EMPTY } from '../base/bytes.ts';
import type { Compare, Operation, OperationResult, Revision } from '../model/transaction.ts';
import type { Interruption } from './interruption.ts';
import { ownKey } from './keys.ts';
import type { Session } from './session.ts';

export interface OnceOnly {
  readonly compare: readonly Compare[];
  readonly success: readonly Operation[];
  /** Read when the comparison fails. */
  readonly failure?: readonly Operation[];
  /** Kept in the marker for whoever asks again. */
  readonly memo?: Bytes;
}

export type Applied =
  | { readonly applied: true; readonly revision: Revision; readonly memo: Bytes }
  | { readonly applied: false; readonly results: readonly OperationResult[] };

/** Markers removed along with a transaction; more wait for the next. */
const SWEEP_MAX = 16;

interface Markers {
  count: number;
  done: Bytes[];
}

const MARKERS = new WeakMap<Session, Markers>();

export async function applyOnce(
  session: Session,
  request: OnceOnly,
  interruption?: Interruption,
): Promise<Applied> {
  const { engine, namespace } = session.authority;
  const markers = MARKERS.get(session) ?? { count: 0, done: [] };
  MARKERS.set(session, markers);
  const marker = ownKey(namespace, 'done', session.leaseHex, String(markers.count++));
  const memo = request.memo ?? EMPTY;
  const swept = markers.done.splice(0, SWEEP_MAX);
  let sent = 0;
  const answer = await session.call(() => {
    sent++;
    return engine.txn({
      compare: [...request.compare, { key: marker, target: 'create', result: '=', value: 0 }],
      success: [
        ...request.success,
        { type: 'put', key: marker, value: memo, lease: session.id },
        ...swept.map((key): Operation => ({ type: 'delete', key })),
      ],
      failure: [{ type: 'range', key: marker }, ...(request.failure ?? [])],
    });
  }, interruption);
  if (answer.succeeded) {
    if (sent === 1) markers.done.push(marker);
    return { applied: true, revision: answer.header.revision, memo };
  }
  const [found, ...results] = answer.results;
  const kept = found?.type === 'range' ? found.kvs[0] : undefined;
  if (kept) return { applied: true, revision: kept.createRevision, memo: kept.value };
  markers.done.push(...swept);
  return { applied: false, results };
}

const TURNS = new WeakMap<Session, Map<string, Promise<unknown>>>();

/** One at a time per session and name: tasks of one process need not race each other. */
export async function inTurn<T>(
  session: Session,
  name: string,
  work: () => Promise<T>,
): Promise<T> {
  const turns = TURNS.get(session) ?? new Map<string, Promise<unknown>>();
  TURNS.set(session, turns);
  const before = turns.get(name) ?? Promise.resolve();
  const own = before.then(work, work);
  const settled = own.catch(() => {});
  turns.set(name, settled);
  try {
    return await own;
  } finally {
    if (turns.get(name) === settled) turns.delete(name);
  }
}
