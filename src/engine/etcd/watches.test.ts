/** Watches on a real etcd over connections that break, and readers that do not keep up. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import { type Etcd, startEtcd } from '../../../test/servers/etcd.ts';
import { startProxy, type TcpProxy } from '../../../test/servers/proxy.ts';
import { text, utf8 } from '../../base/bytes.ts';
import { prefixRange } from '../../model/range.ts';
import type { Watch } from '../../model/watch.ts';
import type { Engine } from '../contract.ts';
import type { EtcdOptions } from './config.ts';
import { open } from './open.ts';

describe.skipIf(!installed('etcd'))('with a real etcd', () => {
  let server: Etcd;
  let proxy: TcpProxy;
  let direct: Engine;
  const engines: Engine[] = [];

  beforeAll(async () => {
    server = await startEtcd();
    direct = await open(`etcd://127.0.0.1:${server.port}`);
    proxy = await startProxy(server.port);
  });

  afterEach(async () => {
    for (const engine of engines.splice(0)) await engine.close();
    proxy.target = server.port;
  });

  afterAll(async () => {
    await direct?.close();
    await proxy?.close();
    await server?.stop();
  });

  async function behindProxy(options: EtcdOptions = {}): Promise<Engine> {
    const engine = await open(`etcd://127.0.0.1:${proxy.port}`, options);
    engines.push(engine);
    return engine;
  }

  async function put(key: string, value = ''): Promise<number> {
    const { header } = await direct.txn({
      success: [{ type: 'put', key: utf8(key), value: utf8(value) }],
    });
    return header.revision;
  }

  it('a connection that breaks again and again leaves no gap and tells nothing twice', async () => {
    const engine = await behindProxy();
    const watch = engine.watch(prefixRange(utf8('cut/')));
    await watch.created;
    const told = collect(watch, 300);
    for (let i = 0; i < 300; i++) {
      await put(`cut/${i}`);
      if (i % 50 === 25) proxy.cut();
    }
    expect(await told).toEqual(Array.from({ length: 300 }, (_, i) => `cut/${i}`));
  });

  it('what was compacted while it was away ends a watch with where to go on', async () => {
    const engine = await behindProxy();
    const watch = engine.watch(prefixRange(utf8('away/')));
    await watch.created;
    proxy.target = undefined;
    proxy.cut();
    await put('away/1');
    const revision = await put('away/2');
    await direct.compact(revision);
    proxy.target = server.port;
    await expect(collect(watch, 1)).rejects.toMatchObject({
      code: 'compacted',
      details: { compactRevision: revision },
    });
  });

  it('a reader who stops is paused at a bound and told everything when it comes back', async () => {
    const engine = await behindProxy({ watchBytesMax: 20_000 });
    const watch = engine.watch(prefixRange(utf8('slow/')));
    const header = await watch.created;
    const names = Array.from({ length: 200 }, (_, i) => `slow/${i}`);
    for (const name of names) await put(name, 'x'.repeat(1_000));
    expect(header.revision).toBeGreaterThan(0);
    expect(await collect(watch, 200)).toEqual(names);
  });

  it('answers that come in pieces are told whole', async () => {
    const engine = await behindProxy();
    const big = 'x'.repeat(900_000);
    const names = [1, 2, 3, 4, 5, 6].map((i) => `big/${i}`);
    const [first = 0] = await Promise.all([put(names[0]!, big)]);
    for (const name of names.slice(1)) await put(name, big);
    const watch = engine.watch({ ...prefixRange(utf8('big/')), startRevision: first });
    expect(await collect(watch, 6)).toEqual(names);
  });

  it('many watches stand on one stream and each is told its own', async () => {
    const engine = await behindProxy();
    const watches = Array.from({ length: 50 }, (_, i) => engine.watch({ key: utf8(`many/${i}`) }));
    await Promise.all(watches.map((watch) => watch.created));
    proxy.cut();
    await Promise.all(watches.map((_, i) => put(`many/${i}`)));
    const told = await Promise.all(watches.map((watch) => collect(watch, 1)));
    expect(told).toEqual(watches.map((_, i) => [`many/${i}`]));
  });
});

/** The first `count` keys that a watch tells; closes it. */
async function collect(watch: Watch, count: number): Promise<string[]> {
  const keys: string[] = [];
  for await (const { events } of watch) {
    keys.push(...events.map(({ kv }) => text(kv.key)));
    if (keys.length >= count) break;
  }
  return keys;
}
