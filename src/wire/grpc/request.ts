/**
 * A call's opening headers, on both sides: what a server reads from them, and what a client sends.
 */
import { HoldfastError } from '../../model/errors.ts';
import { type Header, type HeaderList, headerValue } from '../http2/headers.ts';
import { INTERNAL, type RpcStatus, UNIMPLEMENTED } from '../messages/status.ts';
import { type Metadata, metadataFields } from './metadata.ts';
import { statusFields } from './status.ts';
import { parseTimeout } from './timeout.ts';

export type Encoding = 'identity' | 'gzip';

/** What a server must know to serve a call. */
export interface RequestHead {
  readonly type: 'call';
  readonly path: string;
  readonly timeoutMs: number | undefined;
  /** How compressed messages of the peer are to be read. */
  readonly encoding: Encoding;
  /** The peer reads gzip. */
  readonly acceptsGzip: boolean;
  readonly headers: HeaderList;
}

/** Why there is no call, and the header list that says so and ends the stream. */
export interface RequestRefusal {
  readonly type: 'refused';
  readonly answer: HeaderList;
}

const CONTENT_TYPE = /^application\/grpc(?:\+proto)?(?:$|[ \t]*;)/i;

/** gRPC's media type, with the protobuf encoding said or not. */
export function isGrpcContentType(value: string | undefined): boolean {
  return value !== undefined && CONTENT_TYPE.test(value);
}

export const RESPONSE_HEADERS: HeaderList = frozen([
  [':status', '200'],
  ['content-type', 'application/grpc'],
  ['grpc-accept-encoding', 'identity,gzip'],
]);

export function frozen(fields: readonly Header[]): HeaderList {
  return Object.freeze(fields.map((field) => Object.freeze(field)));
}

/** The one header list of a call that has no message to answer with. */
export function trailersOnly(status: RpcStatus): HeaderList {
  return [[':status', '200'], ['content-type', 'application/grpc'], ...statusFields(status)];
}

function refused(answer: HeaderList): RequestRefusal {
  return { type: 'refused', answer };
}

/** A request that reached the connection's handler has passed the rules of HTTP already. */
export function readRequest(headers: HeaderList): RequestHead | RequestRefusal {
  if (headerValue(headers, ':method') !== 'POST') return refused([[':status', '405']]);
  if (!isGrpcContentType(headerValue(headers, 'content-type'))) {
    return refused([[':status', '415']]);
  }
  const encoding = headerValue(headers, 'grpc-encoding') ?? 'identity';
  if (encoding !== 'identity' && encoding !== 'gzip') {
    const message = `grpc: Decompressor is not installed for grpc-encoding "${encoding}"`;
    return refused([
      ...trailersOnly({ code: UNIMPLEMENTED, message }),
      ['grpc-accept-encoding', 'identity,gzip'],
    ]);
  }
  const timeout = headerValue(headers, 'grpc-timeout');
  const timeoutMs = timeout === undefined ? undefined : parseTimeout(timeout);
  if (timeout !== undefined && timeoutMs === undefined) {
    return refused(trailersOnly({ code: INTERNAL, message: 'malformed grpc-timeout' }));
  }
  const accepts = headerValue(headers, 'grpc-accept-encoding') ?? '';
  return {
    type: 'call',
    path: headerValue(headers, ':path') ?? '',
    timeoutMs,
    encoding,
    acceptsGzip: accepts.split(',').some((name) => name.trim() === 'gzip'),
    headers,
  };
}

export interface ClientHead {
  readonly path: string;
  readonly scheme: 'http' | 'https';
  readonly authority: string;
  readonly userAgent: string;
  /** As `formatTimeout` writes it. */
  readonly timeout?: string | undefined;
  readonly metadata?: Metadata | undefined;
}

/** The opening headers of a client's call; frozen, so that sending them again costs nothing. */
export function clientHeaders(head: ClientHead): HeaderList {
  if (!head.path.startsWith('/')) {
    throw new HoldfastError('invalid-argument', `${JSON.stringify(head.path)} is not a gRPC path`);
  }
  return frozen([
    [':method', 'POST'],
    [':scheme', head.scheme],
    [':path', head.path],
    [':authority', head.authority],
    ['te', 'trailers'],
    ['content-type', 'application/grpc'],
    ['user-agent', head.userAgent],
    ['grpc-accept-encoding', 'identity,gzip'],
    ...(head.timeout === undefined ? [] : [['grpc-timeout', head.timeout] as const]),
    ...metadataFields(head.metadata ?? []),
  ]);
}
