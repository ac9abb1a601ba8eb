import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Bag, type Bagged } from './bag.ts';

test('agrees with a Set under any order of additions and removals', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(9)), { maxLength: 80 }), (steps) => {
      const things: Bagged[] = Array.from({ length: 10 }, () => ({}));
      const bag = new Bag<Bagged>();
      const set = new Set<Bagged>();
      for (const [add, index] of steps) {
        const thing = things[index]!;
        if (!add) {
          bag.delete(thing);
          set.delete(thing);
        } else if (!set.has(thing)) {
          bag.add(thing);
          set.add(thing);
        }
        expect(bag.size).toBe(set.size);
        expect(new Set(bag)).toEqual(set);
        for (const each of things) expect(bag.has(each)).toBe(set.has(each));
      }
    }),
  );
});

test('what is removed while the bag is walked through is still visited, once', () => {
  const bag = new Bag<Bagged & { readonly name: string }>();
  for (const name of ['a', 'b', 'c']) bag.add({ name });
  const seen: string[] = [];
  for (const thing of bag) {
    seen.push(thing.name);
    for (const other of bag) bag.delete(other);
  }
  expect(seen).toEqual(['a', 'b', 'c']);
  expect(bag.size).toBe(0);
});
