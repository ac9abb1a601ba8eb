/** A request that is given up on, sent again, and arrives after all. */
import { afterEach, expect, it } from 'vitest';
import { type Client, connect } from '../client.ts';
import type { CallOptions, Engine, TxnOptions } from '../engine/contract.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import { HoldfastError } from '../model/errors.ts';
import type { LeaseGrant, LeaseGrantRequest } from '../model/lease.ts';
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

/** The same for the first lease. */
class LeaseDawdler extends EngineWrapper {
  arrive: (() => Promise<unknown>) | undefined;

  override grantLease(request: LeaseGrantRequest, options?: CallOptions): Promise<LeaseGrant> {
    if (this.arrive) return super.grantLease(request, options);
    this.arrive = () => super.grantLease(request, options);
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

it('a lease that was revoked does not come back with the request that was first sent for it', async () => {
  const engine = await openMemoryEngine();
  undo.push(() => engine.close());
  const dawdler = new LeaseDawdler(engine);
  const late = await client(dawdler);
  const grant = await late.lock('a').acquire();
  await engine.revokeLease(grant.session.id);
  await dawdler.arrive!();
  await expect(engine.keepAlive(grant.session.id)).rejects.toMatchObject({
    code: 'lease-not-found',
  });
  await eventually(() => !grant.held, 'the grant to be lost');
});

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
