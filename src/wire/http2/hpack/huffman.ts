/**
 * The Huffman code of RFC 7541, appendix B, both ways.
 *
 * The code is canonical: symbols of equal length have consecutive codes in the order of their
 * values. So the lengths alone are kept here, and codes and decoding automaton are computed once.
 * The automaton eats four bits at a time: the shortest code has five, so a step emits one symbol at
 * most.
 */
import type { Bytes } from '../../../base/bytes.ts';

/** Code length in bits of each byte value, then of the end-of-string symbol; `6x3` is `6 6 6`. */
const LENGTHS =
  '13 23 28x7 24 30 28x2 30 28x8 30 28x9 6 10x2 12 13 6 8 11 10x2 8 11 8 6x3 5x3 6x7 7 8 ' +
  '15 6 12 10 13 6 7x22 8 7 8 13 19 13 14 6 15 5 6 5 6 5 6x3 5 7x2 6x3 5 6 7 6 5x2 6 7x5 ' +
  '15 11 14 13 28 20 22 20x2 22x3 23 22 23x5 24 23 24x2 22 23 24 23x4 21 22 23 22 23x2 24 ' +
  '22 21 20 22x2 23x2 21 23 22x2 24 21 22 23x2 21x2 22 21 23 22 23x2 20 22x3 23 22x2 23 ' +
  '26x2 20 19 22 23 22 25 26x3 27x2 26 24 25 19 21 26 27x2 26 27 24 21x2 26x2 28 27x3 20 ' +
  '24 20 21 22 21x2 23 22x2 25x2 24x2 26 23 26 27 26x2 27x5 28 27x5 26 30';

const EOS = 256;

function expandLengths(): Uint8Array {
  const lengths = new Uint8Array(EOS + 1);
  let symbol = 0;
  for (const item of LENGTHS.split(' ')) {
    const [bits, times] = item.split('x');
    for (let i = Number(times ?? 1); i > 0; i--) lengths[symbol++] = Number(bits);
  }
  return lengths;
}

const BITS = expandLengths();
const CODES = new Uint32Array(EOS + 1);

function assignCodes(): void {
  let code = 0;
  for (let bits = 1; bits <= 30; bits++) {
    code *= 2;
    for (let symbol = 0; symbol <= EOS; symbol++) {
      if (BITS[symbol] === bits) CODES[symbol] = code++;
    }
  }
}
assignCodes();

/** A state is an inner node of the code tree; the tree of 257 leaves has 256 of them. */
const STATES = 256;
const SYMBOL = 0xff;
const EMITS = 0x100;
const DEAD = 0x200;
const STATE_SHIFT = 10;
/** `step[state * 16 + nibble]`: the next state, the symbol emitted if any, or a dead end. */
const STEP = new Uint32Array(STATES * 16);
/** Whether a string may end here: fewer than eight bits of padding, all of them ones. */
const MAY_END = new Uint8Array(STATES);

function buildAutomaton(): void {
  const children = new Int32Array(STATES * 2);
  let nodes = 1;
  for (let symbol = 0; symbol <= EOS; symbol++) {
    let node = 0;
    for (let bit = BITS[symbol]! - 1; bit > 0; bit--) {
      const slot = node * 2 + ((CODES[symbol]! >>> bit) & 1);
      if (children[slot] === 0) children[slot] = nodes++;
      node = children[slot]!;
    }
    children[node * 2 + (CODES[symbol]! & 1)] = -1 - symbol;
  }
  for (let state = 0; state < STATES; state++) {
    for (let nibble = 0; nibble < 16; nibble++) STEP[state * 16 + nibble] = walk(state, nibble);
  }
  for (let node = 0, ones = 0; ones < 8; ones++) {
    MAY_END[node] = 1;
    node = children[node * 2 + 1]!;
  }

  function walk(state: number, nibble: number): number {
    let node = state;
    let emitted = 0;
    for (let bit = 3; bit >= 0; bit--) {
      node = children[node * 2 + ((nibble >>> bit) & 1)]!;
      if (node >= 0) continue;
      const symbol = -1 - node;
      if (symbol === EOS) return DEAD;
      emitted = EMITS | symbol;
      node = 0;
    }
    return (node << STATE_SHIFT) | emitted;
  }
}
buildAutomaton();

/**
 * Decodes `source[start, end)` into `target` from 0 and answers how many bytes came out, or -1 when
 * the input is no valid string. `target` needs 8/5 of the input's length.
 */
export function decodeHuffman(source: Bytes, start: number, end: number, target: Bytes): number {
  let state = 0;
  let length = 0;
  for (let i = start; i < end; i++) {
    const byte = source[i]!;
    let step = STEP[state * 16 + (byte >>> 4)]!;
    if (step & DEAD) return -1;
    if (step & EMITS) target[length++] = step & SYMBOL;
    step = STEP[(step >>> STATE_SHIFT) * 16 + (byte & 15)]!;
    if (step & DEAD) return -1;
    if (step & EMITS) target[length++] = step & SYMBOL;
    state = step >>> STATE_SHIFT;
  }
  return MAY_END[state] ? length : -1;
}

/** Length in bytes of the encoded form of a string with one character per byte. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += BITS[text.charCodeAt(i) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes the encoded form at `offset`, padded with ones; answers the offset behind it. */
export function encodeHuffman(text: string, target: Bytes, offset: number): number {
  let at = offset;
  let pending = 0;
  let held = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i) & 0xff;
    let bits = BITS[symbol]!;
    const code = CODES[symbol]!;
    while (bits > 0) {
      const room = Math.min(8 - held, bits);
      bits -= room;
      pending = (pending << room) | ((code >>> bits) & ((1 << room) - 1));
      held += room;
      if (held === 8) {
        target[at++] = pending;
        pending = 0;
        held = 0;
      }
    }
  }
  if (held > 0) target[at++] = (pending << (8 - held)) | (0xff >>> held);
  return at;
}
