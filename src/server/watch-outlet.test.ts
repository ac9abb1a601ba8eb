import { expect, test } from 'vitest';
import type { StreamCall } from '../wire/net/grpc-server.ts';
import type { Backend } from './backend.ts';
import { BatchEncoder, FramedOutlet } from './watch-outlet.ts';

test('an outlet is full while its own stream or the whole connection has much to read', async () => {
  const began: (() => void)[] = [];
  let drained = (): void => {};
  const call = {
    backlog: 0,
    session: { behind: false },
    drained: () => new Promise<void>((resolve) => (drained = resolve)),
    whenRoom: (begin: () => void) => began.push(begin),
  };
  const outlet = new FramedOutlet(
    call as unknown as StreamCall,
    new BatchEncoder({} as unknown as Backend),
  );
  let heard = 0;
  outlet.onRoom = () => heard++;
  expect(outlet.full).toBe(false);

  call.session.behind = true;
  expect([outlet.full, outlet.full, began.length]).toEqual([true, true, 1]);
  call.session.behind = false;
  began[0]!();
  expect([outlet.full, heard]).toEqual([false, 1]);

  call.backlog = 300_000;
  expect([outlet.full, heard]).toEqual([true, 1]);
  call.backlog = 0;
  drained();
  await Promise.resolve();
  expect([outlet.full, heard, began.length]).toEqual([false, 2, 1]);
});
