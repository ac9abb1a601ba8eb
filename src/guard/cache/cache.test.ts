import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { type HttpServer, startNginx, startVarnish } from '../../../test/servers/cache.ts';
import { installed } from '../../../test/servers/daemon.ts';
import { MemoryMarks } from '../marks.ts';
import { CacheAgent, type CacheTarget } from './agent.ts';
import { nginxCache, nginxLocation, varnishCache, varnishVcl } from './targets.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function listen(listener: RequestListener): Promise<{ url: string; port: number }> {
  const server: Server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(
    () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  );
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port };
}

/** An origin whose version is set by the test, and which can be slow in the middle of an answer. */
async function startOrigin() {
  const state = { version: 1, holdMs: 0, requests: 0 };
  const { url } = await listen(async (_request, response) => {
    const { version, holdMs } = state;
    state.requests++;
    response.writeHead(200, {
      'holdfast-token': String(version),
      'cache-control': 'max-age=3600',
      'content-length': '12',
    });
    response.write('content ');
    if (holdMs > 0) await pause(holdMs);
    response.end(String(version).padStart(4, '0'));
  });
  return { state, url };
}

type Cache = { readonly server: HttpServer; readonly target: CacheTarget };
const CACHES: Record<string, (backend: { url: string; port: number }) => Promise<Cache>> = {
  Varnish: async ({ port }) => {
    const server = await startVarnish(varnishVcl({ host: '127.0.0.1', port }));
    return { server, target: varnishCache(server.url) };
  },
  nginx: async ({ url }) => {
    let store = '';
    const server = await startNginx(({ port, directory }) => {
      store = `${directory}/store`;
      return `proxy_cache_path ${store} levels=1:2 keys_zone=c:1m use_temp_path=off;
        server { listen 127.0.0.1:${port}; ${nginxLocation(url, 'c')} }`;
    });
    return { server, target: nginxCache({ url: server.url, directory: store }) };
  },
};

async function setUp(kind: string) {
  const origin = await startOrigin();
  const caches: CacheTarget[] = [];
  const agent = new CacheAgent(new MemoryMarks(), { origin: origin.url, caches });
  closing.push(() => agent.close());
  const backend = await listen((request, response) => void agent.serve(request, response));
  const { server, target } = await CACHES[kind]!(backend);
  closing.push(() => server.stop());
  caches.push(target);
  const get = async (path = '/page'): Promise<string> =>
    await (await fetch(server.url + path)).text();
  return { origin, agent, get };
}

describe.each(Object.keys(CACHES))('the cache agent beside a real %s (Debian)', (kind) => {
  const present = installed(kind === 'nginx' ? 'nginx' : 'varnishd');

  it.skipIf(!present)(
    'purges once, in order: a purge overtaken by a newer one is refused',
    async () => {
      const { origin, agent, get } = await setUp(kind);
      expect(await get()).toBe('content 0001');
      origin.state.version = 34;
      expect(await get()).toBe('content 0001');
      await agent.purge(34n, '/page');
      expect(await get()).toBe('content 0034');
      await expect(agent.purge(33n, '/page')).rejects.toThrow('stale: token 33 < mark 34');
      await agent.purge(34n, '/page');
      const { requests } = origin.state;
      await get();
      expect(origin.state.requests).toBe(requests);
    },
  );

  it.skipIf(!present)(
    'refuses a refill older than the floor, as from a lagging origin',
    async () => {
      const { origin, agent, get } = await setUp(kind);
      origin.state.version = 33;
      await agent.purge(34n, '/page');
      expect(await get()).toContain('the origin is at 33, the floor is 34');
      origin.state.version = 34;
      expect(await get()).toBe('content 0034');
    },
  );

  it.skipIf(!present)('lets no refill that began before a purge survive it', async () => {
    const { origin, agent, get } = await setUp(kind);
    for (let version = 2; version < 8; version++) {
      const path = `/slow-${version}`;
      origin.state.version = 1;
      origin.state.holdMs = 60;
      const early = get(path).catch(() => '');
      await pause(version * 12);
      origin.state.version = version;
      origin.state.holdMs = 0;
      await agent.purge(BigInt(version), path);
      await early;
      expect(await get(path)).toBe(`content ${String(version).padStart(4, '0')}`);
    }
  });
});

describe('the control listener of the cache agent', () => {
  it('answers 204, 409 with the mark, and 400', async () => {
    const origin = await startOrigin();
    const agent = new CacheAgent(new MemoryMarks(), { origin: origin.url, caches: [] });
    closing.push(() => agent.close());
    const { url } = await listen((request, response) => void agent.control(request, response));
    const purge = async (token: string): Promise<number> =>
      (await fetch(`${url}/page`, { method: 'POST', headers: { 'holdfast-token': token } })).status;
    expect([await purge('34'), await purge('33'), await purge('x')]).toEqual([204, 409, 400]);
    expect(await agent.floor('//page')).toBe(34n);
  });
});
