import { expect, test } from 'vitest';
import { seededRandom } from './random.ts';
import { systemRandom } from './system.ts';

const draws = (seed: number, count = 20): number[] => {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => random.next());
};

test('one seed is one sequence, another seed another', () => {
  expect(draws(1)).toEqual(draws(1));
  expect(draws(1)).not.toEqual(draws(2));
});

test('numbers lie in [0, 1) and spread evenly, also from neighbouring seeds', () => {
  for (const seed of [0, 1, 2, 2 ** 32 - 1]) {
    const counts = new Array<number>(10).fill(0);
    for (const draw of draws(seed, 20_000)) counts[Math.floor(draw * 10)]!++;
    expect(counts).toHaveLength(10);
    for (const count of counts) expect(Math.abs(count - 2_000)).toBeLessThan(250);
  }
});

test('integers cover their range and never leave it', () => {
  const random = seededRandom(7);
  const seen = new Set(Array.from({ length: 1_000 }, () => random.integer(-2, 3)));
  expect([...seen].sort((a, b) => a - b)).toEqual([-2, -1, 0, 1, 2]);
});

test('a chance of 0 never comes and of 1 always', () => {
  const random = seededRandom(7);
  for (let i = 0; i < 1_000; i++) {
    expect(random.chance(0)).toBe(false);
    expect(random.chance(1)).toBe(true);
  }
});

test('draws from a fork do not shift the parent', () => {
  const [a, b] = [seededRandom(5), seededRandom(5)];
  const fork = a.fork();
  for (let i = 0; i < 10; i++) fork.next();
  b.fork();
  expect(a.next()).toBe(b.next());
});

test('picking from nothing is an error', () => {
  expect(() => seededRandom(1).pick([])).toThrow(RangeError);
});

test('the machine gives different numbers, in range', () => {
  const seen = new Set(Array.from({ length: 100 }, () => systemRandom.next()));
  expect(seen.size).toBeGreaterThan(95);
  for (const draw of seen) expect(draw >= 0 && draw < 1).toBe(true);
});
