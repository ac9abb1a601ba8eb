/** gzip for messages of peers that insist on it, with a bound on what comes out. */
import { gunzipSync } from 'node:zlib';
import type { Bytes } from '../../base/bytes.ts';
import { grpcError } from '../grpc/status.ts';
import { INTERNAL, RESOURCE_EXHAUSTED } from '../messages/status.ts';

export function gunzip(bytes: Bytes, bytesMax: number): Bytes {
  try {
    const plain = gunzipSync(bytes, { maxOutputLength: bytesMax });
    return new Uint8Array(plain.buffer, plain.byteOffset, plain.byteLength);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      const message = `received message after decompression larger than max (${bytesMax})`;
      throw grpcError(RESOURCE_EXHAUSTED, message);
    }
    throw grpcError(INTERNAL, 'a message that is not gzip');
  }
}
