/** Tells HTTP/2 from anything else by the first bytes, without consuming them. */
import type { Socket } from 'node:net';
import { PREFACE } from '../http2/frame.ts';

export type Protocol = 'h2' | 'other';

/** What the bytes begin with; undefined as long as both are possible. */
export function protocolOf(bytes: Uint8Array): Protocol | undefined {
  const length = Math.min(bytes.length, PREFACE.length);
  for (let i = 0; i < length; i++) if (bytes[i] !== PREFACE[i]) return 'other';
  return bytes.length >= PREFACE.length ? 'h2' : undefined;
}

/** Calls `decide` once, with all bytes back in the socket; never, if the peer says too little. */
export function sniff(socket: Socket, decide: (protocol: Protocol) => void): void {
  let seen: Buffer = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
    const protocol = protocolOf(seen);
    if (!protocol) return;
    socket.off('data', onData);
    socket.pause();
    socket.unshift(seen);
    decide(protocol);
    socket.resume();
  };
  socket.on('data', onData);
  // A half-closed stranger has nothing more to say.
  socket.once('end', () => socket.end());
}
