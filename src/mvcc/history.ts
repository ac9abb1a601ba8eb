/** Telling the past: the events of logged revisions. Deterministic. */
import type { Revision } from '../model/transaction.ts';
import { type Event, weighEvents } from '../model/watch.ts';
import { decodeVersion, type LoggedChange, logKey, revisionOfLog, visitLog } from './layout.ts';
import type { TableReader } from './table.ts';
import { tombstone } from './writer.ts';

/** What a watch is told of one revision. */
export interface RevisionEvents {
  readonly revision: Revision;
  readonly events: readonly Event[];
}

export interface HistoryRequest {
  readonly from: Revision;
  readonly to: Revision;
  /** Stop after the revision that brings this many events, or events of this many bytes. */
  readonly eventsMax: number;
  readonly bytesMax: number;
  /** Look at no more revisions than this, matching or not. */
  readonly revisionsMax: number;
  /** Tell what was there before, for changes after this revision; absent: never. */
  readonly prevKvAfter: Revision | undefined;
  /** Which changes are wanted. */
  wants(change: LoggedChange): boolean;
}

export interface HistoryPart {
  readonly revisions: readonly RevisionEvents[];
  /** Everything up to here has been told. */
  readonly upTo: Revision;
}

/** The wanted events from `from` on; whole revisions only. */
export function readHistory(table: TableReader, request: HistoryRequest): HistoryPart {
  const { from, to, eventsMax, bytesMax, revisionsMax, prevKvAfter } = request;
  const revisions: RevisionEvents[] = [];
  let told = 0;
  let toldBytes = 0;
  let seen = 0;
  let upTo = to;
  table.scan(logKey(from), logKey(to + 1), (stored, record) => {
    const revision = revisionOfLog(stored);
    if (told >= eventsMax || toldBytes >= bytesMax || seen >= revisionsMax) {
      upTo = revision - 1;
      return false;
    }
    seen++;
    const prevKv = prevKvAfter !== undefined && revision > prevKvAfter;
    const events: Event[] = [];
    visitLog(record, (change) => {
      if (request.wants(change)) events.push(eventOf(change, revision, prevKv));
      return true;
    });
    told += events.length;
    toldBytes += weighEvents(events);
    if (events.length > 0) revisions.push({ revision, events });
    return true;
  });
  return { revisions, upTo };
}

export function eventOf(change: LoggedChange, revision: Revision, prevKv: boolean): Event {
  const key = change.key.slice();
  const event: Event = change.after
    ? { type: 'put', kv: decodeVersion(key, change.after) }
    : { type: 'delete', kv: tombstone(key, revision) };
  if (!prevKv || !change.before) return event;
  return { ...event, prevKv: decodeVersion(key, change.before) };
}
