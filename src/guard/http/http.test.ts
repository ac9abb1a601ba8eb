import { once } from 'node:events';
import { createServer, request as httpRequest, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serve as serveHono } from '@hono/node-server';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import { afterEach, describe, expect, it } from 'vitest';
import { MemoryMarks } from '../marks.ts';
import { generateSealKey, sealKeySet, sealToken } from '../seal.ts';
import { HttpGuard, type HttpGuardOptions, normalPath, refusalOf } from './guard.ts';
import {
  admissionOf,
  expressGuard,
  fastifyGuard,
  guardFetch,
  guardListener,
} from './middleware.ts';
import { createGuardProxy } from './proxy.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function listen(server: Server): Promise<string> {
  if (!server.listening) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  closing.push(
    () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const guardWith = (options: HttpGuardOptions = {}): HttpGuard =>
  new HttpGuard(new MemoryMarks(), { resource: 'r', ...options });

/** Each starts a service that appends the request's body to `effects`, behind the guard. */
const KINDS: Record<string, (guard: HttpGuard, effects: string[]) => Promise<string>> = {
  'node:http': (guard, effects) =>
    listen(createServer(guardListener(guard, service(effects)) as RequestListener)),
  express: async (guard, effects) => {
    const app = express();
    app.use(expressGuard(guard));
    app.use(service(effects));
    return await listen(createServer(app));
  },
  fastify: async (guard, effects) => {
    const app = fastify();
    fastifyGuard(app, guard);
    app.addContentTypeParser(
      '*',
      { parseAs: 'string' },
      async (_request: unknown, body: string) => body,
    );
    app.all('/*', async ({ body }) => {
      effects.push(String(body ?? ''));
      return 'done';
    });
    closing.push(() => app.close());
    return await app.listen({ port: 0, host: '127.0.0.1' });
  },
  'hono (Fetch)': async (guard, effects) => {
    const app = new Hono();
    app.all('*', async (c) => {
      effects.push(await c.req.text());
      return c.text('done');
    });
    const fetch = guardFetch(guard, (request: Request) => app.fetch(request));
    const server = serveHono({ fetch, port: 0, hostname: '127.0.0.1' }) as Server;
    await once(server, 'listening');
    return await listen(server);
  },
  'reverse proxy': async (guard, effects) => {
    const upstream = await listen(createServer(service(effects)));
    return await listen(createGuardProxy(guard, { upstream }));
  },
};

function service(effects: string[]): RequestListener {
  return async (request, response) => {
    let body = '';
    try {
      for await (const chunk of request) body += chunk;
    } catch {
      // Cut off: an incomplete request has no effect.
      return;
    }
    effects.push(body);
    response.end('done');
  };
}

const post = (url: string, token: string | undefined, body: string): Promise<Response> =>
  fetch(url, { method: 'POST', body, ...(token ? { headers: { 'holdfast-token': token } } : {}) });

describe.each(Object.entries(KINDS))('the HTTP guard in front of %s', (_kind, start) => {
  it('admits, refuses stale tokens with 409, none with 428, a bad one with 400', async () => {
    const effects: string[] = [];
    const url = await start(guardWith(), effects);
    const first = await post(url, '34', 'first');
    expect([first.status, await first.text()]).toEqual([200, 'done']);
    const stale = await post(url, '33', 'stale');
    expect(stale.status).toBe(409);
    expect(stale.headers.get('content-type')).toBe('application/problem+json');
    const body = await stale.text();
    expect(JSON.parse(body)).toMatchObject({
      type: 'urn:holdfast:stale',
      status: 409,
      token: '33',
      mark: '34',
    });
    expect(refusalOf(409, body)).toMatchObject({ code: 'stale', details: { mark: 34n } });
    expect((await post(url, undefined, 'none')).status).toBe(428);
    expect((await post(url, '33x', 'bad')).status).toBe(400);
    expect((await post(url, '34', 'again')).status).toBe(200);
    expect((await fetch(url)).status).toBe(200);
    expect(effects.filter(Boolean)).toEqual(['first', 'again']);
  });

  it('refuses an invented 2^62 where seals are required, and stays usable', async () => {
    const keys = sealKeySet([generateSealKey('k')]);
    const effects: string[] = [];
    const url = await start(guardWith({ seal: { keys, required: true } }), effects);
    expect((await post(url, String(2n ** 62n), 'invented')).status).toBe(403);
    const claims = { tenant: '', resource: 'r', holder: 'h', expiresAtMs: Date.now() + 60_000 };
    expect((await post(url, sealToken(keys, { ...claims, token: 3n }), 'real')).status).toBe(200);
    expect(effects).toEqual(['real']);
  });
});

describe('the routes of an HTTP guard', () => {
  const guard = guardWith({
    routes: [
      { methods: ['POST'], path: /^\/login$/, resource: false },
      { methods: ['GET'], path: /^\/export$/, resource: 'export' },
      { path: /^\/orders\/([^/]+)/, methods: ['PUT'], resource: (match) => `orders/${match[1]}` },
    ],
  });
  const place = async (method: string, target: string): Promise<string | undefined> => {
    const header = (name: string): string | undefined =>
      name === 'holdfast-token' ? '1' : undefined;
    const admission = await guard.enter({ method, target, header });
    admission?.leave();
    return admission?.resource;
  };

  it('decide by method and path; what they do not name is guarded if it may change something', async () => {
    expect(await place('POST', '/login')).toBeUndefined();
    expect(await place('GET', '/export')).toBe('export');
    expect(await place('PUT', '/orders/42?x=1')).toBe('orders/42');
    expect(await place('PUT', '/elsewhere')).toBe('r');
    expect(await place('GET', '/elsewhere')).toBeUndefined();
    expect(await place('PURGE', '/login')).toBe('r');
  });

  it('cannot be passed by another spelling of a path', async () => {
    for (const spelling of ['//orders/42', '/./orders/42', '/%6frders/42', '/x/../orders/42']) {
      expect(await place('PUT', spelling)).toBe('orders/42');
    }
    expect(normalPath('http://host/a/%2e%2e/b?q')).toBe('/b');
    expect(normalPath('/%zz')).toBe('/%zz');
  });
});

describe('requests under way when a newer token comes', () => {
  it('end before the newer one begins, in a handler', async () => {
    const order: string[] = [];
    let finish = (): void => {};
    const url = await listen(
      createServer(
        guardListener(guardWith(), async (request, response) => {
          const admission = admissionOf(request);
          order.push(`begin ${admission?.token}`);
          if (admission?.token === 33n) await new Promise<void>((resolve) => (finish = resolve));
          order.push(`end ${admission?.token}`);
          response.end();
        }) as RequestListener,
      ),
    );
    const older = post(url, '33', '');
    await expect.poll(() => order).toEqual(['begin 33']);
    const newer = post(url, '34', '');
    await new Promise((resolve) => setTimeout(resolve, 50));
    finish();
    await Promise.all([older, newer]);
    expect(order).toEqual(['begin 33', 'end 33', 'begin 34', 'end 34']);
  });

  it('are not forgotten when their client goes away: the newer one still waits for the handler', async () => {
    const order: string[] = [];
    let finish = (): void => {};
    const url = await listen(
      createServer(
        guardListener(guardWith(), async (request, response) => {
          const token = admissionOf(request)?.token;
          if (token === 33n) await new Promise<void>((resolve) => (finish = resolve));
          order.push(`effect ${token}`);
          response.end();
        }) as RequestListener,
      ),
    );
    const leaving = new AbortController();
    const older = fetch(url, {
      method: 'POST',
      headers: { 'holdfast-token': '33' },
      signal: leaving.signal,
    }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    leaving.abort();
    await older;
    const newer = post(url, '34', '');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(order).toEqual([]);
    finish();
    expect((await newer).status).toBe(200);
    expect(order).toEqual(['effect 33', 'effect 34']);
  });

  it('are cut off by the proxy while the service has not got all of them', async () => {
    const effects: string[] = [];
    const upstream = await listen(createServer(service(effects)));
    const guard = guardWith({ drainMs: 50, abortMs: 2_000 });
    const url = await listen(createGuardProxy(guard, { upstream }));
    const slow = httpRequest(url, { method: 'POST', headers: { 'holdfast-token': '33' } });
    const refused = once(slow, 'response').catch(() => []);
    slow.on('error', () => {});
    slow.write('half of ');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await post(url, '34', 'newer')).status).toBe(200);
    const [response] = await refused;
    if (response) expect(response.statusCode).toBe(409);
    slow.end('it');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(effects).toEqual(['newer']);
  });

  it('are waited for by the proxy once the service has all of them', async () => {
    const effects: string[] = [];
    const upstream = await listen(
      createServer(async (request, response) => {
        let body = '';
        for await (const chunk of request) body += chunk;
        if (body === 'older') await new Promise((resolve) => setTimeout(resolve, 300));
        effects.push(body);
        response.end();
      }),
    );
    const guard = guardWith({ drainMs: 50, abortMs: 2_000 });
    const url = await listen(createGuardProxy(guard, { upstream }));
    const older = post(url, '33', 'older');
    await new Promise((resolve) => setTimeout(resolve, 50));
    const newer = post(url, '34', 'newer');
    expect((await older).status).toBe(200);
    expect((await newer).status).toBe(200);
    expect(effects).toEqual(['older', 'newer']);
  });
});

