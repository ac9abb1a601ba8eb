/**
 * Reading through the layers: the newest that knows a key decides, the tree comes last.
 */
import { copyBytes } from '../../base/allocate.ts';
import { type Bytes, compareBytes, equalBytes } from '../../base/bytes.ts';
import type { ScanOptions, TableReader } from '../../mvcc/table.ts';
import type { Probe } from './key-hash.ts';
import type { Layer, LayerWalk, View, Visit } from './layer.ts';
import { RECORDS_MAX, type TreeRanges, type TreeRecord } from './tree-ranges.ts';

export interface LayersOptions {
  /** The newest first. Asked for with every read, because layers come and go. */
  readonly layers: () => readonly Layer[];
  readonly tree: TableReader;
  /** Leaves out what is not durable yet. */
  readonly committed: boolean;
  /** Runs before every read and throws when this reader may not be used now. */
  readonly check: () => void;
  /** Of this reader alone, or of one that looks for the same keys. */
  readonly probe: Probe;
  readonly ranges?: TreeRanges | undefined;
}

export class LayersReader implements TableReader {
  readonly #options: LayersOptions;

  constructor(options: LayersOptions) {
    this.#options = options;
  }

  get(key: Bytes): Bytes | undefined {
    const { check, layers, committed, tree, probe } = this.#options;
    check();
    const sought = probe.of(key);
    for (const layer of layers()) {
      const found = layer.find(sought, committed);
      if (found !== undefined) return found ?? undefined;
    }
    return tree.get(key);
  }

  scan(start: Bytes, end: Bytes | undefined, visit: Visit, options: ScanOptions = {}): void {
    const { check, committed } = this.#options;
    check();
    if (end && compareBytes(end, start) <= 0) return;
    const layers = this.#options.layers();
    const view = { start, end, committed, reverse: options.reverse ?? false };
    if (this.#isTold(layers, start, end)) {
      layers[0]!.visit(view, visit);
      return;
    }
    const above = new Above(layers, view);
    const wanted = this.#below(above.begin, end, options, (key, value) => {
      if (above.isSilent) return visit(key, value);
      if (!above.visitUntil(key, visit)) return false;
      return above.decides(key) || visit(key, value);
    });
    if (wanted) above.visitUntil(undefined, visit);
  }

  /** Whether the newest layer has the last word on the little that is below it in a range. */
  #isTold([newest, ...older]: readonly Layer[], start: Bytes, end: Bytes | undefined): boolean {
    const { probe, committed, ranges } = this.#options;
    const records = ranges?.find(start, end);
    if (!records) return false;
    const isDecided = (key: Bytes): boolean => newest!.decides(probe.of(key), committed);
    for (const { key } of records) if (!isDecided(key)) return false;
    for (const layer of older) {
      if (!layer.keysIn(start, end, RECORDS_MAX)?.every(isDecided)) return false;
    }
    return true;
  }

  /** The records of the tree. False: the visitor wants no more. */
  #below(from: Bytes, to: Bytes | undefined, options: ScanOptions, visit: Visit): boolean {
    const { ranges, tree } = this.#options;
    if (to && compareBytes(to, from) <= 0) return true;
    const known = ranges?.find(from, to);
    if (known) return visitAll(known, options.reverse ?? false, visit);
    const found: TreeRecord[] = [];
    let wanted = true;
    const visitFound = (key: Bytes, value: Bytes): boolean => {
      if (found.length <= RECORDS_MAX) found.push({ key, value });
      wanted = visit(key, value);
      return wanted;
    };
    tree.scan(from, to, visitFound, options);
    if (ranges && wanted && found.length <= RECORDS_MAX) {
      ranges.keep(from, to, options.reverse ? found.reverse() : found);
    }
    return wanted;
  }
}

function visitAll(records: readonly TreeRecord[], reverse: boolean, visit: Visit): boolean {
  for (let at = 0; at < records.length; at++) {
    const { key, value } = records[reverse ? records.length - 1 - at : at]!;
    if (!visit(key, value)) return false;
  }
  return true;
}

/** A walk over the layers above the tree, in step with a walk over the tree. */
class Above {
  readonly #layers: readonly Layer[];
  readonly #walks: readonly LayerWalk[];
  readonly #committed: boolean;
  readonly #sign: 1 | -1;
  readonly #hasCuts: boolean;
  /** Where the tree may first have something to say: not where all of it is cut off. */
  readonly begin: Bytes;
  /** The key that was decided last, so that the tree need not ask for it again. */
  #decided: Bytes | undefined;

  constructor(layers: readonly Layer[], { start, end, committed, reverse }: View) {
    const walks: LayerWalk[] = [];
    let hasCuts = false;
    let begin = start;
    for (const layer of layers) {
      walks.push(layer.walk(begin, end, reverse));
      if (!layer.hasCutIn(start, end)) continue;
      hasCuts = true;
      // What lies below a cut need not be looked through: of a log that may be all of it.
      begin = layer.endOfCut(begin, committed) ?? begin;
    }
    this.begin = begin;
    this.#layers = layers;
    this.#walks = walks;
    this.#committed = committed;
    this.#sign = reverse ? -1 : 1;
    this.#hasCuts = hasCuts;
  }

  /** Whether the layers say nothing any more about what is to come. */
  get isSilent(): boolean {
    if (this.#hasCuts || this.#decided) return false;
    for (const { key } of this.#walks) if (key !== undefined) return false;
    return true;
  }

  /** Whether one of the layers decides about this key, which was visited, be it by a removal. */
  decides(key: Bytes): boolean {
    const decided = this.#decided;
    this.#decided = undefined;
    if (decided && equalBytes(decided, key)) return true;
    return this.#hasCuts && this.#isCut(key, this.#layers.length);
  }

  /** Visits what stands before or at `bound`, all there is without one. False: no more wanted. */
  visitUntil(bound: Bytes | undefined, visit: Visit): boolean {
    for (let key = this.#next(); key !== undefined; key = this.#next()) {
      if (bound !== undefined && this.#order(bound, key) < 0) return true;
      const value = this.#take(key);
      if (value === undefined) continue;
      this.#decided = key;
      if (value && !visit(copyBytes(key), value)) return false;
    }
    return true;
  }

  /** What the layers say of the key at which some of them stand; those go on to their next one. */
  #take(key: Bytes): Bytes | null | undefined {
    let said: Bytes | null | undefined;
    for (let at = 0; at < this.#walks.length; at++) {
      const walk = this.#walks[at]!;
      const isHere = walk.key !== undefined && (walk.key === key || equalBytes(walk.key, key));
      if (said === undefined && isHere) said = walk.value(this.#committed);
      if (said === undefined && this.#hasCuts && this.#isCut(key, at + 1, at)) said = null;
      if (isHere) walk.advance();
    }
    return said;
  }

  /** Whether one of the layers from `from` up to and without `to` has cut this key off. */
  #isCut(key: Bytes, to: number, from = 0): boolean {
    for (let at = from; at < to; at++) {
      if (this.#layers[at]!.endOfCut(key, this.#committed) !== undefined) return true;
    }
    return false;
  }

  #next(): Bytes | undefined {
    let next: Bytes | undefined;
    for (const { key } of this.#walks) {
      if (key !== undefined && (next === undefined || this.#order(key, next) < 0)) next = key;
    }
    return next;
  }

  #order(a: Bytes, b: Bytes): number {
    return this.#sign * compareBytes(a, b);
  }
}
