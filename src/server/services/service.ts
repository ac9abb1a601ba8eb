/**
 * How a service is written: one function per method, decoded messages in and out. Which transport
 * brings them, gRPC or the JSON gateway, it cannot tell.
 */
import type { MessageType, Method } from '../../wire/messages/descriptor.ts';
import type { StreamCall } from '../../wire/net/grpc-server.ts';
import type { Call } from '../backend.ts';

export interface UnaryHandler {
  readonly kind: 'unary';
  readonly method: Method;
  /** Answers at once where nothing has to be waited for. */
  run(request: never, call: Call): object | Promise<object>;
}

/** Server and bidirectional streams: the former get one request and no more. */
export interface StreamHandler {
  readonly kind: 'stream';
  readonly method: Method;
  run(requests: AsyncIterable<never>, call: Call): AsyncIterable<object>;
  /** The same on gRPC, for streams whose messages are too many to pass through an iterator. */
  readonly direct?: DirectStream | undefined;
}

/** Its promise ends the call. */
export type DirectStream = (frames: StreamCall, call: Call) => Promise<void>;

export type Handler = UnaryHandler | StreamHandler;

type Decoded<M> = M extends { readonly request: MessageType<infer T, infer _Init> } ? T : never;
type Answer<M> = M extends { readonly response: MessageType<infer _T, infer Init> } ? Init : never;

export function unary<M extends Method>(
  method: M,
  run: (request: Decoded<M>, call: Call) => (Answer<M> & object) | Promise<Answer<M> & object>,
): UnaryHandler {
  return { kind: 'unary', method, run: run as UnaryHandler['run'] };
}

export function stream<M extends Method>(
  method: M,
  run: (requests: AsyncIterable<Decoded<M>>, call: Call) => AsyncIterable<Answer<M> & object>,
  { direct }: Pick<StreamHandler, 'direct'> = {},
): StreamHandler {
  return { kind: 'stream', method, run: run as StreamHandler['run'], direct };
}

/** The single request of a method whose answers stream. */
export async function only<T>(requests: AsyncIterable<T>): Promise<T> {
  for await (const request of requests) return request;
  throw new Error('a stream of answers begins with one request');
}
