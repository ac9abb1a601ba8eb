/** Bytes that went over the connections of gRPC. */
import type { Socket } from 'node:net';
import type { Metrics } from '../../base/metrics.ts';

/** The answer is told each connection. */
export function trafficFigures(metrics: Metrics): (socket: Socket) => void {
  const open = new Set<Socket>();
  const gone = { bytesRead: 0, bytesWritten: 0 };
  const total = (pick: 'bytesRead' | 'bytesWritten'): number => {
    let sum = gone[pick];
    for (const socket of open) sum += socket[pick];
    return sum;
  };
  const name = 'etcd_network_client_grpc';
  metrics.count(`${name}_received_bytes_total`, 'Bytes from clients.', () => total('bytesRead'));
  metrics.count(`${name}_sent_bytes_total`, 'Bytes to clients.', () => total('bytesWritten'));
  return (socket) => {
    open.add(socket);
    socket.once('close', () => {
      open.delete(socket);
      gone.bytesRead += socket.bytesRead;
      gone.bytesWritten += socket.bytesWritten;
    });
  };
}
