/**
 * A call's status in its trailers: `grpc-status`, the percent-encoded `grpc-message`, and details in
 * `grpc-status-details-bin`.
 */
import { type Bytes, text, utf8 } from '../../base/bytes.ts';
import type { HoldfastError } from '../../model/errors.ts';
import { type Header, type HeaderList, headerValue } from '../http2/headers.ts';
import {
  codeOfHttpStatus,
  errorOf,
  OK,
  plainRpcError,
  type RpcStatus,
  statusOf,
  UNKNOWN,
} from '../messages/status.ts';
import { binaryValue, encodeBinary } from './metadata.ts';

/** An error that goes out with exactly this code and text. */
export function grpcError(code: number, message: string): HoldfastError {
  return plainRpcError(code, message, errorOf({ code, message }, 'read').code);
}

const UNSAFE = /[^\x20-\x24\x26-\x7e]/;
const MESSAGE_MAX = 4_096;

/** Everything outside printable ASCII, and `%`, becomes `%XX` of its UTF-8 bytes. */
export function encodeMessage(message: string): string {
  const short = message.length > MESSAGE_MAX ? message.slice(0, MESSAGE_MAX) : message;
  // A header value must not begin or end with a space.
  const trimmed = short.trim();
  if (!UNSAFE.test(trimmed)) return trimmed;
  let out = '';
  for (const byte of utf8(trimmed)) {
    out +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte < 16 ? '0' : ''}${byte.toString(16).toUpperCase()}`;
  }
  return out;
}

const ESCAPE = /^[0-9a-fA-F]{2}$/;

/** Total: what is no escape stays as it is, what is no UTF-8 becomes U+FFFD. */
export function decodeMessage(encoded: string): string {
  if (!encoded.includes('%')) return encoded;
  const bytes: number[] = [];
  for (let i = 0; i < encoded.length; i++) {
    const code = encoded.charCodeAt(i);
    const digits = code === 0x25 ? encoded.slice(i + 1, i + 3) : '';
    if (ESCAPE.test(digits)) {
      bytes.push(Number.parseInt(digits, 16));
      i += 2;
    } else bytes.push(code & 0xff);
  }
  return text(Uint8Array.from(bytes));
}

/** The trailers of success, the same object every time so that it is encoded once. */
export const OK_TRAILERS: HeaderList = Object.freeze([
  Object.freeze(['grpc-status', '0'] as const),
]);

export function statusFields(status: RpcStatus, details?: Bytes): Header[] {
  const fields: Header[] = [['grpc-status', String(status.code)]];
  if (status.message !== '') fields.push(['grpc-message', encodeMessage(status.message)]);
  if (details !== undefined) fields.push(['grpc-status-details-bin', encodeBinary(details)]);
  return fields;
}

/** Trailers for whatever was thrown. */
export function errorTrailers(error: unknown): HeaderList {
  return statusFields(statusOf(error));
}

export interface ReceivedStatus extends RpcStatus {
  readonly details?: Bytes | undefined;
}

const RECEIVED_OK: ReceivedStatus = Object.freeze({ code: OK, message: '' });
const DIGITS = /^[0-9]{1,3}$/;

/** The status in a list of trailers; undefined when it carries none. */
export function receivedStatus(trailers: HeaderList): ReceivedStatus | undefined {
  const value = headerValue(trailers, 'grpc-status');
  if (value === undefined) return undefined;
  if (value === '0') return RECEIVED_OK;
  const message = decodeMessage(headerValue(trailers, 'grpc-message') ?? '');
  const code = DIGITS.test(value) ? Number(value) : UNKNOWN;
  return { code, message, details: binaryValue(trailers, 'grpc-status-details-bin') };
}

/** For an answer that is not gRPC: a proxy's, or of another kind of server. */
export function statusOfHttp(httpStatus: string | undefined, what: string): RpcStatus {
  const number = Number(httpStatus);
  return {
    code: codeOfHttpStatus(number),
    message: `the peer did not answer with gRPC (HTTP ${httpStatus ?? 'without status'}, ${what})`,
  };
}
