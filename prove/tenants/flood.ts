/** The tenant that floods, in a process of its own: writes as fast as it is let, until told to stop. */
import { utf8 } from '../../src/base/bytes.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { KVService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';

const [port = '', token = ''] = process.argv.slice(2);
const CONNECTIONS = 4;
const AT_ONCE = 64;
const VALUE = new Uint8Array(4_096);
/** A client that is told to slow down, and hardly does. */
const PAUSE_MS = 100;

let stopping = false;
const tally = { accepted: 0, refused: 0 };

async function lane(client: GrpcClient, number: number): Promise<void> {
  for (let round = 0; !stopping; round++) {
    try {
      const key = utf8(`flood/${number}/${round % 100}`);
      await client.unary(KVService.Put, { key, value: VALUE });
      tally.accepted++;
    } catch (error) {
      if (!HoldfastError.is(error, 'resource-exhausted')) throw error;
      tally.refused++;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

process.on('message', () => {
  stopping = true;
});
process.on('disconnect', () => process.exit());
process.send?.('running');
const clients = Array.from(
  { length: CONNECTIONS },
  () => new GrpcClient({ port: Number(port), metadata: [['token', token]] }),
);
await Promise.all(
  clients.flatMap((client) => Array.from({ length: AT_ONCE }, (_, at) => lane(client, at))),
);
for (const client of clients) client.destroy();
process.send?.(tally, () => process.disconnect());
