/**
 * The keys of a layer that begin with one byte: where the newest change of each stands.
 *
 * Keys that only rise, as those of a log do, are a list in which nothing has to be looked for: what
 * lies beyond the last one is not there. With the first key that comes in between, the section gets
 * a hash table and an order. Everything is in arrays of numbers: a key itself stands only in the
 * memory of changes, and a million entries leave nothing to collect.
 */
import type { Bytes } from '../../base/bytes.ts';
import { type Cursor, type Order, SortedBlocks } from '../../base/sorted-blocks.ts';
import type { ChangeMemory } from './change-memory.ts';
import type { HashSecret, Probe } from './key-hash.ts';
import { KeyHeads } from './key-heads.ts';

/** No address: this layer says nothing of the key. */
const NONE = 0xffffffff;
const ABSENT = -1;
const ENTRIES_FIRST = 64;

/** What a sealed batch did in one section: entries, and the address of each as of that batch. */
export interface Touched {
  readonly section: Section;
  readonly entries: readonly number[];
  readonly addresses: readonly number[];
}

export class Section {
  readonly #memory: ChangeMemory;
  readonly #secret: HashSecret;
  #count = 0;
  /** A change that has the key of the entry. */
  #keyAt = new Uint32Array(ENTRIES_FIRST);
  /** The newest change, and the newest that is durable. */
  #newest = new Uint32Array(ENTRIES_FIRST);
  #shown = new Uint32Array(ENTRIES_FIRST);
  /** What the open batch has changed; an entry may stand here twice. */
  #touched: number[] = [];
  /** Sealed batches that are not published yet. */
  #underWay = 0;
  /** While keys only rise: the first one that has not been cut off. */
  #first = 0;
  #hashed: HashedEntries | undefined;

  constructor(memory: ChangeMemory, secret: HashSecret) {
    this.#memory = memory;
    this.#secret = secret;
  }

  /** The address of the newest change of a key, if this layer has one. */
  find(probe: Probe, committed: boolean): number | undefined {
    const entry = this.#lookUp(probe);
    if (entry === ABSENT) return undefined;
    return committed ? this.shownOf(entry) : this.newestOf(entry);
  }

  shownOf(entry: number): number | undefined {
    const address = this.#shown[entry]!;
    return address === NONE ? undefined : address;
  }

  newestOf(entry: number): number | undefined {
    const address = this.#newest[entry]!;
    return address === NONE ? undefined : address;
  }

  /** Where the key of an entry stands. */
  keyAt(entry: number): number {
    return this.#keyAt[entry]!;
  }

  set(probe: Probe, address: number): void {
    let entry = this.#lookUp(probe);
    if (entry === ABSENT) entry = this.#add(probe, address);
    this.#newest[entry] = address;
    this.#touched.push(entry);
  }

