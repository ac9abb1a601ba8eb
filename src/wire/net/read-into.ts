/**
 * Reading a socket into memory that stays, and copying what has come.
 *
 * Usually each read takes 64 KiB, gives back what it did not need and makes a buffer of the rest,
 * which for a short request costs more than to understand it. Node.js reads otherwise for sockets
 * that it connects (`onread` of `net.connect`) and has no way to ask for it on those that a server
 * accepts; so what that option sets is set here. Where it is not found, all is read as usual.
 */
import { Socket } from 'node:net';
import { copyBytes } from '../../base/allocate.ts';
import type { Bytes } from '../../base/bytes.ts';

/** For all sockets: what is read is copied before anything else is. */
const MEMORY: Bytes = new Uint8Array(65_536);

interface Handle {
  useUserBuffer?(memory: Bytes): void;
}

interface Inside {
  _handle?: Handle | null;
  [name: symbol]: unknown;
}

const symbols = new Map(
  Object.getOwnPropertySymbols(new Socket()).map((symbol) => [symbol.description, symbol]),
);
const BUFFER = symbols.get('kBuffer');
const CALLBACK = symbols.get('kBufferCb');

/**
 * From now on what comes is given to `read` and makes no 'data'; what stands in the socket already
 * does. False: nothing has changed.
 */
export function readInto(socket: Socket, read: (bytes: Bytes) => void): boolean {
  const inside = socket as unknown as Inside;
  const handle = inside._handle;
  if (!BUFFER || !CALLBACK || !handle?.useUserBuffer || 'encrypted' in socket) return false;
  if (inside[BUFFER] !== null) return false;
  inside[BUFFER] = MEMORY;
  inside[CALLBACK] = (length: number): boolean => {
    read(copyBytes(MEMORY, 0, length));
    return true;
  };
  handle.useUserBuffer(MEMORY);
  return true;
}
