import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BoundedQueue } from './queue.ts';

test('refuses what is beyond its capacity and keeps the rest in order', async () => {
  const queue = new BoundedQueue<number>(2);
  expect([queue.push(1), queue.push(2), queue.push(3)]).toEqual([true, true, false]);
  queue.end();
  const seen: number[] = [];
  for await (const item of queue) seen.push(item);
  expect(seen).toEqual([1, 2]);
});

test('a failure reaches the consumer after what was queued before it, and again after that', async () => {
  const queue = new BoundedQueue<number>(2);
  queue.push(1);
  queue.fail(new Error('broken'));
  expect(queue.push(2)).toBe(false);
  expect(await queue.next()).toEqual({ done: false, value: 1 });
  await expect(queue.next()).rejects.toThrow('broken');
  await expect(queue.next()).rejects.toThrow('broken');
});

test('a waiting consumer gets the item, the failure or the end directly', async () => {
  const got = new BoundedQueue<number>(1);
  const item = got.next();
  expect([got.push(1), got.size]).toEqual([true, 0]);
  expect(await item).toEqual({ done: false, value: 1 });
  const end = got.next();
  got.end();
  expect(await end).toEqual({ done: true, value: undefined });
  const failed = new BoundedQueue<number>(1);
  const waiting = failed.next();
  failed.fail(new Error('broken'));
  await expect(waiting).rejects.toThrow('broken');
});

test('the first ending counts', async () => {
  const queue = new BoundedQueue<number>(1);
  queue.end();
  queue.fail(new Error('broken'));
  expect(await queue.next()).toEqual({ done: true, value: undefined });
});

test('a second consumer at the same time is an error, not a lost item', async () => {
  const queue = new BoundedQueue<number>(1);
  const first = queue.next();
  await expect(queue.next()).rejects.toThrow('one consumer');
  queue.push(1);
  expect(await first).toEqual({ done: false, value: 1 });
});

test('leaving the loop ends the queue and forgets what is in it', async () => {
  const queue = new BoundedQueue<number>(3);
  for (const item of [1, 2, 3]) queue.push(item);
  for await (const item of queue) if (item === 1) break;
  expect([queue.closed, queue.size, queue.push(4)]).toEqual([true, 0, false]);
});

test('agrees with a plain array under any order of pushes and takes', async () => {
  const steps = fc.array(fc.boolean(), { maxLength: 4_000, size: 'max' });
  await fc.assert(
    fc.asyncProperty(steps, fc.integer({ min: 1, max: 3_000 }), async (pushes, capacity) => {
      const queue = new BoundedQueue<number>(capacity);
      const model: number[] = [];
      for (const [i, push] of pushes.entries()) {
        if (push) {
          expect(queue.push(i)).toBe(model.length < capacity);
          if (model.length < capacity) model.push(i);
        } else if (model.length > 0) {
          expect(await queue.next()).toEqual({ done: false, value: model.shift() });
        }
        expect(queue.size).toBe(model.length);
      }
    }),
    { numRuns: 8 },
  );
});
