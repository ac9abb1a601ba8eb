/**
 * Lines of JSON on standard error that never hold anybody up: when whoever reads them stops reading,
 * lines are dropped and counted, and the count is told when there is room again.
 */
import type { Log } from '../server/serve.ts';

const WAITING_BYTES_MAX = 256 * 1024;

export function logger(out: NodeJS.WriteStream = process.stderr): Log {
  let dropped = 0;
  // A pipe is written synchronously by default, which would stop the whole server with its reader.
  (out as { _handle?: { setBlocking?(on: boolean): void } })._handle?.setBlocking?.(false);
  out.on('error', () => {});
  return (level, message, details = {}) => {
    if (out.writableLength > WAITING_BYTES_MAX) {
      dropped++;
      return;
    }
    const missing = dropped > 0 ? { droppedBefore: dropped } : {};
    dropped = 0;
    const line = { time: new Date().toISOString(), level, message, ...details, ...missing };
    out.write(`${JSON.stringify(line)}\n`);
  };
}
