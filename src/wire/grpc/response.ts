/**
 * What a client learns from a call's answer: whether it is gRPC at all, and how it ended. Pure
 * functions over header lists; the results for lists that come again and again are remembered.
 */
import { type HeaderList, headerValue } from '../http2/headers.ts';
import { INTERNAL, type RpcStatus, UNIMPLEMENTED, UNKNOWN } from '../messages/status.ts';
import { type Encoding, isGrpcContentType } from './request.ts';
import { receivedStatus, statusOfHttp } from './status.ts';

export type ResponseHead =
  /** Messages may follow, then trailers. */
  | { readonly type: 'open'; readonly encoding: Encoding }
  /** It is over: a trailers-only answer, or something that is not gRPC. */
  | { readonly type: 'ended'; readonly status: RpcStatus };

const PLAIN: ResponseHead = { type: 'open', encoding: 'identity' };
const seen = new WeakMap<HeaderList, ResponseHead>();
const seenTrailers = new WeakMap<HeaderList, RpcStatus>();

export function readResponse(headers: HeaderList, end: boolean): ResponseHead {
  if (end) return { type: 'ended', status: endedStatus(headers) };
  let head = seen.get(headers);
  if (head === undefined) {
    head = openHead(headers);
    seen.set(headers, head);
  }
  return head;
}

function openHead(headers: HeaderList): ResponseHead {
  const httpStatus = headerValue(headers, ':status');
  const contentType = headerValue(headers, 'content-type');
  if (httpStatus !== '200' || !isGrpcContentType(contentType)) {
    return { type: 'ended', status: statusOfHttp(httpStatus, contentType ?? 'no content-type') };
  }
  const encoding = headerValue(headers, 'grpc-encoding') ?? 'identity';
  if (encoding === 'identity') return PLAIN;
  if (encoding === 'gzip') return { type: 'open', encoding };
  const message = `the peer compresses with ${encoding}, which it was not offered`;
  return { type: 'ended', status: { code: UNIMPLEMENTED, message } };
}

function endedStatus(headers: HeaderList): RpcStatus {
  const status = receivedStatus(headers);
  if (status) return status;
  const httpStatus = headerValue(headers, ':status');
  if (httpStatus !== '200') {
    return statusOfHttp(httpStatus, headerValue(headers, 'content-type') ?? 'no content-type');
  }
  return { code: UNKNOWN, message: 'the answer ended without a status' };
}

export function readTrailers(trailers: HeaderList): RpcStatus {
  let status = seenTrailers.get(trailers);
  if (status === undefined) {
    status = receivedStatus(trailers) ?? {
      code: UNKNOWN,
      message: 'the answer ended without a status',
    };
    seenTrailers.set(trailers, status);
  }
  return status;
}

/** The data ended the stream: there is no status, so nothing is known. */
export const NO_TRAILERS: RpcStatus = {
  code: INTERNAL,
  message: 'the answer ended without trailers',
};

/** A unary call that succeeded must have exactly one message. */
export const NO_MESSAGE: RpcStatus = {
  code: INTERNAL,
  message: 'the answer has no message',
};
export const TWO_MESSAGES: RpcStatus = {
  code: INTERNAL,
  message: 'the answer has more than one message',
};
