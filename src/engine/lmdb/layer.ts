/**
 * What is in the journal and not in the tree yet: the changes in memory, as they stand in the
 * journal, and an index by key. The newest change of a key counts; a removal hides what the layers
 * below have.
 *
 * Changes come in batches. One is open and takes changes; those before it are sealed and on their
 * way to the disk, and published once they are there. `committed` readers see what is published.
 */
import { copyBytes } from '../../base/allocate.ts';
import { type Bytes, compareBytes } from '../../base/bytes.ts';
import type { Cursor } from '../../base/sorted-blocks.ts';
import { ChangeMemory } from './change-memory.ts';
import { visitChanges } from './changes.ts';
import type { HashSecret, Probe } from './key-hash.ts';
import { Section, type Touched } from './section.ts';

export type Visit = (key: Bytes, value: Bytes) => boolean;

/** What a reader wants to see. */
export interface View {
  readonly start: Bytes;
  readonly end: Bytes | undefined;
  readonly committed: boolean;
  readonly reverse: boolean;
}

export interface Cut {
  readonly from: Bytes;
  readonly to: Bytes;
}

/** A batch that takes no more changes: what the journal gets, and what it will show. */
export interface SealedBatch {
  readonly bytes: Bytes;
  readonly touched: readonly Touched[];
  readonly cuts: readonly Cut[];
}

export class Layer {
  readonly #secret: HashSecret;
  readonly #memory: ChangeMemory;
  /** By the first byte of their keys. */
  readonly #sections: (Section | undefined)[];
  /** Ranges that are gone here and below; those not published, and of those the open batch's. */
  readonly #cuts: Cut[];
  #hiddenCuts: Cut[] = [];
  #openCuts: Cut[] = [];

  constructor(secret: HashSecret, memory: ChangeMemory = new ChangeMemory(), cuts: Cut[] = []) {
    this.#secret = secret;
    this.#memory = memory;
    this.#sections = new Array<Section | undefined>(256).fill(undefined);
    this.#cuts = cuts;
  }

  get bytes(): number {
    return this.#memory.bytes;
  }

  get openBytes(): number {
    return this.#memory.openBytes;
  }

  /** The ranges that are cut off, for everybody to see. */
  get cuts(): readonly Cut[] {
    return this.#cuts;
  }

  /** Adds a change to the open batch; an absent value is a removal. */
  set(probe: Probe, value: Bytes | undefined): void {
    const address = this.#memory.put(probe.key, value);
    this.#section(probe.key[0]!).set(probe, address);
  }

  /** Takes a whole batch as it was read from the journal, for everybody to see. */
  adopt(probe: Probe, batch: Bytes): void {
    const begin = this.#memory.adopt(batch);
    visitChanges(batch, {
      set: (key, at) => this.#section(key[0]!).set(probe.of(key), begin + at),
      cut: (start, end) => this.#cutHere(start, end),
    });
    this.publish(this.seal());
  }

  /** Adds to the open batch that a range of keys goes, here and in all that is below. */
  cut(start: Bytes, end: Bytes): void {
    if (compareBytes(start, end) >= 0) return;
    this.#memory.putCut(start, end);
    this.#cutHere(start, end);
  }

