import { expect, test } from 'vitest';
import { seededRandom } from '../../base/random.ts';
import { type DeadlineSlot, Deadlines, type Expiring } from './deadlines.ts';

class Entry implements Expiring {
  deadlineNext: Expiring | undefined = undefined;
  deadlinePrevious: Expiring | undefined = undefined;
  deadlineSlot: DeadlineSlot | undefined = undefined;
  readonly onDeadline: () => void;

  constructor(onDeadline: () => void) {
    this.onDeadline = onDeadline;
  }
}

test('every deadline fires once, not early, and at most 1/64 of its distance late', () => {
  const random = seededRandom(3);
  const deadlines = new Deadlines();
  let now = 0;
  let open = 0;
  for (let step = 0; step < 3_000; step++) {
    for (let i = random.integer(0, 4); i > 0; i--) {
      const distance = random.pick([0, 1, 20, 500, 5_000, 60_000]);
      const dueAt = now + distance;
      const addedAt = now;
      let fired = 0;
      const entry = new Entry(() => {
        expect(++fired).toBe(1);
        expect(now).toBeGreaterThanOrEqual(dueAt);
        // The alarm itself may come late by the step below.
        expect(now - dueAt).toBeLessThanOrEqual(Math.max(8, (dueAt - addedAt) / 64) + 16);
        open--;
      });
      open++;
      deadlines.add(entry, dueAt, now);
      if (random.chance(0.5)) {
        deadlines.remove(entry);
        deadlines.remove(entry);
        open--;
      }
    }
    now += random.integer(0, 16);
    if (now >= deadlines.nextAtMs) deadlines.expire(now);
  }
  while (open > 0 && deadlines.nextAtMs < Number.POSITIVE_INFINITY) {
    now = deadlines.nextAtMs;
    deadlines.expire(now);
  }
  expect(open).toBe(0);
});

test('what fires may add and remove others', () => {
  const deadlines = new Deadlines();
  const fired: string[] = [];
  const b = new Entry(() => fired.push('b'));
  const c = new Entry(() => fired.push('c'));
  const a = new Entry(() => {
    fired.push('a');
    deadlines.remove(b);
    deadlines.add(c, 0, 8);
  });
  deadlines.add(b, 4, 0);
  deadlines.add(a, 4, 0);
  deadlines.expire(8);
  expect(fired).toEqual(['a']);
  expect(deadlines.nextAtMs).toBeLessThanOrEqual(8);
  deadlines.expire(8);
  expect(fired).toEqual(['a', 'c']);
});
