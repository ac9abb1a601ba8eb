/** Gateways whose engine is, over others, themselves. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { freePort, installed } from '../../test/servers/daemon.ts';
import { type Etcd, startEtcd } from '../../test/servers/etcd.ts';
import { startProxy, type TcpProxy } from '../../test/servers/proxy.ts';
import { utf8 } from '../base/bytes.ts';
import { seededRandom } from '../base/random.ts';
import type { Engine } from '../engine/contract.ts';
import { open } from '../engine/etcd/open.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { Hops, LOOP_MESSAGE } from '../model/hops.ts';
import { eventually, within } from '../testing/waiting.ts';
import { KVService } from '../wire/messages/services.ts';
import { attachedStatus } from '../wire/messages/status.ts';
import { GrpcClient } from '../wire/net/grpc-client.ts';
import { type RunningServer, serve } from './serve.ts';

const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serving(engine: Engine, port: number, hops?: Hops): Promise<RunningServer> {
  const server = await serve({ engine, listen: { port }, hops });
  cleanups.push(() => server.close());
  return server;
}

async function gateway(
  port: number,
  before: readonly number[],
  seed?: number,
): Promise<RunningServer> {
  const hops = seed === undefined ? undefined : new Hops(seededRandom(seed));
  const url = `etcd://${before.map((member) => `127.0.0.1:${member}`).join(',')}`;
  const engine = await open(url, { ...(hops ? { hops } : {}), callTimeoutMs: 3_000 });
  cleanups.push(() => engine.close());
  return serving(engine, port, hops);
}

/** How a read of one key through this server ends. */
async function reading({ port }: RunningServer): Promise<unknown> {
  const client = new GrpcClient({ port, deadlineMs: 20_000 });
  const read = client.unary(KVService.Range, { key: utf8('a') }, { effect: 'read' });
  try {
    await within(read, 'an answer or a refusal', 30_000);
    return 'answered';
  } catch (error) {
    return attachedStatus(error)?.message;
  } finally {
    client.destroy();
  }
}

interface Ring {
  readonly way: TcpProxy;
  readonly etcd: number;
  readonly first: RunningServer;
  readonly second: RunningServer;
}

/** Two gateways before an etcd; each also knows the other, for when the way to it is cut. */
async function ring(seeds: readonly [number, number] | []): Promise<Ring> {
  const way = await startProxy(etcd.port);
  cleanups.push(() => way.close());
  const [firstPort, secondPort] = [await freePort(), await freePort()];
  const first = await gateway(firstPort, [way.port, secondPort], seeds[0]);
  const second = await gateway(secondPort, [way.port, firstPort], seeds[1]);
  expect([await reading(first), await reading(second)]).toEqual(['answered', 'answered']);
  return { way, etcd: etcd.port, first, second };
}

function cut({ way }: Ring): void {
  way.target = undefined;
  way.cut();
}

let etcd: Etcd;

describe.skipIf(!installed('etcd'))('two gateways before a real etcd that name each other', () => {
  beforeAll(async () => {
    etcd = await startEtcd();
  });
  afterAll(() => etcd?.stop());

  test('say so as soon as a request comes round, and go on when there is another way', async () => {
    const those = await ring([1, 2]);
    cut(those);
    const looped = async (server: RunningServer): Promise<boolean> =>
      (await reading(server)) === LOOP_MESSAGE;
    await eventually(() => looped(those.first), 'the loop to be noticed', 60_000);
    await eventually(() => looped(those.second), 'the same from its other side', 60_000);
    those.way.target = those.etcd;
    for (const server of [those.first, those.second]) {
      const answered = async (): Promise<boolean> => (await reading(server)) === 'answered';
      await eventually(answered, 'the way to the store', 60_000);
    }
  });

  test('control: without names one request runs round and round', async () => {
    const those = await ring([]);
    const before = calls(those.first);
    cut(those);
    const client = new GrpcClient({ port: those.first.port });
    client.unary(KVService.Range, { key: utf8('a') }).catch(() => {});
    await eventually(() => calls(those.first) - before > 100, 'a hundred rounds of one request');
    client.destroy();
  });
});

test('a server whose engine is another of its kind says at the start that it cannot', async () => {
  const engine = await openMemoryEngine();
  cleanups.push(() => engine.close());
  const { port } = await serving(engine, 0);
  await expect(gateway(0, [port])).rejects.toThrow('name the engine of that one');
});

/** Reads under way or ended at this server. */
function calls({ metrics }: RunningServer): number {
  const text = metrics.render();
  const active = Number(/^holdfast_calls_active (\d+)$/m.exec(text)?.[1]);
  const ended = [...text.matchAll(/^holdfast_calls_total\{.*Range.*\} (\d+)$/gm)];
  return active + ended.reduce((sum, [, count]) => sum + Number(count), 0);
}

describe('hops', () => {
  const [own, other] = [new Hops(seededRandom(1)), new Hops(seededRandom(2))];

  test('know their own name, also behind others', () => {
    expect(own.arrive(other.value)).toBe(true);
    expect(own.value).toBe(`${other.own},${own.own}`);
    expect(own.arrive(`${other.own},${own.own}`)).toBe(false);
    expect(other.arrive(own.value)).toBe(false);
  });

  test('stay short, and ignore what is no name', () => {
    const many = new Hops(seededRandom(3));
    for (let seed = 10; seed < 200; seed++) {
      many.arrive(`${new Hops(seededRandom(seed)).own},,x,${'f'.repeat(10_000)}`);
    }
    expect(many.value.length).toBe(33 * 17 - 1);
    expect(many.arrive(many.value)).toBe(false);
  });
});
