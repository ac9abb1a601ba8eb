/** What a transaction touches, against a dumb twin that asks every key of a small world. */
import { describe, expect, it } from 'vitest';
import { utf8 } from '../../base/bytes.ts';
import { type Random, seededRandom } from '../../base/random.ts';
import { contains, interval, type KeyRange } from '../../model/range.ts';
import type { Compare, Operation, TxnRequest } from '../../model/transaction.ts';
import { footprint, Ground } from './footprint.ts';

const seed = Date.now() % 2 ** 31;
const LETTERS = ['a', 'b', 'c', 'd'];
/** Every key of one to three letters. */
const WORLD = LETTERS.flatMap((x) => [
  x,
  ...LETTERS.flatMap((y) => [x + y, ...LETTERS.map((z) => x + y + z)]),
]).map(utf8);

class Maker {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  upTo(count: number): number {
    return Math.floor(this.#random.next() * count);
  }

  key(): Uint8Array {
    return WORLD[this.upTo(WORLD.length)]!;
  }

  range(): KeyRange {
    const kind = this.upTo(8);
    if (kind === 0) return { key: this.key(), end: Uint8Array.of(0) };
    if (kind < 4) return { key: this.key(), end: this.key() };
    return { key: this.key() };
  }

  list<T>(count: number, make: () => T): T[] {
    return Array.from({ length: this.upTo(count + 1) }, make);
  }

  compare(): Compare {
    return { ...this.range(), target: 'version', result: '=', value: 1 };
  }

  operation(depth: number): Operation {
    const kind = this.upTo(depth > 0 ? 4 : 3);
    if (kind === 0) return { type: 'put', key: this.key(), value: utf8('v') };
    if (kind === 1) return { type: 'delete', ...this.range() };
    if (kind === 2) return { type: 'range', ...this.range() };
    return { type: 'txn', ...this.txn(depth - 1) };
  }

  txn(depth: number): TxnRequest {
    return {
      compare: this.list(1, () => this.compare()),
      success: this.list(2, () => this.operation(depth)),
      failure: this.list(1, () => this.operation(depth)),
    };
  }
}

/** The dumb twin. */
function keysOf({ compare = [], success = [], failure = [] }: TxnRequest): Set<number> {
  const found = new Set<number>();
  for (const range of compare) add(found, range);
  for (const operation of [...success, ...failure]) {
    if (operation.type === 'txn') for (const key of keysOf(operation)) found.add(key);
    else add(found, operation);
  }
  return found;
}

function add(found: Set<number>, range: KeyRange): void {
  for (const [i, key] of WORLD.entries()) if (contains(interval(range), key)) found.add(i);
}

describe('a footprint', () => {
  it(`meets another one exactly when a key is in both (seed ${seed})`, () => {
    const make = new Maker(seededRandom(seed));
    const seen = { apart: 0, met: 0 };
    for (let round = 0; round < 2_000; round++) {
      const ground = new Ground();
      const taken = new Set<number>();
      for (let i = 0; i < 6; i++) {
        const request = make.txn(2);
        const keys = keysOf(request);
        const meets = [...keys].some((key) => taken.has(key));
        const took = ground.take(footprint(request).touched);
        // Ranges may meet between the keys of the world, which are not all there are.
        if (took) {
          expect(meets, JSON.stringify(request)).toBe(false);
          for (const key of keys) taken.add(key);
        }
        seen[took ? 'apart' : 'met']++;
        if (!meets && !took) expect(hasRange(request), JSON.stringify(request)).toBe(true);
      }
    }
    expect(Math.min(seen.apart, seen.met)).toBeGreaterThan(1_000);
  });

  it('counts operations as the server does: each level, down the deepest way', () => {
    const put: Operation = { type: 'put', key: utf8('a') };
    const nested: Operation = { type: 'txn', success: [put, put, put], failure: [put] };
    const flat = footprint({ success: [put, put], failure: [put] });
    const deep = footprint({ success: [nested, put], failure: [nested] });
    expect([flat.operations, deep.operations]).toEqual([2, 5]);
  });

  it('weighs at least the bytes of keys and values', () => {
    const value = new Uint8Array(10_000);
    const put: Operation = { type: 'put', key: utf8('a'), value };
    const compare: Compare[] = [{ key: utf8('a'), target: 'value', result: '=', value }];
    const { bytes } = footprint({ compare, success: [{ type: 'txn', failure: [put] }] });
    expect(bytes).toBeGreaterThan(20_000);
  });

  it('knows a key that is put, however deep, and none where nothing is', () => {
    const put: Operation = { type: 'put', key: utf8('deep') };
    const del: Operation = { type: 'delete', key: utf8('a') };
    const deep = footprint({ success: [del, { type: 'txn', failure: [put] }] });
    expect([deep.put, footprint({ success: [del] }).put]).toEqual([utf8('deep'), undefined]);
  });
});

function hasRange({ compare = [], success = [], failure = [] }: TxnRequest): boolean {
  return (
    compare.some(({ end }) => end !== undefined) ||
    [...success, ...failure].some((operation) =>
      operation.type === 'txn'
        ? hasRange(operation)
        : operation.type !== 'put' && operation.end !== undefined,
    )
  );
}
