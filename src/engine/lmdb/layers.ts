/**
 * Reading through the layers: the newest that knows a key decides, the tree comes last.
 */
import { type Bytes, binaryString, fromBinaryString } from '../../base/bytes.ts';
import type { NameCursor } from '../../base/sorted-names.ts';
import type { ScanOptions, TableReader } from '../../mvcc/table.ts';
import type { Layer } from './layer.ts';

type Visit = (key: Bytes, value: Bytes) => boolean;

/** How many stretches without a record in the tree are remembered. */
const GAPS_MAX = 4_096;

/**
 * Stretches of the tree that are known to be empty. A lock that is taken and released lives and
 * dies above the tree, and every look at its line would search the tree in vain.
 */
export class Gaps {
  readonly #known = new Set<string>();

  has(from: string, to: string | undefined): boolean {
    return this.#known.has(nameOf(from, to));
  }

  add(from: string, to: string | undefined): void {
    if (this.#known.size >= GAPS_MAX) this.#known.clear();
    this.#known.add(nameOf(from, to));
  }

  /** The tree has changed. */
  clear(): void {
    this.#known.clear();
  }
}

function nameOf(from: string, to: string | undefined): string {
  return `${from.length}:${from}${to ?? ''}`;
}

/**
 * The name of a key. The rules look a key up and write it then, with the same bytes both times, so
 * the last one is remembered. Whoever hands in a key does not change it afterwards.
 */
export class KeyNames {
  #key: Bytes | undefined;
  #name = '';

  of(key: Bytes): string {
    if (key === this.#key) return this.#name;
    this.#key = key;
    this.#name = binaryString(key);
    return this.#name;
  }
}

export interface LayersOptions {
  /** The newest first. Asked for with every read, because layers come and go. */
  readonly layers: () => readonly Layer[];
  readonly tree: TableReader;
  /** Leaves out what is not durable yet. */
  readonly committed: boolean;
  /** Runs before every read and throws when this reader may not be used now. */
  readonly check: () => void;
  readonly gaps?: Gaps | undefined;
  readonly names?: KeyNames | undefined;
}

export class LayersReader implements TableReader {
  readonly #options: LayersOptions;

  constructor(options: LayersOptions) {
    this.#options = options;
  }

  get(key: Bytes): Bytes | undefined {
    const { check, layers, committed, tree, names } = this.#options;
    check();
    const name = names ? names.of(key) : binaryString(key);
    for (const layer of layers()) {
      const found = layer.find(name, committed);
      if (found !== undefined) return found ?? undefined;
    }
    return tree.get(key);
  }

  scan(start: Bytes, end: Bytes | undefined, visit: Visit, options: ScanOptions = {}): void {
    const { check, committed, layers } = this.#options;
    check();
    const from = binaryString(start);
    const to = end && binaryString(end);
    if (to !== undefined && to <= from) return;
    const reverse = options.reverse ?? false;
    const above = new Above(layers(), from, to, reverse, committed);
    const wanted = this.#below(above.begin(from), to, options, (key, value) => {
      if (above.isSilent) return visit(key, value);
      const name = binaryString(key);
      if (!above.visitUntil(name, visit)) return false;
      return above.decides(name) || visit(key, value);
    });
    if (wanted) above.visitUntil(undefined, visit);
  }

  /** The records of the tree. False: the visitor wants no more. */
  #below(from: string, to: string | undefined, options: ScanOptions, visit: Visit): boolean {
    const { gaps, tree } = this.#options;
    if ((to !== undefined && to <= from) || gaps?.has(from, to)) return true;
    let wanted = true;
    let empty = true;
    tree.scan(
      fromBinaryString(from),
      to === undefined ? undefined : fromBinaryString(to),
      (key, value) => {
        empty = false;
        wanted = visit(key, value);
        return wanted;
      },
      options,
    );
    if (empty) gaps?.add(from, to);
    return wanted;
  }
}

/** A walk over the layers above the tree, in step with a walk over the tree. */
class Above {
  readonly #layers: readonly Layer[];
  readonly #cursors: readonly NameCursor[];
  readonly #reverse: boolean;
  readonly #committed: boolean;
  readonly #hasCuts: boolean;

  constructor(
    layers: readonly Layer[],
    from: string,
    to: string | undefined,
    reverse: boolean,
    committed: boolean,
  ) {
    this.#layers = layers;
    this.#cursors = layers.map((layer) => layer.names(from, to, reverse));
    this.#reverse = reverse;
    this.#committed = committed;
    this.#hasCuts = layers.some((layer) => layer.hasCutIn(from, to));
  }

  /** Where the tree may first have something to say: not where all of it is cut off. */
  begin(from: string): string {
    let begin = from;
    for (const layer of this.#layers) begin = layer.endOfCut(begin, this.#committed) ?? begin;
    return begin;
  }

  /** Whether the layers say nothing any more about what is to come. */
  get isSilent(): boolean {
    return !this.#hasCuts && this.#cursors.every((cursor) => cursor.name === undefined);
  }

  /** Whether one of the layers decides about this key, be it by a removal. */
  decides(name: string): boolean {
    return this.#valueOf(name) !== undefined;
  }

  /** Visits what stands before or at `bound`, all there is without one. False: no more wanted. */
  visitUntil(bound: string | undefined, visit: Visit): boolean {
    for (let name = this.#next(); name !== undefined; name = this.#next()) {
      if (bound !== undefined && this.#isBefore(bound, name)) return true;
      for (const cursor of this.#cursors) if (cursor.name === name) cursor.advance();
      const value = this.#valueOf(name);
      if (value && !visit(fromBinaryString(name), value)) return false;
    }
    return true;
  }

  #valueOf(name: string): Bytes | null | undefined {
    for (const layer of this.#layers) {
      const found = layer.find(name, this.#committed);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #next(): string | undefined {
    let next: string | undefined;
    for (const { name } of this.#cursors) {
      if (name !== undefined && (next === undefined || this.#isBefore(name, next))) next = name;
    }
    return next;
  }

  #isBefore(a: string, b: string): boolean {
    return this.#reverse ? a > b : a < b;
  }
}
