/**
 * What is in the journal and not in the tree yet: the changes in memory, as they stand in the
 * journal, and an index by key. The newest change of a key counts; a removal hides what the layers
 * below have.
 *
 * Changes come in batches. Until a batch is durable, `committed` readers must not see it: for as
 * long, the layer remembers what each key of the batch was before.
 */
import type { Bytes } from '../../base/bytes.ts';
import { binaryString } from '../../base/bytes.ts';
import { type NameCursor, SortedNames } from '../../base/sorted-names.ts';
import { CHANGE_HEAD, putChange, putCut, valueOfChange } from './changes.ts';

const PIECE_BYTES = 2 ** 20;

/** A stretch of addresses and the memory behind it. */
interface Piece {
  readonly base: number;
  readonly memory: Bytes;
}

interface Cut {
  readonly from: string;
  readonly to: string;
}

export class Layer {
  #pieces: Piece[];
  /** Where the newest change of a key stands. */
  readonly #index: Map<string, number>;
  readonly #names: SortedNames;
  /** Ranges that are gone here and below, and those of the open batch. */
  readonly #cuts: Cut[];
  #openCuts: Cut[] = [];
  /** What the keys of the open batch were before: an address, or nothing in this layer. */
  #before = new Map<string, number | undefined>();
  /** Where the open batch begins, and the end of everything. */
  #begin: number;
  #end: number;

  constructor(
    pieces: Piece[] = [],
    index: Map<string, number> = new Map(),
    names: SortedNames = new SortedNames(),
    end = 0,
    cuts: Cut[] = [],
  ) {
    this.#pieces = pieces;
    this.#index = index;
    this.#names = names;
    this.#cuts = cuts;
    this.#begin = end;
    this.#end = end;
  }

  get bytes(): number {
    return this.#end;
  }

  get size(): number {
    return this.#index.size;
  }

  /** The open batch, as bytes for the journal. */
  get batch(): Bytes {
    if (this.#begin === this.#end) return new Uint8Array(0);
    const { base, memory } = this.#pieces[this.#pieces.length - 1]!;
    return memory.subarray(this.#begin - base, this.#end - base);
  }

  /** Adds a change of the key of this name to the open batch; an absent value is a removal. */
  set(name: string, key: Bytes, value: Bytes | undefined): void {
    const address = this.#append(key, value);
    const former = this.#index.get(name);
    // A name that this batch has touched is among the names, also when it was cut off since.
    if (!this.#before.has(name)) {
      this.#before.set(name, former);
      if (former === undefined) this.#names.add(name);
    }
    this.#index.set(name, address);
  }

  /** Adds to the open batch that a range of keys goes, here and in all that is below. */
  cut(start: Bytes, end: Bytes): void {
    const needed = CHANGE_HEAD + start.length + end.length;
    const { base, memory } = this.#room(needed);
    this.#end = base + putCut(memory, this.#end - base, start, end);
    const from = binaryString(start);
    const to = binaryString(end);
    this.#openCuts.push({ from, to });
    const cursor = this.#names.upwards(from, to);
    for (let { name } = cursor; name !== undefined; cursor.advance(), { name } = cursor) {
      if (!this.#before.has(name)) this.#before.set(name, this.#index.get(name));
      this.#index.delete(name);
    }
  }

  /** The batch is durable: everybody may see it. */
  publish(): void {
    this.#begin = this.#end;
    if (this.#openCuts.length > 0) this.#publishCuts();
    if (this.#before.size > 0) this.#before = new Map();
  }

  #publishCuts(): void {
    for (const name of this.#before.keys()) {
      if (!this.#index.has(name)) this.#names.delete(name);
    }
    for (const { from, to } of this.#openCuts) {
      // The log is cut again and again, always from its beginning.
      const same = this.#cuts.findIndex((cut) => cut.from === from && cut.to <= to);
      if (same >= 0) this.#cuts[same] = { from, to };
      else this.#cuts.push({ from, to });
    }
    this.#openCuts = [];
  }

  /** The batch has not happened. */
  takeBack(): void {
    for (const [name, former] of this.#before) {
      if (former !== undefined) {
        this.#index.set(name, former);
      } else {
        this.#index.delete(name);
        this.#names.delete(name);
      }
    }
    this.#before = new Map();
    this.#openCuts = [];
    this.#end = this.#begin;
  }

  /** What this layer says of a key: its value, `null` that it is removed; or nothing. */
  find(name: string, committed: boolean): Bytes | null | undefined {
    const address = this.#addressOf(name, committed);
    if (address === undefined)
      return this.endOfCut(name, committed) === undefined ? undefined : null;
    const { base, memory } = this.#pieceOf(address);
    return valueOfChange(memory, address - base) ?? null;
  }

  hasCutIn(start: string, end: string | undefined): boolean {
    const overlaps = ({ from, to }: Cut): boolean =>
      to > start && (end === undefined || from < end);
    return this.#cuts.some(overlaps) || this.#openCuts.some(overlaps);
  }

  /** Where the cut ends in which a name stands, if it stands in one. */
  endOfCut(name: string, committed: boolean): string | undefined {
    for (const { from, to } of this.#cuts) if (name >= from && name < to) return to;
    if (committed) return undefined;
    for (const { from, to } of this.#openCuts) if (name >= from && name < to) return to;
    return undefined;
  }

  #addressOf(name: string, committed: boolean): number | undefined {
    if (committed && this.#before.size > 0 && this.#before.has(name)) return this.#before.get(name);
    return this.#index.get(name);
  }

  names(from: string, to: string | undefined, reverse: boolean): NameCursor {
    return reverse ? this.#names.downwards(from, to) : this.#names.upwards(from, to);
  }

  /** The layer as it is committed, to stay so. The memory is shared: what is written stays. */
  copy(): Layer {
    const index = new Map(this.#index);
    const names = this.#names.copy();
    for (const [name, former] of this.#before) {
      if (former !== undefined) {
        index.set(name, former);
      } else {
        index.delete(name);
        names.delete(name);
      }
    }
    return new Layer([...this.#pieces], index, names, this.#begin, [...this.#cuts]);
  }

  #append(key: Bytes, value: Bytes | undefined): number {
    const { base, memory } = this.#room(CHANGE_HEAD + key.length + (value?.length ?? 0));
    const address = this.#end;
    this.#end = base + putChange(memory, address - base, key, value);
    return address;
  }

  /** The piece of memory where the open batch stands, with room for so many bytes. */
  #room(needed: number): Piece {
    const piece = this.#pieces[this.#pieces.length - 1];
    const fits = piece && this.#end + needed <= piece.base + piece.memory.length;
    return fits ? piece : this.#grow(needed);
  }

  /** A new piece of memory, to which the open batch moves, so that it stands in one piece. */
  #grow(needed: number): Piece {
    const open = this.batch;
    const bytes = Math.max(PIECE_BYTES, 2 * (open.length + needed));
    const memory = Buffer.allocUnsafeSlow(bytes);
    memory.set(open);
    const piece = { base: this.#begin, memory };
    // A piece that held nothing but this batch has no addresses left.
    while (this.#pieces.length > 0 && this.#pieces[this.#pieces.length - 1]!.base >= piece.base) {
      this.#pieces.pop();
    }
    this.#pieces.push(piece);
    return piece;
  }

  /** Most reads are of what was written lately: look from the end. */
  #pieceOf(address: number): Piece {
    let at = this.#pieces.length - 1;
    while (this.#pieces[at]!.base > address) at--;
    return this.#pieces[at]!;
  }
}
