/**
 * Messages to bytes and back. Pure, synchronous, and total: a fault of the input is a HoldfastError
 * `invalid-argument`, nothing else is thrown.
 *
 *   const bytes = encode(PutRequest, { key, value });      // a fresh view, nobody writes to it again
 *   const put = decode(PutRequest, bytes);                 // every field is there
 */
import type { Bytes } from '../../base/bytes.ts';
import type { MessageType } from './descriptor.ts';
import { Reader } from './reader.ts';
import { Writer } from './writer.ts';

const writer = new Writer();

export function encode<I extends object>(
  type: Pick<MessageType<object, I>, 'write'>,
  message: I,
): Bytes {
  writer.begin();
  type.write(writer, message);
  return writer.finish();
}

/** The same with gRPC's five bytes in front: not compressed, and the length. */
export function encodeFramed<I extends object>(
  type: Pick<MessageType<object, I>, 'write'>,
  message: I,
): Bytes {
  writer.begin();
  type.write(writer, message);
  writer.frame(0);
  return writer.finish();
}

/** Bytes and strings of the answer are copies; `bytes` may be used again at once. */
export function decode<T extends object>(type: MessageType<T>, bytes: Bytes): T {
  // A Buffer's `slice` does not copy.
  const plain =
    bytes.constructor === Uint8Array
      ? bytes
      : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return type.read(new Reader(plain), type.make());
}
