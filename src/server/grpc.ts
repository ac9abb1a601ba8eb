/** The services on gRPC. */
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import { HOPS_HEADER, type Hops, LOOP_MESSAGE } from '../model/hops.ts';
import type { StreamHandler } from '../wire/http2/connection.ts';
import { FAILED_PRECONDITION, plainRpcError } from '../wire/messages/status.ts';
import { GrpcServer, type ServerCall } from '../wire/net/grpc-server.ts';
import type { ServerSession } from '../wire/net/server-session.ts';
import type { Identity } from './access/gate.ts';
import type { Call, Connection } from './backend.ts';
import { type Callers, type Credentials, certificateName } from './callers.ts';
import { connectionOn } from './exchange.ts';
import type { Handler } from './services/service.ts';

export interface GrpcOptions {
  readonly handlers: ReadonlyMap<string, Handler>;
  readonly callers: Callers;
  readonly clock: Clock;
  readonly messageBytesMax: number;
  /** For a server whose engine is another server. */
  readonly hops: Hops | undefined;
  /** Takes the streams that are not gRPC. */
  readonly other: (session: ServerSession) => StreamHandler;
  readonly onFault: (error: unknown) => void;
  readonly onStreamStart: (path: string) => void;
  readonly onCallEnd: (path: string, code: number, seconds: number) => void;
}

export function grpcServer(options: GrpcOptions): GrpcServer {
  const { handlers, callers, clock, hops } = options;
  const arrived = (call: ServerCall): GrpcCall => {
    if (hops) refuseLoops(call, hops);
    return new GrpcCall(call, callers);
  };
  const server = new GrpcServer({
    clock,
    messageBytesMax: options.messageBytesMax,
    onHandlerError: options.onFault,
    other: options.other,
    onCallEnd: (call, code) =>
      options.onCallEnd(call.method.path, code, (clock.now() - call.startedAtMs) / 1_000),
  });
  for (const handler of handlers.values()) {
    if (handler.kind === 'unary') {
      server.unary(handler.method, (request, call) => handler.run(request as never, arrived(call)));
    } else if (handler.direct) {
      const { direct } = handler;
      server.stream(handler.method, (call) => {
        options.onStreamStart(handler.method.path);
        return direct(call, arrived(call));
      });
    } else {
      server.bidiStream(handler.method, (requests, call) => {
        options.onStreamStart(handler.method.path);
        return handler.run(requests as AsyncIterable<never>, arrived(call));
      });
    }
  }
  return server;
}

function refuseLoops(call: ServerCall, hops: Hops): void {
  const value = call.header(HOPS_HEADER);
  if (value === undefined || hops.arrive(value)) return;
  throw plainRpcError(FAILED_PRECONDITION, LOOP_MESSAGE, 'unsupported');
}

const CONNECTIONS = new WeakMap<ServerSession, Connection>();

/** Signal and connection are made only for the calls that ask for them. */
class GrpcCall implements Call, Credentials {
  readonly identity: Identity;
  readonly #call: ServerCall;

  constructor(call: ServerCall, callers: Callers) {
    this.#call = call;
    this.identity = callers.identify(this);
  }

  get token(): string | undefined {
    return this.#call.header('token') ?? this.#call.header('authorization');
  }

  get tls(): TLSSocket | undefined {
    return this.#call.session.tls;
  }

  header(name: string): string | undefined {
    return this.#call.header(name);
  }

  get signal(): AbortSignal {
    return this.#call.signal;
  }

  get address(): string {
    return this.#call.session.remoteAddress;
  }

  get certificate(): string {
    return certificateName(this.tls);
  }

  get connection(): Connection {
    const { session } = this.#call;
    const known = CONNECTIONS.get(session) ?? connectionOn(session.socket);
    CONNECTIONS.set(session, known);
    return known;
  }
}
