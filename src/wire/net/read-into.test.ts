import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { readInto } from './read-into.ts';

const open: { destroy(): unknown }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.destroy();
});

/** Both ends of a connection; the first is the one that a server accepted. */
async function pair(): Promise<readonly [Socket, Socket]> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const client = connect(port, '127.0.0.1');
  const [accepted] = (await once(server, 'connection')) as [Socket];
  server.close();
  open.push(client, accepted);
  return [accepted, client];
}

/** Collects what is read, and waits for so many bytes. */
function reader(socket: Socket): {
  readonly chunks: Uint8Array[];
  until(bytes: number): Promise<void>;
} {
  const chunks: Uint8Array[] = [];
  let wake = (): void => {};
  expect(
    readInto(socket, (bytes) => {
      chunks.push(bytes);
      wake();
    }),
  ).toBe(true);
  const until = async (bytes: number): Promise<void> => {
    while (chunks.reduce((sum, chunk) => sum + chunk.length, 0) < bytes) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { chunks, until };
}

describe('reading into memory that stays', () => {
  it('gives bytes that later ones do not change', async () => {
    const [accepted, client] = await pair();
    const { chunks, until } = reader(accepted);
    accepted.resume();
    client.write('the first');
    await until(9);
    client.write('something else');
    await until(23);
    expect(chunks.map(text)).toEqual(['the first', 'something else']);
  });

  it('shares its memory among sockets, and mixes nothing up', async () => {
    const [[one, toOne], [other, toOther]] = await Promise.all([pair(), pair()]);
    const [first, second] = [reader(one), reader(other)];
    one.resume();
    other.resume();
    for (let i = 0; i < 50; i++) {
      toOne.write('a'.repeat(1_000));
      toOther.write('b'.repeat(1_000));
    }
    await Promise.all([first.until(50_000), second.until(50_000)]);
    expect(first.chunks.map(text).join('')).toBe('a'.repeat(50_000));
    expect(second.chunks.map(text).join('')).toBe('b'.repeat(50_000));
  });

  it('takes everything, in pieces of what fits', async () => {
    const [accepted, client] = await pair();
    const { chunks, until } = reader(accepted);
    accepted.resume();
    const sent = new Uint8Array(1_000_000).map((_, at) => at % 251);
    client.write(sent);
    await until(sent.length);
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
  });

  it('keeps what stood in the socket for those who listen, in its place', async () => {
    const [accepted, client] = await pair();
    client.write('hello ');
    const [seen] = (await once(accepted, 'data')) as [Buffer];
    accepted.pause();
    accepted.unshift(seen);
    const all: string[] = [];
    accepted.removeAllListeners('data');
    accepted.on('data', (bytes) => all.push(text(bytes)));
    let wake = (): void => {};
    readInto(accepted, (bytes) => {
      all.push(text(bytes));
      wake();
    });
    const came = new Promise<void>((resolve) => {
      wake = resolve;
    });
    client.write('again');
    accepted.resume();
    await came;
    expect(all).toEqual(['hello ', 'again']);
  });

  it('stops while the socket is paused, and tells of the end', async () => {
    const [accepted, client] = await pair();
    const { chunks, until } = reader(accepted);
    accepted.pause();
    const ended = once(accepted, 'end');
    client.end(utf8('late'));
    // Had it been read, this turn around the loop and back would have shown it.
    const [other, toOther] = await pair();
    const seen = reader(other);
    other.resume();
    toOther.write('x');
    await seen.until(1);
    expect(chunks).toEqual([]);
    accepted.resume();
    await until(4);
    await ended;
    expect(chunks.map(text)).toEqual(['late']);
  });

  it('leaves a socket alone that is encrypted, closed, or read so already', async () => {
    const [accepted, client] = await pair();
    const never = (): void => expect.unreachable();
    expect(readInto(accepted, never)).toBe(true);
    expect(readInto(accepted, never)).toBe(false);
    const tls = new TLSSocket(client, { isServer: true });
    open.push(tls);
    expect(readInto(tls, never)).toBe(false);
    const [gone] = await pair();
    gone.destroy();
    expect(readInto(gone, never)).toBe(false);
  });
});