  #cutHere(start: Bytes, end: Bytes): void {
    const cut = { from: start.slice(), to: end.slice() };
    this.#hiddenCuts.push(cut);
    this.#openCuts.push(cut);
    for (let first = start[0] ?? 0; first <= end[0]!; first++) {
      this.#sections[first]?.cut(start, end);
    }
  }

  /** Closes the open batch. */
  seal(): SealedBatch {
    const touched: Touched[] = [];
    for (const section of this.#sections) {
      const part = section?.seal();
      if (part) touched.push(part);
    }
    const cuts = this.#openCuts;
    this.#openCuts = [];
    return { bytes: this.#memory.seal(), touched, cuts };
  }

  /** A sealed batch is durable: everybody may see it. Batches are published in their order. */
  publish({ touched, cuts }: SealedBatch): void {
    for (const part of touched) part.section.publish(part);
    if (cuts.length > 0) this.#publishCuts(cuts);
  }

  #publishCuts(cuts: readonly Cut[]): void {
    this.#hiddenCuts = this.#hiddenCuts.filter((cut) => !cuts.includes(cut));
    for (const cut of cuts) {
      // The log is cut again and again, always from its beginning.
      const same = this.#cuts.findIndex(
        ({ from, to }) => compareBytes(from, cut.from) === 0 && compareBytes(to, cut.to) <= 0,
      );
      if (same >= 0) this.#cuts[same] = cut;
      else this.#cuts.push(cut);
      for (let first = cut.from[0] ?? 0; first <= cut.to[0]!; first++)
        this.#sections[first]?.trim();
    }
  }

  /** What this layer says of a key: its value, `null` that it is removed; or nothing. */
  find(probe: Probe, committed: boolean): Bytes | null | undefined {
    const { key } = probe;
    const address = this.#sections[key[0]!]?.find(probe, committed);
    if (address !== undefined) return this.#memory.value(address) ?? null;
    return this.endOfCut(key, committed) === undefined ? undefined : null;
  }

  /** Whether a change of this very key is here. That it lies in a cut does not count. */
  decides(probe: Probe, committed: boolean): boolean {
    return this.#sections[probe.key[0]!]?.find(probe, committed) !== undefined;
  }

  hasCutIn(start: Bytes, end: Bytes | undefined): boolean {
    if (this.#cuts.length === 0 && this.#hiddenCuts.length === 0) return false;
    const overlaps = ({ from, to }: Cut): boolean =>
      compareBytes(to, start) > 0 && (end === undefined || compareBytes(from, end) < 0);
    return this.#cuts.some(overlaps) || this.#hiddenCuts.some(overlaps);
  }

  /** Where the cut ends in which a key stands, if it stands in one. */
  endOfCut(key: Bytes, committed: boolean): Bytes | undefined {
    for (const cut of this.#cuts) if (isWithin(key, cut)) return cut.to;
    if (committed) return undefined;
    for (const cut of this.#hiddenCuts) if (isWithin(key, cut)) return cut.to;
    return undefined;
  }

  /** A walk over the keys in a range, also over those of which the layer says nothing. */
  walk(from: Bytes, to: Bytes | undefined, reverse: boolean): LayerWalk {
    const sections = this.#between(from, to, reverse);
    return new LayerWalk(this.#memory, sections, { from, to, reverse });
  }

  /** Visits what this layer has in a range, as long as the visitor wants more. */
  visit({ start, end, committed, reverse }: View, visit: Visit): void {
    const memory = this.#memory;
    for (const section of this.#between(start, end, reverse)) {
      const cursor = section.entries(start, end, reverse);
      for (; cursor.at !== undefined; cursor.advance()) {
        const address = committed ? section.shownOf(cursor.at) : section.newestOf(cursor.at);
        const value = address === undefined ? undefined : memory.value(address);
        if (value && !visit(copyBytes(memory.key(section.keyAt(cursor.at))), value)) return;
      }
    }
  }

  /** The keys in a range, also those of which it says nothing; undefined: more than `most`. */
  keysIn(start: Bytes, end: Bytes | undefined, most: number): Bytes[] | undefined {
    const keys: Bytes[] = [];
    for (const section of this.#between(start, end, false)) {
      const cursor = section.entries(start, end, false);
      for (; cursor.at !== undefined; cursor.advance()) {
        if (keys.length === most) return undefined;
        keys.push(this.#memory.key(section.keyAt(cursor.at)));
      }
    }
    return keys;
  }

  #between(from: Bytes, to: Bytes | undefined, reverse: boolean): Section[] {
    const sections: Section[] = [];
    const last = to === undefined ? 255 : (to[0] ?? 0);
    for (let first = from[0] ?? 0; first <= last; first++) {
      const section = this.#sections[first];
      if (section) sections.push(section);
    }
    return reverse ? sections.reverse() : sections;
  }

  /** The tree has all of it, and nobody asks any more. */
  release(): void {
    this.#memory.release();
  }

  /** The layer as it is committed, to stay so. */
  copy(): Layer {
    const memory = this.#memory.copy();
    const copy = new Layer(this.#secret, memory, [...this.#cuts]);
    for (const [first, section] of this.#sections.entries()) {
      copy.#sections[first] = section?.copy(memory);
    }
    return copy;
  }

  #section(first: number): Section {
    let section = this.#sections[first];
    if (!section) {
      section = new Section(this.#memory, this.#secret);
      this.#sections[first] = section;
    }
    return section;
  }
}

function isWithin(key: Bytes, { from, to }: Cut): boolean {
  return compareBytes(key, from) >= 0 && compareBytes(key, to) < 0;
}

interface Bounds {
  readonly from: Bytes;
  readonly to: Bytes | undefined;
  readonly reverse: boolean;
}

/** Stands at one key of a layer after the other. */
export class LayerWalk {
  readonly #memory: ChangeMemory;
  readonly #sections: readonly Section[];
  readonly #bounds: Bounds;
  #next = 0;
  #section: Section | undefined;
  #cursor: Cursor<number> | undefined;
  #key: Bytes | undefined;

  constructor(memory: ChangeMemory, sections: readonly Section[], bounds: Bounds) {
    this.#memory = memory;
    this.#sections = sections;
    this.#bounds = bounds;
    this.#settle();
  }

  /** A view of the key here; undefined: at the end. */
  get key(): Bytes | undefined {
    return this.#key;
  }

  /** What the layer itself says of this key: its value, `null` that it is removed; or nothing. */
  value(committed: boolean): Bytes | null | undefined {
    const section = this.#section!;
    const entry = this.#cursor!.at!;
    const address = committed ? section.shownOf(entry) : section.newestOf(entry);
    return address === undefined ? undefined : (this.#memory.value(address) ?? null);
  }

  advance(): void {
    this.#cursor!.advance();
    this.#settle();
  }

  #settle(): void {
    const { from, to, reverse } = this.#bounds;
    while (this.#cursor?.at === undefined && this.#next < this.#sections.length) {
      this.#section = this.#sections[this.#next++]!;
      this.#cursor = this.#section.entries(from, to, reverse);
    }
    const entry = this.#cursor?.at;
    this.#key = entry === undefined ? undefined : this.#memory.key(this.#section!.keyAt(entry));
  }
}
