import { expect, test } from 'vitest';
import { turn } from '../testing/waiting.ts';
import { Outbox } from './outbox.ts';

test('who pushes more than the capacity waits until the reader has come for it', async () => {
  const outbox = new Outbox<string>(10, (item) => item.length);
  expect(outbox.push('12345')).toBeUndefined();
  let room = false;
  void outbox.push('1234567890')?.then(() => {
    room = true;
  });
  await turn();
  expect(room).toBe(false);
  const reader = outbox[Symbol.asyncIterator]();
  expect((await reader.next()).value).toBe('12345');
  await turn();
  expect(room).toBe(true);
  expect(outbox.push('x')).toBeUndefined();
  expect((await reader.next()).value).toBe('1234567890');
  outbox.end(new Error('over'));
  expect((await reader.next()).value).toBe('x');
  await expect(reader.next()).rejects.toThrow('over');
});