  /** The open batch removes a range; what was said of its keys here no longer counts. */
  cut(start: Bytes, end: Bytes): void {
    const cursor = this.entries(start, end, false);
    for (; cursor.at !== undefined; cursor.advance()) {
      if (this.#newest[cursor.at] === NONE) continue;
      this.#newest[cursor.at] = NONE;
      this.#touched.push(cursor.at);
    }
  }

  /** Closes the open batch. */
  seal(): Touched | undefined {
    if (this.#touched.length === 0) return undefined;
    const entries = this.#touched;
    this.#touched = [];
    this.#underWay++;
    return { section: this, entries, addresses: entries.map((entry) => this.#newest[entry]!) };
  }

  /** A sealed batch is durable: everybody may see it. */
  publish({ entries, addresses }: Touched): void {
    this.#underWay--;
    for (let i = 0; i < entries.length; i++) this.#shown[entries[i]!] = addresses[i]!;
  }

  /** Forgets what was cut off at the beginning; what is still to be published must find its place. */
  trim(): void {
    if (this.#hashed || this.#underWay > 0) return;
    const isGone = (entry: number): boolean =>
      this.#newest[entry] === NONE && this.#shown[entry] === NONE;
    while (this.#first < this.#count && isGone(this.#first)) this.#first++;
  }

  /** Entries whose keys lie in a range, in order; also those that say nothing. */
  entries(from: Bytes, to: Bytes | undefined, reverse: boolean): Cursor<number> {
    if (this.#hashed) return this.#hashed.entries(from, to, reverse);
    const begin = this.#firstNotBefore(from);
    const end = to === undefined ? this.#count : this.#firstNotBefore(to);
    return reverse ? new Numbers(end - 1, begin, -1) : new Numbers(begin, end - 1, 1);
  }

  /** As it is committed, to stay so. */
  copy(memory: ChangeMemory): Section {
    const copy = new Section(memory, this.#secret);
    copy.#count = this.#count;
    copy.#first = this.#first;
    copy.#keyAt = this.#keyAt.slice(0, this.#count + 1);
    copy.#newest = this.#shown.slice(0, this.#count + 1);
    copy.#shown = copy.#newest;
    copy.#hashed = this.#hashed?.copy(memory, copy.#keyOf());
    return copy;
  }

  #lookUp(probe: Probe): number {
    if (this.#hashed) return this.#hashed.find(probe, this.#keyAt);
    const last = this.#count - 1;
    if (last < this.#first) return ABSENT;
    const order = this.#memory.compareKey(this.#keyAt[last]!, probe.key);
    if (order <= 0) return order === 0 ? last : ABSENT;
    const entry = this.#firstNotBefore(probe.key);
    return this.#memory.sameKey(this.#keyAt[entry]!, probe.key) ? entry : ABSENT;
  }

  #add(probe: Probe, address: number): number {
    const entry = this.#count;
    if (!this.#hashed && !this.#isBeyond(probe.key)) this.#hashed = this.#hashAll();
    if (entry === this.#keyAt.length) this.#grow();
    this.#keyAt[entry] = address;
    this.#shown[entry] = NONE;
    this.#count++;
    this.#hashed?.add(entry, probe.hash);
    return entry;
  }

  #isBeyond(key: Bytes): boolean {
    const last = this.#count - 1;
    return last < this.#first || this.#memory.compareKey(this.#keyAt[last]!, key) < 0;
  }

  #hashAll(): HashedEntries {
    const hashed = new HashedEntries(this.#memory, this.#keyOf());
    for (let entry = this.#first; entry < this.#count; entry++) {
      hashed.add(entry, this.#memory.hashAt(this.#secret, this.#keyAt[entry]!));
    }
    return hashed;
  }

  #keyOf(): (entry: number) => number {
    return (entry) => this.#keyAt[entry]!;
  }

  #grow(): void {
    const larger = (small: Uint32Array): Uint32Array<ArrayBuffer> => {
      const large = new Uint32Array(small.length * 2);
      large.set(small);
      return large;
    };
    this.#keyAt = larger(this.#keyAt);
    this.#newest = larger(this.#newest);
    this.#shown = larger(this.#shown);
  }

  /** Of rising keys: the first entry whose key is not before this one. */
  #firstNotBefore(key: Bytes): number {
    let low = this.#first;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#memory.compareKey(this.#keyAt[middle]!, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

interface Former {
  readonly slots: Int32Array;
  readonly hashes: Int32Array;
  readonly count: number;
  readonly order: SortedBlocks<number, Bytes>;
  readonly heads: KeyHeads;
}

/** Entries in no order of their own: a table to find them by their keys, and their order. */
class HashedEntries {
  readonly #memory: ChangeMemory;
  readonly #order: SortedBlocks<number, Bytes>;
  readonly #heads: KeyHeads;
  /** By place: one more than the entry that stands there. */
  #slots: Int32Array;
  /** By place: the hash of the entry that stands there. */
  #hashes: Int32Array;
  #count: number;

  constructor(memory: ChangeMemory, keyOf: (entry: number) => number, former?: Former) {
    this.#memory = memory;
    const key = (entry: number): Bytes => memory.key(keyOf(entry));
    const heads = former ? former.heads.copy(key) : new KeyHeads(key);
    const order: Order<number, Bytes> = {
      compare: (a, b) => heads.compare(a, b) || memory.compareKeys(keyOf(a), keyOf(b)),
      against: (entry, key) => heads.against(entry, key) || memory.compareKey(keyOf(entry), key),
    };
    this.#heads = heads;
    this.#order = former ? former.order.copy(order) : new SortedBlocks(order);
    this.#slots = former ? former.slots.slice() : new Int32Array(ENTRIES_FIRST * 4);
    this.#hashes = former ? former.hashes.slice() : new Int32Array(ENTRIES_FIRST * 4);
    this.#count = former?.count ?? 0;
  }

  find(probe: Probe, keyAt: Uint32Array): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    const hash = probe.hash | 0;
    for (let place = hash & mask; ; place = (place + 1) & mask) {
      const entry = slots[place]! - 1;
      if (entry === ABSENT) return ABSENT;
      if (this.#hashes[place] === hash && this.#memory.sameKey(keyAt[entry]!, probe.key)) {
        return entry;
      }
    }
  }

  /** The caller knows that its key is not there yet. */
  add(entry: number, hash: number): void {
    if (this.#count * 2 >= this.#slots.length) this.#grow();
    this.#count++;
    place(this.#slots, this.#hashes, entry + 1, hash | 0);
    this.#heads.add(entry);
    this.#order.add(entry);
  }

  entries(from: Bytes, to: Bytes | undefined, reverse: boolean): Cursor<number> {
    return reverse ? this.#order.downwards(from, to) : this.#order.upwards(from, to);
  }

  copy(memory: ChangeMemory, keyOf: (entry: number) => number): HashedEntries {
    return new HashedEntries(memory, keyOf, {
      slots: this.#slots,
      hashes: this.#hashes,
      count: this.#count,
      order: this.#order,
      heads: this.#heads,
    });
  }

  #grow(): void {
    const slots = new Int32Array(this.#slots.length * 2);
    const hashes = new Int32Array(slots.length);
    for (let i = 0; i < this.#slots.length; i++) {
      if (this.#slots[i] !== 0) place(slots, hashes, this.#slots[i]!, this.#hashes[i]!);
    }
    this.#slots = slots;
    this.#hashes = hashes;
  }
}

function place(slots: Int32Array, hashes: Int32Array, content: number, hash: number): void {
  const mask = slots.length - 1;
  let at = hash & mask;
  while (slots[at] !== 0) at = (at + 1) & mask;
  slots[at] = content;
  hashes[at] = hash;
}

class Numbers implements Cursor<number> {
  at: number | undefined;
  readonly #last: number;
  readonly #step: 1 | -1;

  constructor(first: number, last: number, step: 1 | -1) {
    this.#last = last;
    this.#step = step;
    this.at = (last - first) * step >= 0 ? first : undefined;
  }

  advance(): void {
    this.at = this.at === this.#last ? undefined : this.at! + this.#step;
  }
}
