/** From the journal into the tree: the newest change of each key, in the order of the keys. */
import type { Bytes } from '../../base/bytes.ts';
import { systemRandom } from '../../base/system.ts';
import type { Table } from '../../mvcc/table.ts';
import type { JournalMark } from './format.ts';
import { recover } from './journal.ts';
import { Probe, secretFrom } from './key-hash.ts';
import { Layer } from './layer.ts';
import type { SegmentMemory } from './segment-memory.ts';
import type { Tree } from './tree.ts';

const FIRST_KEY: Bytes = new Uint8Array(0);

export interface FoldOptions {
  /** Called before the pages go to the disk. */
  readonly onWriting?: () => void;
  /** Where segments are read to. Of this caller alone. */
  readonly memory?: SegmentMemory;
}

/** What the journal holds beyond the tree, up to a mark. */
export interface Gathered {
  readonly changes: Layer;
  readonly next: JournalMark;
}

/**
 * Folds what the journal holds beyond the tree, up to the segment of `next`, and notes that it goes
 * on there. In one commit of the tree, so a crash leaves all of it in the journal or none.
 */
export function fold(
  tree: Tree,
  directory: string,
  next: JournalMark,
  { onWriting, memory }: FoldOptions = {},
): void {
  memory?.begin();
  foldIn(tree, gather(tree, directory, next, memory), onWriting);
}

/** The half of a fold that only reads. */
export function gather(
  tree: Tree,
  directory: string,
  next: JournalMark,
  memory?: SegmentMemory,
): Gathered {
  return { changes: collect(recover(directory, tree.head, next, memory).batches), next };
}

export function foldIn(
  tree: Tree,
  { changes, next }: Gathered,
  onWriting: () => void = () => {},
): void {
  tree.fold((table) => {
    apply(table, changes);
    onWriting();
  }, next);
}

/** One layer of everything. Pages of the tree are then visited once, one after the other. */
function collect(batches: readonly Bytes[]): Layer {
  const secret = secretFrom(systemRandom);
  const probe = new Probe(secret);
  const changes = new Layer(secret);
  for (const batch of batches) changes.adopt(probe, batch);
  return changes;
}

/** Ranges go first; what came into them later stands among the newest changes. */
function apply(table: Table, changes: Layer): void {
  for (const { from, to } of changes.cuts) table.cut(from, to);
  const walk = changes.walk(FIRST_KEY, undefined, false);
  for (let { key } = walk; key !== undefined; walk.advance(), { key } = walk) {
    const value = walk.value(true);
    if (value) table.put(key, value);
    else if (value === null) table.remove(key);
  }
}
