/** A request that is given up on, sent again, and arrives after all. */
import { afterEach, expect, it } from 'vitest';
import { type Client, connect } from '../client.ts';
import type { Engine, TxnOptions } from '../engine/contract.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { HoldfastError } from '../model/errors.ts';
import type { TxnRequest, TxnResult } from '../model/transaction.ts';
import { EngineWrapper } from '../testing/engine-wrapper.ts';
import { eventually } from '../testing/waiting.ts';

/** Keeps the first transaction back until it is let go. */
class Dawdler extends EngineWrapper {
  arrive: (() => Promise<unknown>) | undefined;

  override txn(request: TxnRequest, options?: TxnOptions): Promise<TxnResult> {
    if (this.arrive) return super.txn(request, options);
    this.arrive = () => super.txn(request, options);
    return Promise.reject(new HoldfastError('unavailable', 'no answer', { outcome: 'unknown' }));
  }
}

const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function client(engine: Engine): Promise<Client> {
  const made = await connect(engine, { ttl: 300 });
  undo.push(() => made.close());
  return made;
}

const TRIES = {
  'a lock': (one: Client) => one.lock('a').tryAcquire(),
  'several locks': (one: Client) => one.locks(['a', 'b']).tryAcquire(),
};

it.each(Object.entries(TRIES))(
  '%s that was not free is not taken behind our back',
  async (_, tries) => {
    const engine = await openMemoryEngine();
    undo.push(() => engine.close());
    const dawdler = new Dawdler(engine);
    const late = await client(dawdler);
    const other = await client(engine);
    const claims = async () => (await other.lock('a').inspect()).claims.length;
    const grant = await other.lock('a').acquire();
    expect(await tries(late)).toBeUndefined();
    await grant.release();
    // The line is free now: the late request takes it, and nobody of ours knows.
    await dawdler.arrive!();
    expect(await claims()).toBe(1);
    await eventually(async () => (await claims()) === 0, 'the claim to go');
    const next = await other.lock('a').acquire({ wait: 5_000 });
    await next.release();
  },
);