describe('the reverse proxy', () => {
  it('streams both ways without keeping bodies, and passes headers on', async () => {
    const chunk = Buffer.alloc(64 * 1_024, 'x');
    const upstream = await listen(
      createServer((request, response) => {
        response.setHeader('x-seen', String(request.headers['holdfast-token'] ?? 'none'));
        response.setHeader('set-cookie', ['a=1', 'b=2']);
        request.pipe(response);
      }),
    );
    const url = await listen(createGuardProxy(guardWith(), { upstream }));
    const out = httpRequest(url, { method: 'PUT', headers: { 'holdfast-token': '1' } });
    const answered = once(out, 'response');
    out.write(chunk);
    // The answer begins before the request has ended: nothing waits for the whole of it.
    const [incoming] = await answered;
    expect(incoming.headers['x-seen']).toBe('none');
    expect(incoming.headers['set-cookie']).toEqual(['a=1', 'b=2']);
    let received = 0;
    incoming.on('data', (part: Buffer) => {
      received += part.length;
    });
    for (let i = 0; i < 31; i++) if (!out.write(chunk)) await once(out, 'drain');
    out.end();
    await once(incoming, 'end');
    expect(received).toBe(32 * chunk.length);
  });

  it('answers 502 when the service is gone, and 501 to an upgrade', async () => {
    const gone = createServer();
    const upstream = await listen(gone);
    await new Promise((resolve) => gone.close(resolve));
    const url = await listen(createGuardProxy(guardWith(), { upstream }));
    expect((await post(url, '1', 'x')).status).toBe(502);
    const upgrade = httpRequest(url, {
      headers: { connection: 'upgrade', upgrade: 'websocket' },
    });
    upgrade.end();
    const [response] = await once(upgrade, 'response');
    expect(response.statusCode).toBe(501);
  });
});
