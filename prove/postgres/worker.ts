/**
 * One client process of `postgres-faults` and `etcd-faults`: takes the lock, reads the registers, writes them, and
 * writes a key of its own into the engine, again and again. It checks nothing before it writes: a
 * process that was paused believes that it still holds the lock.
 */
import { utf8 } from '../../src/base/bytes.ts';
import { connect, openEngine } from '../../src/client.ts';
import type { Engine } from '../../src/engine/contract.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { Compare } from '../../src/model/transaction.ts';
import type { FromWorker, ToWorker } from './messages.ts';

const name = process.argv[2] ?? 'worker';
let round = 0;
let stopping = false;
let inbox: ((message: ToWorker) => void) | undefined;

const tell = (message: FromWorker): void => void process.send?.(message);

function ask<T extends ToWorker['type']>(
  question: FromWorker,
  _expected: T,
): Promise<Extract<ToWorker, { type: T }>> {
  return new Promise((resolve) => {
    inbox = resolve as (message: ToWorker) => void;
    tell(question);
  });
}

async function work(url: string, direct: boolean, ttlMs: number): Promise<void> {
  const engine = await openEngine(url, { direct, connections: 3 });
  const client = await connect(engine, { ttl: ttlMs, holder: name });
  tell({ type: 'running' });
  try {
    while (!stopping) await turn(client, engine);
  } finally {
    await client.close().catch(() => {});
    await engine.close();
  }
}

async function turn(client: Awaited<ReturnType<typeof connect>>, engine: Engine): Promise<void> {
  try {
    const grant = await client.lock('register').acquire({ wait: 5_000 });
    const token = String(grant.token);
    const { guarded, open: unguarded } = await ask({ type: 'read', token }, 'values');
    await ask({ type: 'write', token, guarded: guarded + 1, open: unguarded + 1 }, 'written');
    await record(engine, grant.ownership());
    await grant.release();
  } catch (error) {
    // A lost lock, a lock not had in time, a database that is away: go on.
    if (!HoldfastError.is(error)) tell({ type: 'trouble', message: String(error) });
  }
}

async function record(engine: Engine, ownership: Compare): Promise<void> {
  const key = `acked/${name}/${++round}`;
  try {
    const { succeeded } = await engine.txn({
      compare: [ownership],
      success: [{ type: 'put', key: utf8(key), value: utf8(name) }],
    });
    if (succeeded) tell({ type: 'outcome', key, acknowledged: true });
  } catch (error) {
    if (HoldfastError.is(error) && error.outcome === 'unknown') {
      tell({ type: 'outcome', key, acknowledged: false });
    } else throw error;
  }
}

process.on('message', (message: ToWorker) => {
  switch (message.type) {
    case 'phase':
      stopping = false;
      work(message.url, message.direct, message.ttlMs)
        .catch((error: unknown) => tell({ type: 'trouble', message: String(error) }))
        .finally(() => tell({ type: 'stopped' }));
      return;
    case 'stop':
      stopping = true;
      return;
    case 'end':
      process.disconnect();
      return;
    default:
      inbox?.(message);
  }
});
process.on('disconnect', () => process.exit());
tell({ type: 'ready' });
