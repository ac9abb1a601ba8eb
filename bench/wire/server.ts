/** An echo of gRPC-shaped calls on one of three transports; prints its port. argv: which. */
import http2 from 'node:http2';
import grpc from '@grpc/grpc-js';
import type { Bytes } from '../../src/base/bytes.ts';
import { concatBytes } from '../../src/base/bytes.ts';
import type { StreamHandler } from '../../src/wire/http2/connection.ts';
import type { Header } from '../../src/wire/http2/headers.ts';
import { listen } from '../../src/wire/net/server.ts';

const PATH = '/echo.Echo/Unary';

/** As a service answers: the whole message, then headers, message and trailers. */
async function ours(): Promise<number> {
  const headers = Object.freeze<Header[]>([
    [':status', '200'],
    ['content-type', 'application/grpc'],
  ]);
  const trailers = Object.freeze<Header[]>([['grpc-status', '0']]);
  const handler: StreamHandler = {
    onHeaders() {},
    onData(stream, bytes, end) {
      const held = stream.user as Bytes | undefined;
      const whole = held ? concatBytes(held, bytes) : bytes;
      if (!end) {
        stream.user = whole;
        return;
      }
      stream.sendHeaders(headers);
      stream.sendData(whole);
      stream.sendTrailers(trailers);
    },
    onTrailers() {},
    onReset() {},
  };
  return (await listen({ accept: () => handler })).port;
}

function node(): Promise<number> {
  const server = http2.createServer();
  server.on('stream', (stream) => {
    const parts: Buffer[] = [];
    stream.on('data', (part: Buffer) => parts.push(part));
    stream.on('end', () => {
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc' },
        { waitForTrailers: true },
      );
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.end(parts.length === 1 ? parts[0] : Buffer.concat(parts));
    });
    stream.on('error', () => {});
  });
  return new Promise((resolve) =>
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)),
  );
}

function grpcJs(): Promise<number> {
  const same = (value: Buffer): Buffer => value;
  const server = new grpc.Server();
  server.addService(
    {
      unary: {
        path: PATH,
        requestStream: false,
        responseStream: false,
        requestSerialize: same,
        requestDeserialize: same,
        responseSerialize: same,
        responseDeserialize: same,
      },
    },
    {
      unary: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) =>
        done(null, call.request),
    },
  );
  return new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    ),
  );
}

const kinds: Readonly<Record<string, () => Promise<number>>> = { ours, node, 'grpc-js': grpcJs };
const port = await kinds[process.argv[2] ?? 'ours']!();
console.log(port);
// Ends with whoever started it.
process.stdin.on('end', () => process.exit(0)).resume();
