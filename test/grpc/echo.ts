/** A small etcd-like service on our gRPC server, for peers of every kind to call. */
import { utf8 } from '../../src/base/bytes.ts';
import type {
  LeaseKeepAliveRequest,
  WatchRequest,
  WatchResponseInit,
} from '../../src/wire/messages/gen/rpc.ts';
import {
  KVService,
  LeaseService,
  MaintenanceService,
  WatchService,
} from '../../src/wire/messages/services.ts';
import { rpcError } from '../../src/wire/messages/status.ts';
import { GrpcServer, type GrpcServerOptions } from '../../src/wire/net/grpc-server.ts';
import { type Http2Server, listen, type ServerOptions } from '../../src/wire/net/server.ts';

export const HEADER = {
  clusterId: 14_841_639_068_965_178_418n,
  memberId: 7n,
  revision: 5,
  raftTerm: 2,
};

/** What tests want to see of the handlers. */
export interface EchoLog {
  readonly faults: unknown[];
  /** Abort reasons of calls that waited. */
  readonly aborted: unknown[];
}

export interface Echo {
  readonly grpc: GrpcServer;
  readonly server: Http2Server;
  readonly log: EchoLog;
  close(): Promise<void>;
}

export async function startEcho(
  options: Partial<ServerOptions> = {},
  grpcOptions: GrpcServerOptions = {},
): Promise<Echo> {
  const log: EchoLog = { faults: [], aborted: [] };
  const grpc = new GrpcServer({
    onHandlerError: (error) => log.faults.push(error),
    ...grpcOptions,
  });
  serveKv(grpc, log);
  serveStreams(grpc);
  const server = await listen({ port: 0, accept: (session) => grpc.accept(session), ...options });
  const close = async (): Promise<void> => {
    await server.close();
    grpc.stop();
  };
  return { grpc, server, log, close };
}

/** The key says what happens: `throw`, `compacted`, `never`, `later`, anything else is echoed. */
function serveKv(grpc: GrpcServer, log: EchoLog): void {
  grpc.unary(KVService.Range, (request, call) => {
    const name = String.fromCharCode(...request.key.subarray(0, 20));
    if (name === 'throw') throw new TypeError('a secret of the inside');
    if (name === 'compacted') throw rpcError('compacted');
    if (name === 'never') {
      call.signal.addEventListener('abort', () => log.aborted.push(call.signal.reason));
      return new Promise(() => {});
    }
    const pair = { key: request.key, value: utf8(call.header('x-tell') ?? 'v'), modRevision: 3 };
    const answer = { header: HEADER, kvs: [pair], count: 1 };
    return name === 'later' ? Promise.resolve().then(() => answer) : answer;
  });
  grpc.deferred(KVService.Put, (request, call) => {
    setImmediate(() => call.reply({ header: HEADER, prevKv: { key: request.key } }));
  });
}

function serveStreams(grpc: GrpcServer): void {
  grpc.stream(LeaseService.LeaseKeepAlive, (call) => {
    call.listen<LeaseKeepAliveRequest>({
      onMessage: (request) => call.send({ header: HEADER, ID: request.ID, TTL: 9 }),
      onEnd: () => call.end(),
    });
  });
  grpc.bidiStream(WatchService.Watch, async function* (requests) {
    for await (const request of requests) yield* watchAnswers(request);
  });
  grpc.serverStream(MaintenanceService.Snapshot, async function* () {
    for (let i = 9; i >= 0; i--) {
      yield { remainingBytes: i * 100_000, blob: new Uint8Array(100_000).fill(i) };
    }
  });
}

async function* watchAnswers(request: WatchRequest): AsyncIterable<WatchResponseInit> {
  if (request.progressRequest) throw rpcError('noLeader');
  const key = request.createRequest?.key ?? utf8('');
  yield { header: HEADER, watchId: 0, created: true };
  yield { header: HEADER, watchId: 0, events: [{ kv: { key, value: utf8('1'), modRevision: 5 } }] };
}
