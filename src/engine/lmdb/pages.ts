/**
 * The file format of LMDB as far as a check needs it (data format 2, 64-bit, little endian):
 *
 *   page header, 24 bytes   number 8, transaction 8, pad 2, flags 2, lower 2 + upper 2 (or, for an
 *                           overflow run, the count of its pages 4)
 *   meta page 0, 1          magic 4, version 4, address 8, map size 8, free tree 48, main tree 48,
 *                           last page 8, transaction 8, boot id 8
 *   tree                    pad 4, flags 2, depth 2, branch, leaf and overflow pages 8 each,
 *                           entries 8, root 8
 *   node                    low 2, high 2, flags 2, key size 2, key, data; its offset counts from
 *                           the end of the page header. Branch: low, high and flags are the child's
 *                           number. Leaf: low and high are the data size; flag 1 puts the data into
 *                           an overflow run, described by number 8, transaction 8, pages 8.
 *
 * Nothing here trusts what it reads: a number out of bounds is reported, never followed.
 */
import { readSync } from 'node:fs';
import type { Bytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';

export const PAGE_HEADER = 24;
export const BRANCH = 1;
export const LEAF = 2;
export const OVERFLOW = 4;
const META = 8;
const LMDB_MAGIC = 0xbeefc0de;
const LMDB_DATA_VERSION = 2;

export interface Tree {
  readonly flags: number;
  readonly depth: number;
  readonly branchPages: number;
  readonly leafPages: number;
  readonly overflowPages: number;
  readonly entries: number;
  /** Absent: the tree is empty. */
  readonly root: number | undefined;
}

export interface Meta {
  /** Which of the two meta pages this is. */
  readonly slot: 0 | 1;
  readonly pageSize: number;
  readonly mapBytes: number;
  readonly free: Tree;
  readonly main: Tree;
  readonly lastPage: number;
  readonly transaction: number;
}

/** Positions inside a meta page, for the one repair that is done there. */
export const META_LAST_PAGE: number = PAGE_HEADER + 24 + 2 * 48;
export const META_TRANSACTION: number = META_LAST_PAGE + 8;
const META_END = META_TRANSACTION + 16;

export function damaged(what: string): HoldfastError {
  return new HoldfastError(
    'corrupt',
    `the store is damaged: ${what}. Nothing was dropped or repaired: keep the files, and restore ` +
      'a backup into a new directory',
  );
}

export function truncated(what: string): HoldfastError {
  return new HoldfastError(
    'store-truncated',
    `the store is shorter than it must be: ${what}. Was it copied while in use, or by a copy that ` +
      'was interrupted? Copy it again with the owner stopped, or restore a backup',
  );
}

function notAStore(what: string): HoldfastError {
  return new HoldfastError('not-a-store', `${what}; point to a directory that holdfast made`);
}

/** The data file as pages. `page` answers a view that the next call may overwrite or not. */
export class PageFile {
  readonly pageSize: number;
  readonly #fd: number;
  readonly bytes: number;
  readonly #whole: Buffer | undefined;

  /** With `whole` the file is read once into memory; else page by page. */
  constructor(fd: number, bytes: number, pageSize: number, whole: boolean) {
    this.#fd = fd;
    this.bytes = bytes;
    this.pageSize = pageSize;
    if (whole) {
      this.#whole = Buffer.allocUnsafe(bytes);
      readFully(fd, this.#whole, 0);
    }
  }

  /** `count` pages from `number` on, as a stable view. */
  pages(number: number, count: number): DataView {
    const start = number * this.pageSize;
    const length = count * this.pageSize;
    if (start + length > this.bytes) throw truncated(`page ${number + count - 1} is missing`);
    const buffer = this.#whole ?? Buffer.allocUnsafeSlow(length);
    if (this.#whole) return new DataView(buffer.buffer, buffer.byteOffset + start, length);
    readFully(this.#fd, buffer, start);
    return new DataView(buffer.buffer, buffer.byteOffset, length);
  }
}

function readFully(fd: number, into: Buffer, position: number): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, position + done);
    if (count === 0) throw truncated('it ended while being read');
    done += count;
  }
}

/** An unsigned 64-bit number that must be an exact one. */
export function uint64(view: DataView, offset: number, what: string): number {
  const high = view.getUint32(offset + 4, true);
  if (high >= 0x200000) throw damaged(`${what} is out of range`);
  return high * 2 ** 32 + view.getUint32(offset, true);
}

export function viewBytes(view: DataView, offset: number, length: number): Bytes {
  return new Uint8Array(view.buffer, view.byteOffset + offset, length);
}

/** Both meta pages of an open file; throws when it is not LMDB's, or one of them is damaged. */
export function readMetas(fd: number, bytes: number): readonly [Meta, Meta] {
  if (bytes < PAGE_HEADER + META_END) {
    const magic = bytes >= PAGE_HEADER + 4 && readView(fd, 0, PAGE_HEADER + 4);
    if (bytes === 0 || (magic && magic.getUint32(PAGE_HEADER, true) === LMDB_MAGIC)) {
      throw truncated(`the data file has ${bytes} bytes`);
    }
    throw notAStore('the data file is too short and does not begin like a store');
  }
  const first = readView(fd, 0, META_END);
  const pageSize = probePageSize(fd, bytes, first);
  if (bytes < 2 * pageSize) throw truncated(`the data file has ${bytes} bytes`);
  const second = readView(fd, pageSize, META_END);
  return [readMeta(first, 0, pageSize), readMeta(second, 1, pageSize)];
}

/** Where the second meta page stands, believed only if the magic number is there. */
function probePageSize(fd: number, bytes: number, first: DataView): number {
  const stated = first.getUint32(PAGE_HEADER + 24, true);
  const plausible = (size: number): boolean =>
    bytes < size + PAGE_HEADER + 4 ||
    readView(fd, size, PAGE_HEADER + 4).getUint32(PAGE_HEADER, true) === LMDB_MAGIC;
  const isMeta = first.getUint32(PAGE_HEADER, true) === LMDB_MAGIC;
  const sizes = [4_096, 8_192, 16_384, 32_768, 65_536];
  if (isMeta && sizes.includes(stated) && plausible(stated)) return stated;
  const second = sizes.find((size) => bytes >= size + PAGE_HEADER + 4 && plausible(size));
  if (second !== undefined) throw damaged('the first meta page is not readable');
  if (isMeta) throw damaged('the meta pages disagree');
  throw notAStore('the data file does not begin like a store');
}

function readView(fd: number, position: number, length: number): DataView {
  const buffer = Buffer.allocUnsafeSlow(length);
  readFully(fd, buffer, position);
  return new DataView(buffer.buffer, buffer.byteOffset, length);
}

function readMeta(view: DataView, slot: 0 | 1, pageSize: number): Meta {
  const at = PAGE_HEADER;
  const name = `meta page ${slot}`;
  if (view.getUint32(at, true) !== LMDB_MAGIC) throw damaged(`${name} is not one`);
  if (view.getUint32(at + 4, true) !== LMDB_DATA_VERSION) throw damaged(`${name} has no version`);
  if (uint64(view, 0, name) !== slot) throw damaged(`${name} has another number`);
  if (view.getUint16(18, true) !== META) throw damaged(`${name} has another type`);
  if (uint64(view, at + 8, name) !== 0) throw damaged(`${name} has an address`);
  if (view.getUint32(at + 24, true) !== pageSize) throw damaged(`${name} has another page size`);
  const free = readTree(view, at + 24, `the free tree of ${name}`);
  const main = readTree(view, at + 72, `the main tree of ${name}`);
  if (free.flags !== META || main.flags !== 0) throw damaged(`${name} has unknown flags`);
  return {
    slot,
    pageSize,
    mapBytes: uint64(view, at + 16, name),
    free,
    main,
    lastPage: uint64(view, META_LAST_PAGE, name),
    transaction: uint64(view, META_TRANSACTION, name),
  };
}

function readTree(view: DataView, at: number, what: string): Tree {
  const empty =
    view.getUint32(at + 40, true) === 0xffffffff && view.getUint32(at + 44, true) === 0xffffffff;
  return {
    flags: view.getUint16(at + 4, true),
    depth: view.getUint16(at + 6, true),
    branchPages: uint64(view, at + 8, what),
    leafPages: uint64(view, at + 16, what),
    overflowPages: uint64(view, at + 24, what),
    entries: uint64(view, at + 32, what),
    root: empty ? undefined : uint64(view, at + 40, what),
  };
}

/** The checked frame of a branch or leaf page. */
export interface Page {
  readonly view: DataView;
  readonly number: number;
  readonly leaf: boolean;
  readonly nodes: number;
}

/** Reads a tree page and checks everything about it that does not depend on its neighbours. */
export function readPage(file: PageFile, number: number, transaction: number): Page {
  const view = file.pages(number, 1);
  const name = `page ${number}`;
  checkHeader(view, number, transaction);
  const flags = view.getUint16(18, true);
  if (flags !== BRANCH && flags !== LEAF) throw damaged(`${name} has type ${flags}`);
  const room = file.pageSize - PAGE_HEADER;
  const lower = view.getUint16(20, true);
  const upper = view.getUint16(22, true);
  const nodes = lower >>> 1;
  const leaf = flags === LEAF;
  if (lower % 2 !== 0 || lower > upper || upper > room) throw damaged(`${name} has bad bounds`);
  if (nodes < (leaf ? 1 : 2)) throw damaged(`${name} has ${nodes} nodes`);
  let used = 0;
  for (let i = 0; i < nodes; i++) used += nodeBytes(view, i, leaf, upper, room, name);
  if (used !== room - upper) throw damaged(`the nodes of ${name} do not fill it`);
  return { view, number, leaf, nodes };
}

export function checkHeader(view: DataView, number: number, transaction: number): void {
  const name = `page ${number}`;
  if (uint64(view, 0, name) !== number) throw damaged(`${name} has another number`);
  const written = uint64(view, 8, name);
  if (written < 1 || written > transaction) throw damaged(`${name} is from transaction ${written}`);
  if (view.getUint16(16, true) !== 0) throw damaged(`${name} has an unknown field`);
}

/** Size of a node on the page, rounded to even as LMDB does, after checking its bounds. */
function nodeBytes(
  view: DataView,
  index: number,
  leaf: boolean,
  upper: number,
  room: number,
  name: string,
): number {
  const offset = view.getUint16(PAGE_HEADER + 2 * index, true);
  if (offset < upper || offset + 8 > room || offset % 2 !== 0) {
    throw damaged(`a node of ${name} is out of bounds`);
  }
  const at = PAGE_HEADER + offset;
  let size = 8 + view.getUint16(at + 6, true);
  if (leaf) {
    const flags = view.getUint16(at + 4, true);
    if (flags > 1) throw damaged(`a node of ${name} has flags ${flags}`);
    size += flags === 1 ? 24 : view.getUint32(at, true);
  }
  size += size % 2;
  if (offset + size > room) throw damaged(`a node of ${name} is too long`);
  return size;
}

export function nodeOffset(page: Page, index: number): number {
  return PAGE_HEADER + page.view.getUint16(PAGE_HEADER + 2 * index, true);
}

export function nodeKey(page: Page, offset: number): Bytes {
  return viewBytes(page.view, offset + 8, page.view.getUint16(offset + 6, true));
}

export function childOf(page: Page, offset: number): number {
  return page.view.getUint32(offset, true) + page.view.getUint16(offset + 4, true) * 2 ** 32;
}
