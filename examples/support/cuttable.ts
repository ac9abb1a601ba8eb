/** A way to a server that can be cut: nothing passes, nothing is told, as when a network splits. */
import { once } from 'node:events';
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import type { Context } from '../../scripts/experiment.ts';

export interface Cuttable {
  readonly port: number;
  cut(): void;
  heal(): void;
}

export async function cuttableWay(context: Context, to: number): Promise<Cuttable> {
  const sockets = new Set<Socket>();
  let whole = true;
  const keep = (socket: Socket, other: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', (chunk) => other.write(chunk));
    socket.once('close', () => {
      sockets.delete(socket);
      other.destroy();
    });
    if (!whole) socket.pause();
  };
  const server = createServer((near) => {
    const far = createConnection(to, '127.0.0.1');
    keep(near, far);
    keep(far, near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.cleanup(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: (server.address() as AddressInfo).port,
    cut: () => {
      whole = false;
      for (const socket of sockets) socket.pause();
    },
    heal: () => {
      whole = true;
      for (const socket of sockets) socket.resume();
    },
  };
}
