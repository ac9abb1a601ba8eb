/**
 * Unary calls of a small message on one connection, so many at once, for so long; prints calls per
 * second. argv: which client, port, how many at once, milliseconds.
 */
import grpc from '@grpc/grpc-js';
import { deferred } from '../../src/base/deferred.ts';
import { headerValue } from '../../src/wire/http2/headers.ts';
import { connect, requestHeaders } from '../../src/wire/net/client.ts';

const PATH = '/echo.Echo/Unary';
const MESSAGE = new Uint8Array(15).fill(7);
const [which, port, atOnce, forMs] = process.argv.slice(2);

async function ours(): Promise<() => Promise<void>> {
  const session = await connect({ port: Number(port) });
  const headers = requestHeaders(PATH, 'localhost', [
    ['te', 'trailers'],
    ['content-type', 'application/grpc'],
    ['user-agent', 'holdfast'],
  ]);
  return () => {
    const done = deferred<void>();
    let received = 0;
    const call = session.request(headers, {
      onHeaders: () => {},
      onData: (bytes) => {
        received += bytes.length;
      },
      onTrailers: (trailers) => {
        const status = headerValue(trailers, 'grpc-status');
        if (status === '0' && received === MESSAGE.length + 5) done.resolve();
        else done.reject(new Error(`status ${status}, ${received} bytes`));
      },
      onFailed: (error) => done.reject(error),
    });
    const frame = new Uint8Array(5 + MESSAGE.length);
    frame[4] = MESSAGE.length;
    frame.set(MESSAGE, 5);
    call.sendData(frame, true);
    return done.promise;
  };
}

function grpcJs(): () => Promise<void> {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const same = (value: Buffer): Buffer => value;
  const message = Buffer.from(MESSAGE);
  return () =>
    new Promise((resolve, reject) =>
      client.makeUnaryRequest(PATH, same, same, message, (error) =>
        error ? reject(error) : resolve(),
      ),
    );
}

const one = which === 'ours' ? await ours() : grpcJs();

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
  return (calls * 1_000) / (performance.now() - fromMs);
}

await measure(700);
console.log(await measure(Number(forMs)));
process.exit(0);
