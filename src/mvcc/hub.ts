/**
 * The watches of one store and the commits they hear of.
 *
 * Watches of one range stand in one group, so an event is matched once per distinct range; single
 * keys, the common case of locks, are found by a lookup.
 */
import { binaryString } from '../base/bytes.ts';
import type { HoldfastError } from '../model/errors.ts';
import { contains, type Interval } from '../model/range.ts';
import type { Revision } from '../model/transaction.ts';
import type { WatchRequest } from '../model/watch.ts';
import type { LoggedChange, State } from './layout.ts';
import type { TableReader } from './table.ts';
import { Tidings } from './tidings.ts';
import { headerOf, Watcher, type WatchSource } from './watcher.ts';
import type { RevisionChanges } from './writer.ts';

interface Group {
  readonly range: Interval;
  readonly watchers: Set<Watcher>;
}

export class Hub implements WatchSource {
  readonly table: TableReader;
  #state: State;
  readonly #keys = new Map<string, Group>();
  readonly #ranges = new Map<string, Group>();

  constructor(table: TableReader, state: State) {
    this.table = table;
    this.#state = state;
  }

  get state(): State {
    return this.#state;
  }

  get size(): number {
    let size = 0;
    for (const group of this.#groups()) size += group.watchers.size;
    return size;
  }

  /** By how many revisions the slowest watch is behind. */
  get lagRevisions(): number {
    let slowest = this.#state.revision + 1;
    for (const { watchers } of this.#groups()) {
      for (const { behindFrom = slowest } of watchers) slowest = Math.min(slowest, behindFrom);
    }
    return this.#state.revision + 1 - slowest;
  }

  watch(request: WatchRequest): Watcher {
    const watcher = new Watcher(request, this);
    if (watcher.ended) return watcher;
    const [index, name] = this.#place(watcher);
    const group = index.get(name) ?? { range: watcher.range, watchers: new Set() };
    index.set(name, group);
    group.watchers.add(watcher);
    return watcher;
  }

  /** Tells a durable commit: the new state, and the changes of each of its revisions. */
  publish(state: State, commits: readonly RevisionChanges[]): void {
    this.#state = state;
    if (commits.length === 0 || (this.#keys.size === 0 && this.#ranges.size === 0)) return;
    const header = headerOf(state);
    for (const [group, matching] of this.#match(commits)) {
      const tidings = new Tidings(header, matching);
      for (const watcher of group.watchers) if (watcher.live) watcher.offer(tidings);
    }
  }

  /** Progress for the quiet watches that asked for it. */
  tick(): void {
    for (const group of this.#groups()) {
      for (const watcher of group.watchers) if (watcher.request.progressNotify) watcher.tick();
    }
  }

  failAll(error: HoldfastError): void {
    for (const group of [...this.#groups()]) {
      for (const watcher of [...group.watchers]) watcher.fail(error);
    }
  }

  leave(watcher: Watcher): void {
    const [index, name] = this.#place(watcher);
    const group = index.get(name);
    group?.watchers.delete(watcher);
    if (group?.watchers.size === 0) index.delete(name);
  }

  #place(watcher: Watcher): [Map<string, Group>, string] {
    const { start, end, single } = watcher.range;
    if (single) return [this.#keys, binaryString(start)];
    const bound = end === undefined ? '' : binaryString(end);
    return [this.#ranges, `${start.length}:${binaryString(start)}${bound}`];
  }

  *#groups(): Iterable<Group> {
    yield* this.#keys.values();
    yield* this.#ranges.values();
  }

  /** Which groups a commit concerns, each with the changes in its range. */
  #match(commits: readonly RevisionChanges[]): Map<Group, RevisionChanges[]> {
    const matching = new Map<Group, RevisionChanges[]>();
    for (const { revision, changes } of commits) {
      for (const change of changes) {
        const exact = this.#keys.size > 0 && this.#keys.get(binaryString(change.key));
        if (exact) gather(matching, exact, revision, change);
        for (const group of this.#ranges.values()) {
          if (contains(group.range, change.key)) gather(matching, group, revision, change);
        }
      }
    }
    return matching;
  }
}

function gather(
  matching: Map<Group, RevisionChanges[]>,
  group: Group,
  revision: Revision,
  change: LoggedChange,
): void {
  const list = matching.get(group) ?? [];
  matching.set(group, list);
  const last = list[list.length - 1];
  if (last?.revision === revision) (last.changes as LoggedChange[]).push(change);
  else list.push({ revision, changes: [change] });
}
