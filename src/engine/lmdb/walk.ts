/**
 * Walks a tree of the data file without LMDB, which follows damaged page numbers into a crash or
 * into old data. Checks order, bounds, counts and that no page is used twice, and shows every
 * record to a visitor. A generator, so that a large store can be walked in small steps.
 */
import { type Bytes, compareBytes, toHex } from '../../base/bytes.ts';
import {
  checkHeader,
  childOf,
  damaged,
  type Meta,
  nodeKey,
  nodeOffset,
  OVERFLOW,
  PAGE_HEADER,
  type Page,
  type PageFile,
  readPage,
  type Tree,
  uint64,
  viewBytes,
} from './pages.ts';

/** One mark per page; a page that is claimed twice is damage. */
export class PageMap {
  readonly #used: Uint8Array;
  #count = 0;
  #highest = 1;

  constructor(lastPage: number) {
    this.#used = new Uint8Array(lastPage + 1);
  }

  get count(): number {
    return this.#count;
  }

  get highest(): number {
    return this.#highest;
  }

  /** Whether a page from `first` on is nobody's. */
  unclaimedFrom(first: number): boolean {
    for (let page = first; page < this.#used.length; page++)
      if (this.#used[page] === 0) return true;
    return false;
  }

  claim(number: number, count: number, what: string): void {
    if (number < 2 || count < 1 || number + count > this.#used.length) {
      throw damaged(`${what} is page ${number}, which does not exist`);
    }
    for (let page = number; page < number + count; page++) {
      if (this.#used[page] !== 0) throw damaged(`page ${page} is used twice`);
      this.#used[page] = 1;
    }
    this.#count += count;
    this.#highest = Math.max(this.#highest, number + count - 1);
  }
}

/** What a visitor sees: the bytes stand in the page and stay only until it returns. */
export type Visitor = (key: Bytes, data: Bytes) => void;

type Order = (a: Bytes, b: Bytes) => number;

interface Walk {
  readonly file: PageFile;
  readonly transaction: number;
  readonly pages: PageMap;
  readonly order: Order;
  /** Undefined: leaf pages are counted, not read. */
  readonly visit: Visitor | undefined;
  branchPages: number;
  leafPages: number;
  overflowPages: number;
  entries: number;
  /** Last key seen, and the separator that every following key must reach. */
  previous: Bytes | undefined;
  floor: Bytes | undefined;
}

/** Yields once per page of the tree. Without a visitor it reads the branch pages only. */
export function* walkTree(
  file: PageFile,
  meta: Meta,
  tree: Tree,
  pages: PageMap,
  visit: Visitor | undefined,
): Generator<void, void, void> {
  const walk: Walk = {
    file,
    transaction: meta.transaction,
    pages,
    order: tree === meta.free ? compareNumbers : compareBytes,
    visit,
    branchPages: 0,
    leafPages: 0,
    overflowPages: 0,
    entries: 0,
    previous: undefined,
    floor: undefined,
  };
  if (tree.root !== undefined) yield* walkPage(walk, tree.root, tree.depth);
  else if (tree.depth !== 0) throw damaged('a tree has depth but no root');
  const read = ['overflowPages', 'entries'] as const;
  for (const name of ['branchPages', 'leafPages', ...(visit ? read : [])] as const) {
    if (walk[name] !== tree[name]) {
      throw damaged(`${walk[name]} ${name} were found where ${tree[name]} must be`);
    }
  }
}

function* walkPage(walk: Walk, number: number, depth: number): Generator<void, void, void> {
  if (depth < 1) throw damaged('a tree is deeper than it says');
  walk.pages.claim(number, 1, 'a child');
  if (depth === 1 && !walk.visit) {
    walk.leafPages++;
    return;
  }
  const page = readPage(walk.file, number, walk.transaction);
  yield;
  if (page.leaf !== (depth === 1)) throw damaged(`page ${number} stands at the wrong depth`);
  if (page.leaf) walkLeaf(walk, page);
  else yield* walkBranch(walk, page, depth);
}

function* walkBranch(walk: Walk, page: Page, depth: number): Generator<void, void, void> {
  walk.branchPages++;
  for (let i = 0; i < page.nodes; i++) {
    const offset = nodeOffset(page, i);
    // The first separator of a page is never compared and may be anything.
    if (i > 0) {
      const separator = nodeKey(page, offset);
      if (walk.previous && walk.order(separator, walk.previous) <= 0) {
        throw damaged(`the separators of page ${page.number} are out of order`);
      }
      walk.floor = separator;
    }
    yield* walkPage(walk, childOf(page, offset), depth - 1);
  }
}

function walkLeaf(walk: Walk, page: Page): void {
  walk.leafPages++;
  let last: Bytes | undefined = walk.previous;
  for (let i = 0; i < page.nodes; i++) {
    const offset = nodeOffset(page, i);
    const key = nodeKey(page, offset);
    if (last && walk.order(key, last) <= 0) throw outOfOrder(page, key);
    if (i === 0 && walk.floor && walk.order(key, walk.floor) < 0) throw outOfOrder(page, key);
    last = key;
    walk.entries++;
    walk.visit?.(key, nodeData(walk, page, offset, key));
  }
  walk.previous = last;
}

function outOfOrder(page: Page, key: Bytes): Error {
  return damaged(`key 0x${toHex(key)} on page ${page.number} is out of order`);
}

function nodeData(walk: Walk, page: Page, offset: number, key: Bytes): Bytes {
  const { view } = page;
  const size = view.getUint32(offset, true);
  const at = offset + 8 + key.length;
  if (view.getUint16(offset + 4, true) === 0) return viewBytes(view, at, size);
  const name = `the overflow of page ${page.number}`;
  const number = uint64(view, at, name);
  const count = uint64(view, at + 16, name);
  const { pageSize } = walk.file;
  if (count !== Math.floor((PAGE_HEADER - 1 + size) / pageSize) + 1) {
    throw damaged(`${name} has ${count} pages`);
  }
  walk.pages.claim(number, count, name);
  walk.overflowPages += count;
  const run = walk.file.pages(number, count);
  checkHeader(run, number, walk.transaction);
  if (run.getUint16(18, true) !== OVERFLOW || run.getUint32(20, true) !== count) {
    throw damaged(`${name} is not one`);
  }
  return viewBytes(run, PAGE_HEADER, size);
}

/** Keys of the free tree: transaction numbers, eight bytes, little end first. */
function compareNumbers(a: Bytes, b: Bytes): number {
  if (a.length !== 8 || b.length !== 8) throw damaged('a key of the free tree is not a number');
  for (let i = 7; i >= 0; i--) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return 0;
}

/**
 * Claims the pages that a record of the free tree lists: a count of words, then page numbers; a
 * negative number says how many pages the next one stands for, and zeros are holes.
 */
export function claimFree(data: Bytes, pages: PageMap): void {
  if (data.length < 8 || data.length % 8 !== 0) throw damaged('a free list has a bad length');
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const words = uint64(view, 0, 'a free list');
  if (words * 8 + 8 > data.length) throw damaged('a free list is longer than its record');
  for (let i = 1; i <= words; i++) {
    const word = view.getBigInt64(i * 8, true);
    if (word === 0n) continue;
    if (word > 0n) {
      pages.claim(Number(word), 1, 'a free page');
      continue;
    }
    i++;
    if (i > words) throw damaged('a free list ends inside a run');
    pages.claim(uint64(view, i * 8, 'a free list'), Number(-word), 'a free run');
  }
}

/** Looks one key up in the main tree; checks the pages on the way. */
export function findRecord(file: PageFile, meta: Meta, key: Bytes): Bytes | undefined {
  let number = meta.main.root;
  if (number === undefined) return undefined;
  for (let depth = meta.main.depth; depth >= 1; depth--) {
    if (number < 2) throw damaged(`a child is page ${number}`);
    const page = readPage(file, number, meta.transaction);
    if (page.leaf !== (depth === 1)) throw damaged(`page ${number} stands at the wrong depth`);
    if (page.leaf) return findInLeaf(page, key);
    number = childFor(page, key);
  }
  throw damaged('the main tree has no depth');
}

function childFor(page: Page, key: Bytes): number {
  let index = 0;
  while (index + 1 < page.nodes) {
    const separator = nodeKey(page, nodeOffset(page, index + 1));
    if (compareBytes(separator, key) > 0) break;
    index++;
  }
  return childOf(page, nodeOffset(page, index));
}

function findInLeaf(page: Page, key: Bytes): Bytes | undefined {
  for (let i = 0; i < page.nodes; i++) {
    const offset = nodeOffset(page, i);
    const found = nodeKey(page, offset);
    if (compareBytes(found, key) !== 0) continue;
    const { view } = page;
    if (view.getUint16(offset + 4, true) !== 0) throw damaged('an engine record is too long');
    const size = view.getUint32(offset, true);
    return viewBytes(view, offset + 8 + found.length, size);
  }
  return undefined;
}
