/** Changes as they are told: events in order of revision, one revision never split. */
import type { HoldfastError } from './errors.ts';
import type { KeyRange } from './range.ts';
import type { Header, KeyValue, Revision } from './transaction.ts';

export interface Event {
  readonly type: 'put' | 'delete';
  /** For a delete only `key` and `modRevision` carry meaning; the rest is empty or 0. */
  readonly kv: KeyValue;
  /** On request, when the key existed before and that version is not compacted. */
  readonly prevKv?: KeyValue | undefined;
}

export interface WatchRequest extends KeyRange {
  /** First revision wanted; 0 or absent: what comes after now. */
  readonly startRevision?: Revision;
  readonly prevKv?: boolean;
  /** Leave out puts, or deletes. */
  readonly noPut?: boolean;
  readonly noDelete?: boolean;
  /** Send an empty batch from time to time when nothing happens. */
  readonly progressNotify?: boolean;
}

export interface WatchBatch {
  /** Everything of this watch up to `header.revision` has been told with this batch. */
  readonly header: Header;
  /** Empty: a progress notification. */
  readonly events: readonly Event[];
}

/**
 * A running watch. Iterating throws a HoldfastError when the stream is disturbed (`compacted`,
 * `watch-overrun`, `unavailable`, `closed`); it ends without an error only after `close()`.
 */
export interface Watch extends AsyncIterable<WatchBatch>, AsyncDisposable {
  /** Settles when the watch stands: with the revision it starts after, or with its refusal. */
  readonly created: Promise<Header>;
  /** Asks for a progress notification as soon as the watch has caught up. */
  requestProgress(): void;
  close(): Promise<void>;
}

/** Hears a watch without a promise for each batch. */
export interface WatchListener {
  /** While true nothing is told; what comes waits as it would for a slow reader. */
  readonly full: boolean;
  onBatch(batch: WatchBatch): void;
  /** The watch has ended by itself, after everything that it had to tell. */
  onEnd(error: HoldfastError): void;
}

/** A watch that can be listened to instead of being iterated: the one or the other. */
export interface ListenedWatch extends Watch {
  /** After `created`, once. Watches of one range may tell one and the same batch object. */
  listen(listener: WatchListener): void;
  /** The listener is no longer full. */
  resume(): void;
}

export function isListened(watch: Watch): watch is ListenedWatch {
  return 'listen' in watch;
}

/** What an event costs in memory beside its key and values. */
const EVENT_BYTES = 200;

/** Roughly what events take while they wait for a slow reader. */
export function weighEvents(events: readonly Event[]): number {
  let bytes = 0;
  for (const { kv, prevKv } of events) {
    bytes += EVENT_BYTES + kv.key.length + kv.value.length + (prevKv?.value.length ?? 0);
  }
  return bytes;
}
