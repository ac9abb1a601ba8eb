import { expect, it } from 'vitest';
import { type Bytes, compareBytes } from '../../base/bytes.ts';
import { seededRandom } from '../../base/random.ts';
import { KeyHeads } from './key-heads.ts';

for (const seed of [1, 2, 3, 4]) {
  it(`heads say of no two keys that they stand the other way around (seed ${seed})`, () => {
    const random = seededRandom(seed);
    const begin = random.bytes(random.integer(0, 9));
    const keys: Bytes[] = [];
    const keyOf = (entry: number): Bytes => keys[entry]!;
    const heads = new KeyHeads(keyOf);
    for (let entry = 0; entry < 300; entry++) {
      // Few different bytes, so that keys share a good deal, end early, and end in zeros; now and
      // then one that shares less than all before it.
      const kept = random.chance(0.02) ? random.integer(0, begin.length + 1) : begin.length;
      const rest = Array.from({ length: random.integer(0, 9) }, () => random.integer(0, 3));
      keys.push(Uint8Array.of(...begin.subarray(0, kept), ...rest));
      heads.add(entry);
    }
    let told = 0;
    let wrong = 0;
    for (const one of [heads, heads.copy(keyOf)]) {
      for (const [a, key] of keys.entries()) {
        for (const [b, other] of keys.entries()) {
          const order = Math.sign(compareBytes(key, other));
          const saidOf = [one.compare(a, b), one.against(a, other)].map(Math.sign);
          for (const said of saidOf) if (said !== 0 && said !== order) wrong++;
          if (saidOf[0] !== 0) told++;
        }
      }
    }
    expect(wrong).toBe(0);
    // Otherwise they tell nothing apart, and this has shown nothing.
    expect(told).toBeGreaterThan(keys.length * keys.length);
  });
}
