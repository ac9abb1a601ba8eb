import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Cursor, type Order, SortedBlocks } from './sorted-blocks.ts';

const BY_UNITS: Order<string, string> = { compare: byUnits, against: byUnits };

function collect(cursor: Cursor<string>): string[] {
  const names: string[] = [];
  for (; cursor.at !== undefined; cursor.advance()) names.push(cursor.at);
  return names;
}

describe('things in order', () => {
  it('are those of a sorted list, from any bound to any bound, both ways', () => {
    const name = fc.string({ maxLength: 3 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), name), { maxLength: 60 }),
        name,
        fc.option(name, { nil: undefined }),
        (steps, from, to) => {
          const names = new SortedBlocks(BY_UNITS);
          const model = new Set<string>();
          for (const [added, one] of steps) {
            if (!added) names.delete(one);
            else if (!model.has(one)) names.add(one);
            if (added) model.add(one);
            else model.delete(one);
          }
          const within = (one: string): boolean => one >= from && (to === undefined || one < to);
          const expected = [...model].filter(within).sort(byUnits);
          expect(collect(names.upwards(from, to))).toEqual(expected);
          expect(collect(names.downwards(from, to))).toEqual(expected.reverse());
        },
      ),
    );
  });

  it('stay in order over many blocks, whichever way they come and go', () => {
    const names = new SortedBlocks(BY_UNITS);
    const expected: string[] = [];
    for (let i = 0; i < 5_000; i++) {
      const one = String((i * 7_919) % 5_000).padStart(5, '0');
      names.add(one);
      expected.push(one);
    }
    expected.sort(byUnits);
    expect(collect(names.upwards('', undefined))).toEqual(expected);
    const copy = names.copy();
    for (const one of expected.splice(1_000, 3_000)) names.delete(one);
    expect(collect(names.upwards('', undefined))).toEqual(expected);
    expect(collect(names.downwards('00990', '04010'))).toHaveLength(20);
    expect(collect(copy.upwards('', undefined))).toHaveLength(5_000);
  });
});

function byUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
