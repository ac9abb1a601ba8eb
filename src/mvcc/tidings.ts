/**
 * What one durable commit means to the watches of one range: a batch for each way of asking (without
 * puts, without deletes, with former values), made once and shared by all who ask that way.
 */
import type { Header, Revision } from '../model/transaction.ts';
import type { Event, WatchBatch, WatchRequest } from '../model/watch.ts';
import { eventOf } from './history.ts';
import type { RevisionChanges } from './writer.ts';

export class Tidings {
  readonly header: Header;
  /** In order; every change is in the range. */
  readonly #commits: readonly RevisionChanges[];
  /** By way of asking; `undefined` where nothing is left to tell. */
  readonly #batches = new Map<number, WatchBatch | undefined>();

  constructor(header: Header, commits: readonly RevisionChanges[]) {
    this.header = header;
    this.#commits = commits;
  }

  get firstRevision(): Revision {
    return this.#commits[0]!.revision;
  }

  /** Nothing before `start`, which for almost every watch lies in the past. */
  batch(request: WatchRequest, start: Revision): WatchBatch | undefined {
    if (start > this.firstRevision) return this.#make(request, start);
    const { prevKv, noPut, noDelete } = request;
    const way = (prevKv ? 1 : 0) + (noPut ? 2 : 0) + (noDelete ? 4 : 0);
    if (!this.#batches.has(way)) this.#batches.set(way, this.#make(request, start));
    return this.#batches.get(way);
  }

  #make({ prevKv, noPut, noDelete }: WatchRequest, start: Revision): WatchBatch | undefined {
    const told: Event[] = [];
    for (const { revision, changes } of this.#commits) {
      if (revision < start) continue;
      for (const change of changes) {
        if (change.after ? noPut : noDelete) continue;
        told.push(eventOf(change, revision, prevKv === true));
      }
    }
    return told.length === 0 ? undefined : { header: this.header, events: told };
  }
}
