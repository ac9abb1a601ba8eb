/** `Put`s on one connection, so many at once, for so long; prints calls per second.
 * argv: which client, port, how many at once, milliseconds. */
import grpc from '@grpc/grpc-js';
import { KVService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';
import { protobufJs } from '../../test/messages/references.ts';

const [which, port, atOnce, forMs] = process.argv.slice(2);
const key = new TextEncoder().encode('bench/key/000123');
const value = new Uint8Array(64).fill(120);

function ours(): () => Promise<void> {
  const client = new GrpcClient({ port: Number(port), deadlineMs: 5_000 });
  return async () => {
    const answer = await client.unary(KVService.Put, { key, value });
    if (!answer.header?.revision) throw new Error('no revision');
  };
}

function grpcJs(): () => Promise<void> {
  const root = protobufJs();
  const requests = root.lookupType('etcdserverpb.PutRequest');
  const answers = root.lookupType('etcdserverpb.PutResponse');
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const serialize = (message: object): Buffer => Buffer.from(requests.encode(message).finish());
  const deserialize = (bytes: Buffer): object => answers.decode(bytes);
  return () =>
    new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + 5_000 };
      client.makeUnaryRequest(
        ...([KVService.Put.path, serialize, deserialize, { key, value }] as const),
        ...([new grpc.Metadata(), options] as const),
        (error: unknown, answer?: object) =>
          error || !answer ? reject(error ?? new Error('no answer')) : resolve(),
      );
    });
}

const one = which === 'ours' ? ours() : grpcJs();

async function measure(ms: number): Promise<number> {
  const fromMs = performance.now();
  let calls = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() - fromMs < ms) {
      await one();
      calls++;
    }
  };
  await Promise.all(Array.from({ length: Number(atOnce) }, worker));
  return (calls / (performance.now() - fromMs)) * 1_000;
}

await measure(Math.min(1_000, Number(forMs)));
console.log(Math.round(await measure(Number(forMs))));
process.exit(0);
