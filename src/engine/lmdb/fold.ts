/** From the journal into the tree: the newest change of each key, in the order of the keys. */
import { type Bytes, binaryString } from '../../base/bytes.ts';
import type { Table } from '../../mvcc/table.ts';
import { type ChangeVisitor, visitChanges } from './changes.ts';
import type { JournalMark } from './format.ts';
import { type Recovered, recover } from './journal.ts';
import type { Tree } from './tree.ts';

interface Change {
  readonly key: Bytes;
  readonly value: Bytes | undefined;
}

interface Changes {
  /** Ranges to remove first; what came into them later stands among the newest. */
  readonly cuts: readonly { readonly start: Bytes; readonly end: Bytes }[];
  readonly newest: readonly Change[];
}

/**
 * Folds what the journal holds beyond the tree, up to the segment of `next`, and notes that it goes
 * on there. In one commit of the tree, so a crash leaves all of it in the journal or none.
 */
export function fold(tree: Tree, directory: string, next: JournalMark): Recovered {
  const found = recover(directory, tree.head, next);
  const changes = collect(found.batches);
  tree.fold((table) => apply(table, changes), next);
  return found;
}

/** Pages of the tree are then visited once, one after the other. */
function collect(batches: readonly Bytes[]): Changes {
  const changes = new Map<string, Change>();
  const cuts: { start: Bytes; end: Bytes }[] = [];
  const visitor: ChangeVisitor = {
    set: (key, value) => changes.set(binaryString(key), { key, value }),
    cut: (start, end) => {
      cuts.push({ start, end });
      const from = binaryString(start);
      const to = binaryString(end);
      for (const name of changes.keys()) if (name >= from && name < to) changes.delete(name);
    },
  };
  for (const batch of batches) visitChanges(batch, visitor);
  const names = [...changes.keys()].sort();
  return { cuts, newest: names.map((name) => changes.get(name)!) };
}

function apply(table: Table, { cuts, newest }: Changes): void {
  for (const { start, end } of cuts) table.cut(start, end);
  for (const { key, value } of newest) {
    if (value) table.put(key, value);
    else table.remove(key);
  }
}
