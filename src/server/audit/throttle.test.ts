import { expect, test } from 'vitest';

import { AuditThrottle, OTHERS_ACT } from './throttle.ts';

const told = (act: string): { act: string } => ({ act });
const MINUTE = 60_000;

test('of what is alike one is told at once, and in the next minute how often it happened', () => {
  const throttle = new AuditThrottle(0);
  expect(throttle.add('a', told('a'), 0)).toEqual([told('a')]);
  for (let i = 1; i <= 5; i++) expect(throttle.add('a', told('a'), i)).toEqual([]);
  expect(throttle.wakeMs).toBe(MINUTE);
  expect(throttle.due(MINUTE - 1)).toEqual([]);
  expect(throttle.due(MINUTE)).toEqual([{ act: 'a', times: 5 }]);
  expect(throttle.wakeMs).toBeUndefined();
});

test('whatever strangers do, there are few entries, and their counts add up', () => {
  const throttle = new AuditThrottle(0);
  const HOURS = 4;
  const ATTEMPTS = 50_000;
  let entries = 0;
  let counted = 0;
  const count = (due: readonly { times?: number }[]): void => {
    entries += due.length;
    for (const { times = 1 } of due) counted += times;
  };
  for (let i = 0; i < ATTEMPTS; i++) {
    count(throttle.add(`from ${i}`, told('login'), (i * HOURS * 60 * MINUTE) / ATTEMPTS));
  }
  count(throttle.rest());
  expect(counted).toBe(ATTEMPTS);
  expect(entries).toBeLessThan(64 + HOURS * 60 + 64);
});

test('control: one entry for each would be as many as they like', () => {
  const throttles = Array.from({ length: 1_000 }, () => new AuditThrottle(0));
  expect(throttles.flatMap((one) => one.add('a', told('a'), 0))).toHaveLength(1_000);
});

test('at the end everything that is counted is told', () => {
  const throttle = new AuditThrottle(0);
  for (let i = 0; i < 200; i++) throttle.add(`${i}`, told('a'), 0);
  throttle.add('0', told('a'), 1);
  const rest = throttle.rest();
  expect(rest.map(({ act, times }) => [act, times])).toEqual([
    ['a', 1],
    [OTHERS_ACT, 136],
  ]);
  expect(throttle.rest()).toEqual([]);
});
