import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Lessor } from './lessor.ts';

test('a lease is due at its deadline and not a moment before', () => {
  const lessor = new Lessor();
  lessor.add(1n, 500, 500, 0, true);
  expect(lessor.due(499, 10).ended).toEqual([]);
  expect(lessor.due(500, 10).ended.map((lease) => lease.id)).toEqual([1n]);
  expect(lessor.has(1n)).toBe(false);
});

test('a renewed lease lives on from the renewal', () => {
  const lessor = new Lessor();
  const lease = lessor.add(1n, 500, 500, 0, true);
  lessor.renew(lease, 400);
  expect(lessor.due(899, 10).ended).toEqual([]);
  expect(lessor.due(900, 10).ended).toEqual([lease]);
});

test('what is left of a lease nobody renews is stored each time half of it is gone', () => {
  const lessor = new Lessor();
  const lease = lessor.add(1n, 16_000, 16_000, 0, true);
  const stored: number[] = [];
  for (let now = 0; now < 16_000; now += 100) {
    for (const fading of lessor.due(now, 10).fading) stored.push(fading.storedMs);
  }
  expect(stored).toEqual([8_000, 4_000, 2_000, 1_000]);
  expect(lessor.needsStoring(lease)).toBe(true);
});

test('what is left is not stored behind a renewal that is being stored', () => {
  const lessor = new Lessor();
  const lease = lessor.add(1n, 16_000, 16_000, 0, true);
  expect(lessor.due(8_000, 10).fading).toEqual([lease]);
  lease.renewing = 1;
  expect(lessor.due(12_000, 10)).toEqual({ ended: [], fading: [] });
  expect(lease.storedMs).toBe(8_000);
});

test('leases renewed in time are never stored again', () => {
  const lessor = new Lessor();
  const lease = lessor.add(1n, 9_000, 9_000, 0, true);
  for (let now = 0; now < 90_000; now += 100) {
    if (now % 3_000 === 0) lessor.renew(lease, now);
    expect(lessor.due(now, 10)).toEqual({ ended: [], fading: [] });
  }
});

test('leases end in order of their deadlines, in bounded portions', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 60 }), (ttls) => {
      const lessor = new Lessor();
      for (const [index, ttl] of ttls.entries()) lessor.add(BigInt(index + 1), ttl, ttl, 0, true);
      const ended: number[] = [];
      for (;;) {
        const due = lessor.due(1_000, 7).ended;
        expect(due.length).toBeLessThanOrEqual(7);
        if (due.length === 0) break;
        ended.push(...due.map((lease) => lease.ttlMs));
      }
      expect(ended).toEqual([...ttls].sort((a, b) => a - b));
    }),
  );
});
