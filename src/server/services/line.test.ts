/** Waiters that go away: what becomes of their place in the line. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import type { Engine } from '../../engine/contract.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import { HoldfastError } from '../../model/errors.ts';
import { eventually, within } from '../../testing/waiting.ts';
import { ElectionService, LeaseService, LockService } from '../../wire/messages/services.ts';
import { GrpcClient } from '../../wire/net/grpc-client.ts';
import { type RunningServer, serve } from '../serve.ts';

const NAME = utf8('line');
const [HOLDER, WAITER, NEXT] = [7n, 8n, 9n] as const;

let engine: Engine;
let server: RunningServer;
const clients: GrpcClient[] = [];

beforeEach(async () => {
  engine = await openMemoryEngine();
  server = await serve({ engine, listen: { port: 0 } });
  const client = clientOf();
  for (const ID of [HOLDER, WAITER, NEXT]) {
    await client.unary(LeaseService.LeaseGrant, { ID, TTL: 600 });
  }
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  await server.close();
  await engine.close();
});

function clientOf(): GrpcClient {
  const client = new GrpcClient({ port: server.port });
  clients.push(client);
  return client;
}

/** The leases that stand in the line, in the order of their keys. */
async function line(): Promise<string[]> {
  const { kvs } = await engine.range({ key: utf8('line/'), end: utf8('line0') });
  return kvs.map(({ key }) => text(key).slice('line/'.length));
}

const lock = (
  client: GrpcClient,
  lease: bigint,
  signal?: AbortSignal,
): Promise<{ key: Uint8Array }> =>
  client.unary(LockService.Lock, { name: NAME, lease }, { signal });

const campaign = (client: GrpcClient, lease: bigint, signal?: AbortSignal): Promise<object> =>
  client.unary(ElectionService.Campaign, { name: NAME, lease, value: utf8('v') }, { signal });

describe('a waiter that goes away', () => {
  test.each([
    { what: 'for a lock', wait: lock },
    { what: 'for a leadership', wait: campaign },
  ])('while it waits $what takes its claim along, though its lease lives', async ({ wait }) => {
    const { key } = await lock(clientOf(), HOLDER);
    const caller = new AbortController();
    const waiting = wait(clientOf(), WAITER, caller.signal);
    await eventually(async () => (await line()).length === 2, 'two in line');
    const next = lock(clientOf(), NEXT);
    await eventually(async () => (await line()).length === 3, 'three in line');
    caller.abort(new HoldfastError('cancelled', 'enough'));
    await expect(waiting).rejects.toThrow('enough');
    await eventually(async () => (await line()).length === 2, 'the claim to be gone');
    await clientOf().unary(LockService.Unlock, { key });
    expect(text((await within(next, 'the turn of the next')).key)).toBe('line/9');
    expect((await engine.leaseInfo(WAITER)).remainingTtlMs).toBeGreaterThan(0);
  });

  test('and whose connection is lost, too', async () => {
    await lock(clientOf(), HOLDER);
    const lost = clientOf();
    const waiting = lock(lost, WAITER);
    waiting.catch(() => {});
    await eventually(async () => (await line()).length === 2, 'two in line');
    lost.destroy();
    await eventually(async () => (await line()).length === 1, 'the claim to be gone');
  });

  test('leaves its claim to a call of the same lease that has come back for it', async () => {
    const { key } = await lock(clientOf(), HOLDER);
    const caller = new AbortController();
    const first = lock(clientOf(), WAITER, caller.signal);
    await eventually(async () => (await line()).length === 2, 'two in line');
    const claimed = utf8('line/8');
    const [before] = (await engine.range({ key: claimed })).kvs;
    const again = lock(clientOf(), WAITER);
    const takenUp = async (): Promise<boolean> =>
      (await engine.range({ key: claimed })).kvs[0]!.version === 2;
    await eventually(takenUp, 'the claim to be taken up');
    caller.abort(new HoldfastError('cancelled', 'enough'));
    await expect(first).rejects.toThrow('enough');
    await clientOf().unary(LockService.Unlock, { key });
    expect(text((await within(again, 'its turn')).key)).toBe('line/8');
    const [after] = (await engine.range({ key: claimed })).kvs;
    expect([after!.createRevision, after!.lease]).toEqual([before!.createRevision, WAITER]);
  });

  test('a holder that asks again has its lock, under the same claim', async () => {
    const client = clientOf();
    const first = await lock(client, HOLDER);
    expect((await lock(client, HOLDER)).key).toEqual(first.key);
    expect(await line()).toEqual(['7']);
  });
});
