/** What a browser, a proxy or a slow peer may do at the HTTP side. */

import { once } from 'node:events';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { ManualClock } from '../../src/base/clock.ts';
import { openMemoryEngine } from '../../src/engine/memory/engine.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { serve } from '../../src/server/serve.ts';
import { encodeFrame, PREFACE, rawFrame } from '../../src/wire/http2/frame.ts';
import { KVService } from '../../src/wire/messages/services.ts';
import { Stage } from './stage.ts';

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open({ maxConnectionsPerAddress: 64 });
});

afterAll(() => stage[Symbol.asyncDispose]());

function ask(path: string, headers: Record<string, string>, method = 'GET'): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: '127.0.0.1', port: stage.server.port, path, method, headers, agent: false },
      (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      },
    );
    sent.on('error', reject);
    sent.end(method === 'POST' ? '{"key":"YQ=="}' : undefined);
  });
}

describe('a browser', () => {
  test('a foreign Host or Origin is refused', async () => {
    const own = `127.0.0.1:${stage.server.port}`;
    for (const [path, method] of [
      ['/health', 'GET'],
      ['/metrics', 'GET'],
      ['/v3/kv/range', 'POST'],
    ] as const) {
      expect(await ask(path, {}, method)).toBe(200);
      expect(await ask(path, { host: `localhost:${stage.server.port}` }, method)).toBe(200);
      expect(await ask(path, { host: own, origin: `http://${own}` }, method)).toBe(200);
      expect(await ask(path, { host: 'evil.example' }, method)).toBe(403);
      expect(await ask(path, { host: `evil.example:${stage.server.port}` }, method)).toBe(403);
      for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1:1', 'file://', 'x']) {
        expect([origin, await ask(path, { host: own, origin }, method)]).toEqual([origin, 403]);
      }
    }
  });

  test('forwarding headers do not change the caller’s address', async () => {
    await using small = await Stage.open({ maxConnectionsPerAddress: 2 });
    const open = async (address: string): Promise<Socket> => {
      const socket = connect(small.server.port, '127.0.0.1');
      await once(socket, 'connect');
      socket.on('error', () => {});
      socket.write(`GET /health HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: ${address}\r\n`);
      socket.write(`forwarded: for=${address}\r\nx-real-ip: ${address}\r\n\r\n`);
      return socket;
    };
    const sockets = [await open('10.0.0.1'), await open('10.0.0.2')];
    for (const socket of sockets) await once(socket, 'data');
    const third = await open('10.0.0.3');
    expect(await ended(third)).toBe('closed');
    for (const socket of sockets) socket.destroy();
  });
});

/** How a connection came to its end. */
async function ended(socket: Socket): Promise<string> {
  if (socket.destroyed) return 'closed';
  return new Promise((resolve) => {
    socket.once('close', () => resolve('closed'));
    socket.on('error', () => {});
    socket.resume();
  });
}

describe('connections', () => {
  test('connections per address are bounded before authentication', async () => {
    await using small = await Stage.open({ maxConnectionsPerAddress: 3 });
    const sockets = Array.from({ length: 5 }, () => connect(small.server.port, '127.0.0.1'));
    const ends = sockets.map(ended);
    await Promise.race([ends[3], ends[4]]);
    await Promise.all([ends[3], ends[4]]);
    expect(small.server.metrics.render()).toContain('holdfast_connections 3');
    for (const socket of sockets) socket.destroy();
    await Promise.all(ends);
  });

  test('a connection that does not finish its handshake is closed', async () => {
    const clock = new ManualClock();
    const engine = await openMemoryEngine({ clock });
    const server = await serve({ engine, clock, listen: { port: 0 } });
    const said = ['', 'PRI * HT', Buffer.from(PREFACE), 'GE'];
    const sockets = await Promise.all(
      said.map(async (text) => {
        const socket = connect(server.port, '127.0.0.1');
        await once(socket, 'connect');
        if (text.length > 0) socket.write(text);
        return socket;
      }),
    );
    // The last speaks HTTP/1.1, whose own times are those of node.
    const ends = sockets.slice(0, 3).map(ended);
    while (!server.metrics.render().includes('holdfast_connections 4')) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const over = Promise.all(ends);
    let done = false;
    void over.then(() => {
      done = true;
    });
    for (let turn = 0; !done && turn < 10_000; turn++) {
      clock.advance(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await over).toEqual(['closed', 'closed', 'closed']);
    sockets[3]!.destroy();
    await server.close();
    await engine.close();
  });

  test('a client that resets streams at once is bounded, and others are served', async () => {
    const socket = connect(stage.server.port, '127.0.0.1');
    await once(socket, 'connect');
    const end = ended(socket);
    socket.write(PREFACE);
    socket.write(encodeFrame({ type: 'settings', ack: false, entries: [] }));
    // :method POST, :scheme http, :path / — all by index.
    const block = Uint8Array.of(0x83, 0x86, 0x84);
    for (let stream = 1; stream < 40_000 && !socket.destroyed; stream += 2) {
      socket.write(rawFrame(1, 0x4, stream, block));
      socket.write(encodeFrame({ type: 'rst-stream', stream, code: 8 }));
      if (stream % 500 === 1) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await end).toBe('closed');
    await stage.client().unary(KVService.Range, { key: utf8('a') });
  });

  test('endless header frames close the session, not the server', async () => {
    const socket = connect(stage.server.port, '127.0.0.1');
    await once(socket, 'connect');
    const end = ended(socket);
    socket.write(PREFACE);
    socket.write(encodeFrame({ type: 'settings', ack: false, entries: [] }));
    socket.write(rawFrame(1, 0x1, 1, Uint8Array.of(0x83, 0x86, 0x84)));
    const more = rawFrame(9, 0, 1, new Uint8Array(8_000).fill(0x82));
    for (let frame = 0; frame < 2_000 && !socket.destroyed; frame++) {
      socket.write(more);
      if (frame % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await end).toBe('closed');
    await stage.client().unary(KVService.Range, { key: utf8('a') });
  });

  test('malformed HTTP and JSON get an answer or an end, and are no fault of the software', async () => {
    for (const line of [
      'GET //[ HTTP/1.1',
      'GET http://[ HTTP/1.1',
      'POST /v3/kv/put?%zz HTTP/1.1',
    ]) {
      const socket = connect(stage.server.port, '127.0.0.1');
      const end = ended(socket);
      socket.end(`${line}\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      await end;
    }
    for (const body of [
      '',
      '{',
      '[]',
      'null',
      '"',
      '{"key":5}',
      '{"key":"%%"}',
      '{"__proto__":{}}',
    ]) {
      const { status } = await stage.json('/v3/kv/range', body);
      expect([body, status]).not.toEqual([body, 500]);
    }
    expect(stage.logged.filter((line) => line.includes('fault'))).toEqual([]);
  });
});

describe('open addresses', () => {
  test('no configuration falls back to plain text in silence: an open address is refused', async () => {
    await using plain = await Stage.open();
    for (const host of ['0.0.0.0', '::']) {
      const started = serve({ engine: plain.engine, listen: { host, port: 0 } });
      await expect(started).rejects.toMatchObject({ code: 'invalid-argument' });
    }
  });

  test('a proxy or engine endpoint that points to ourselves is detected: nobody answers there yet', async () => {
    const { openEngine } = await import('../../src/client.ts');
    await using held = await Stage.open();
    const port = held.server.port;
    await held.server.close();
    const opened = openEngine(`etcd://127.0.0.1:${port}`, { callTimeoutMs: 500, failFast: true });
    const error = await opened.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(HoldfastError.is(error, 'unavailable')).toBe(true);
  });
});
