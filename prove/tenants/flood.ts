/**
 * The tenant that floods, in a process of its own: large and small writes, transactions, ranges over
 * many keys, as fast as it is let, with watches on all that it writes. It floods and stands still as
 * it is told.
 */
import { setPriority } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { utf8 } from '../../src/base/bytes.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { KVService, WatchService } from '../../src/wire/messages/services.ts';
import { GrpcClient } from '../../src/wire/net/grpc-client.ts';

const [port = '', token = ''] = process.argv.slice(2);
const CONNECTIONS = 4;
const LANES_EACH = 16;
const WATCHES = 8;
const KEYS = 1_000;
const SMALL = new Uint8Array(100);
const MEDIUM = new Uint8Array(4_096);
const LARGE = new Uint8Array(65_536);
/** A client that is told to slow down, and hardly does. */
const PAUSE_MS = 100;
const EVERYTHING = { key: utf8('flood/'), rangeEnd: utf8('flood0') };

export interface Tally {
  readonly accepted: number;
  readonly refused: number;
}

// A tenant's processors are its own: what it computes must not slow down a server beside it.
setPriority(19);
const tally = { accepted: 0, refused: 0 };
let flooding = false;

type Work = (client: GrpcClient, number: number) => Promise<unknown>;

const put = (client: GrpcClient, number: number, value: Uint8Array): Promise<unknown> =>
  client.unary(KVService.Put, { key: utf8(`flood/${number % KEYS}`), value });

const writeTogether: Work = (client, number) =>
  client.unary(KVService.Txn, {
    success: Array.from({ length: 8 }, (_, at) => ({
      requestPut: { key: utf8(`flood/${(number * 8 + at) % KEYS}`), value: SMALL },
    })),
  });

const MIX: readonly Work[] = [
  (client, number) => put(client, number, SMALL),
  (client, number) => put(client, number, MEDIUM),
  writeTogether,
  (client, number) => put(client, number, SMALL),
  (client, number) =>
    client.unary(KVService.Put, { key: utf8(`large/${number % 100}`), value: LARGE }),
  (client) => client.unary(KVService.Range, EVERYTHING),
  (client, number) => put(client, number, MEDIUM),
  (client) => client.unary(KVService.Range, { ...EVERYTHING, keysOnly: true }),
];

let sent = 0;

async function lane(client: GrpcClient): Promise<void> {
  while (flooding) {
    const number = sent++;
    try {
      await MIX[number % MIX.length]!(client, number);
      tally.accepted++;
    } catch (error) {
      // Also a connection that was ended because it reads too slowly: it comes again.
      if (!HoldfastError.is(error)) throw error;
      if (!flooding) return;
      tally.refused++;
      await pause(PAUSE_MS);
    }
  }
}

async function watchAll(client: GrpcClient): Promise<void> {
  while (flooding) {
    const stream = client.stream(WatchService.Watch);
    try {
      stream.send({ createRequest: { ...EVERYTHING } });
      for await (const _ of stream.responses());
    } catch {
      await pause(PAUSE_MS);
    }
  }
}

let stop = (): void => {};

function flood(): void {
  const clients = Array.from(
    { length: CONNECTIONS },
    () => new GrpcClient({ port: Number(port), metadata: [['token', token]] }),
  );
  for (let at = 0; at < WATCHES; at++) void watchAll(clients[at % CONNECTIONS]!);
  for (const client of clients) for (let at = 0; at < LANES_EACH; at++) void lane(client);
  stop = () => {
    for (const client of clients) client.destroy();
  };
}

process.on('message', (word) => {
  flooding = word === 'flood';
  if (flooding) flood();
  else stop();
  process.send?.(tally);
});
process.on('disconnect', () => process.exit());
process.send?.('ready');
