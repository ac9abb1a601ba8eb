import { once } from 'node:events';
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { MemoryMarks } from './marks.ts';
import { StreamGuard, type StreamGuardOptions } from './stream.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A device that takes each write only when told to, or at once. */
class SlowDevice extends Duplex {
  taken = '';
  held: (() => void)[] = [];
  hold = false;
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const take = (): void => {
      this.taken += chunk.toString();
      done();
    };
    if (this.hold) this.held.push(take);
    else take();
  }
}

async function start(device: Duplex, options: Partial<StreamGuardOptions> = {}) {
  const guard = new StreamGuard(device, new MemoryMarks(), { resource: 'printer', ...options });
  guard.server.listen(0, '127.0.0.1');
  await once(guard.server, 'listening');
  closing.push(() => guard.close());
  const { port } = guard.server.address() as AddressInfo;
  const connect = async (greeting: string): Promise<{ socket: Socket; heard: () => string }> => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    socket.on('error', () => {});
    socket.write(greeting);
    return { socket, heard: () => heard };
  };
  return { guard, connect };
}

describe('the stream guard', () => {
  it('lets the newest token speak, cuts the older connection and refuses it from then on', async () => {
    const device = new SlowDevice();
    const { connect } = await start(device);
    const older = await connect('holdfast 33 worker-1\n');
    await expect.poll(older.heard).toBe('ok 33\n');
    older.socket.write('old ');
    await expect.poll(() => device.taken).toBe('old ');
    const newer = await connect('holdfast 34\nnew ');
    await expect.poll(newer.heard).toBe('ok 34\n');
    older.socket.write('ghost ');
    newer.socket.write('more');
    await expect.poll(() => device.taken).toBe('old new more');
    await expect.poll(older.heard).toContain('stale: token 33 < mark 34');
    const again = await connect('holdfast 33\nghost');
    await expect.poll(again.heard).toMatch(/^stale: token 33 < mark 34/);
    device.push('answer');
    await expect.poll(newer.heard).toBe('ok 34\nanswer');
    expect(older.heard()).not.toContain('answer');
    expect(device.taken).toBe('old new more');
  });

  it.each(['drain', 'abort'] as const)(
    'sends nothing of the old after the first of the new (%s)',
    async (onNewer) => {
      const device = new SlowDevice();
      device.hold = true;
      const { connect } = await start(device, { onNewer, delimiter: 10 });
      const older = await connect('holdfast 33\nfirst\nsecond\nhalf');
      await expect.poll(() => device.held.length).toBe(1);
      const newer = await connect('holdfast 34\nnew\n');
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(newer.heard()).toBe('');
      device.hold = false;
      for (const take of device.held.splice(0)) take();
      await expect.poll(() => device.taken).toBe('first\nsecond\nnew\n');
      await expect.poll(newer.heard).toBe('ok 34\n');
      older.socket.destroy();
    },
  );

  it('turns the newer one away while the device takes nothing', async () => {
    const device = new SlowDevice();
    device.hold = true;
    const { connect } = await start(device, { drainMs: 50 });
    await connect('holdfast 33\nstuck');
    await expect.poll(() => device.held.length).toBe(1);
    const newer = await connect('holdfast 34\n');
    await expect.poll(newer.heard).toContain('has not taken what was under way');
    device.hold = false;
    for (const take of device.held.splice(0)) take();
    const next = await connect('holdfast 34\nnow');
    await expect.poll(next.heard).toBe('ok 34\n');
    await expect.poll(() => device.taken).toBe('stucknow');
  });

  it('sends the preamble before a newer token, and not again for the same', async () => {
    const device = new SlowDevice();
    const { connect } = await start(device, { preamble: Buffer.from('[reset]') });
    for (const [greeting, taken] of [
      ['holdfast 1\na', '[reset]a'],
      ['holdfast 1\nb', '[reset]ab'],
      ['holdfast 2\nc', '[reset]ab[reset]c'],
    ] as const) {
      await connect(greeting);
      await expect.poll(() => device.taken).toBe(taken);
    }
  });

  it('guards a real TCP device, and everyone hears when it is gone', async () => {
    let taken = '';
    let accepted: Socket | undefined;
    const printer = createServer((socket) => {
      accepted = socket;
      socket.on('data', (chunk) => {
        taken += chunk;
      });
      socket.on('error', () => {});
    });
    printer.listen(0, '127.0.0.1');
    await once(printer, 'listening');
    closing.push(() => new Promise((resolve) => printer.close(resolve)));
    const device = createConnection((printer.address() as AddressInfo).port, '127.0.0.1');
    await once(device, 'connect');
    const { connect } = await start(device);
    const client = await connect('holdfast 5\npage');
    await expect.poll(() => taken).toBe('page');
    const gone = once(client.socket, 'close');
    accepted?.destroy();
    await gone;
    const late = await connect('holdfast 6\n');
    await expect.poll(late.heard).toContain('the device was closed');
  });

  it('refuses what is no greeting, however long', async () => {
    const { connect } = await start(new SlowDevice());
    for (const rubbish of ['GET / HTTP/1.1\r\n', 'holdfast\n', 'holdfast 0\n', 'x'.repeat(9_000)]) {
      const client = await connect(rubbish);
      const closed = once(client.socket, 'close');
      await closed;
      expect(client.heard()).toMatch(/expected a line|is not a token/);
    }
  });
});
