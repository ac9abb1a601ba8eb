/**
 * One process on the shared directory. Two things at once, again and again: take the lock, read the
 * registers, write them, without another look at the lock in between; and put a key of its own,
 * telling the judge what the store answered.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { utf8 } from '../../src/base/bytes.ts';
import { type Client, connect } from '../../src/client.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { FromWorker, ToWorker } from './messages.ts';

const [directory = '', name = '', ttl = '1500'] = process.argv.slice(2);
const WRITE_EVERY_MS = 2;
let stopping = false;
let inbox: ((message: ToWorker) => void) | undefined;

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const tell = (message: FromWorker): void => void process.send?.(message);

function ask(question: FromWorker): Promise<ToWorker> {
  return new Promise((resolve) => {
    inbox = resolve;
    tell(question);
  });
}

async function takeTurn(client: Client): Promise<void> {
  const askedAtMs = nowMs();
  const grant = await client.lock('register').acquire({ wait: 5_000 });
  const token = String(grant.token);
  const values = await ask({ type: 'read', token, askedAtMs });
  if (values.type === 'values') {
    const { guarded, open } = values;
    await ask({ type: 'write', token, guarded: guarded + 1, open: open + 1 });
  }
  await grant.release();
}

async function putOne(client: Client, round: number): Promise<void> {
  const key = `acked/${name}/${round}`;
  const startedAtMs = nowMs();
  try {
    const { header } = await client.engine.txn({
      success: [{ type: 'put', key: utf8(key), value: utf8(name) }],
    });
    tell({ type: 'outcome', key, revision: header.revision, startedAtMs });
  } catch (error) {
    if (!HoldfastError.is(error)) throw error;
    if (error.outcome === 'unknown') tell({ type: 'outcome', key, startedAtMs });
  }
  await pause(WRITE_EVERY_MS);
}

/** What the contract allows to fail, failed; anything else is told. */
async function again(work: (round: number) => Promise<void>): Promise<void> {
  for (let round = 0; !stopping; round++) {
    try {
      await work(round);
    } catch (error) {
      if (!HoldfastError.is(error)) tell({ type: 'trouble', message: String(error) });
    }
  }
}

process.on('message', (message: ToWorker) => {
  if (message.type === 'stop') stopping = true;
  else inbox?.(message);
});
process.on('disconnect', () => process.exit());
process.on('unhandledRejection', (error) => tell({ type: 'trouble', message: `lost: ${error}` }));

const client = await connect(`lmdb:${directory}`, { ttl: Number(ttl), holder: name });
tell({ type: 'running' });
await Promise.all([again(() => takeTurn(client)), again((round) => putOne(client, round))]);
await client.close();
process.disconnect();
