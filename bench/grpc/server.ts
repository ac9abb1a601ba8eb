/** `Put` that reads its message and answers with a header, stored nowhere; prints its port. argv: which. */
import grpc from '@grpc/grpc-js';
import { KVService } from '../../src/wire/messages/services.ts';
import { GrpcServer } from '../../src/wire/net/grpc-server.ts';
import { listen } from '../../src/wire/net/server.ts';
import { protobufJs } from '../../test/messages/references.ts';

const HEADER = {
  clusterId: 14_841_639_068_965_178_418n,
  memberId: 10_276_657_743_932_975_437n,
  raftTerm: 2,
};
let revision = 1;

async function ours(): Promise<number> {
  const server = new GrpcServer();
  server.unary(KVService.Put, (request) => {
    if (request.key.length === 0) throw new Error('no key');
    return { header: { ...HEADER, revision: ++revision } };
  });
  return (await listen({ accept: (session) => server.accept(session) })).port;
}

function grpcJs(): Promise<number> {
  const root = protobufJs();
  const requests = root.lookupType('etcdserverpb.PutRequest');
  const answers = root.lookupType('etcdserverpb.PutResponse');
  const header = { cluster_id: '14841639068965178418', member_id: '10276657743932975437' };
  const known = answers.fromObject({ header: { ...header, raft_term: 2 } }) as unknown as {
    header: { revision: number };
  };
  const server = new grpc.Server();
  const Put = {
    path: KVService.Put.path,
    requestStream: false,
    responseStream: false,
    requestDeserialize: (bytes: Buffer) => requests.decode(bytes) as unknown as { key: Buffer },
    requestSerialize: () => Buffer.alloc(0),
    responseSerialize: (value: object) => Buffer.from(answers.encode(value).finish()),
    responseDeserialize: () => ({}),
  } as const;
  server.addService(
    { Put },
    {
      Put: (call: { request: { key: Buffer } }, answer: grpc.sendUnaryData<object>) => {
        if (call.request.key.length === 0) throw new Error('no key');
        known.header.revision = ++revision;
        answer(null, known);
      },
    },
  );
  return new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    ),
  );
}

console.log(process.argv[2] === 'ours' ? await ours() : await grpcJs());
