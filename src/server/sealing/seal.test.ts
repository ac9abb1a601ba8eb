/** What can happen between the steps of a seal. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { equalBytes, utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import type { Engine } from '../../engine/contract.ts';
import { openMemoryEngine } from '../../engine/memory/engine.ts';
import { SEAL_LIFE_MS_MAX } from '../../model/seal.ts';
import { tokenEra } from '../../model/token.ts';
import { EngineWrapper } from '../../testing/engine-wrapper.ts';
import { opaqueTokens } from '../access/tokens.ts';
import { Backend, type Call } from '../backend.ts';
import { SEAL_KEYS_KEY } from './keys.ts';
import { type Sealing, seal } from './seal.ts';

const call: Call = {
  identity: { user: undefined },
  address: '127.0.0.1',
  signal: new AbortController().signal,
  connection: { onEnd: () => {} },
  header: () => undefined,
};

/** Something happens just before the keys are read: after the claim was, and before it is signed. */
class Interrupted extends EngineWrapper {
  happens: () => Promise<unknown> = async () => {};

  override async range(...request: Parameters<Engine['range']>): ReturnType<Engine['range']> {
    if (equalBytes(request[0].key, SEAL_KEYS_KEY)) await this.happens();
    return super.range(...request);
  }
}

let clock: ManualClock;
let engine: Interrupted;
let backend: Backend;

beforeEach(async () => {
  clock = new ManualClock();
  engine = new Interrupted(await openMemoryEngine({ clock }));
  const options = { name: 'test', clientUrls: () => [], tokens: opaqueTokens(clock) };
  backend = await Backend.open({ engine, clock, ...options });
});

afterEach(() => engine.close());

/** A claim on a lease of its own; the first in a line holds. */
async function claim(name: string, ttlMs = 30_000): Promise<{ key: Uint8Array; lease: bigint }> {
  const { id } = await engine.grantLease({ ttlMs });
  const key = utf8(`${name}/${id.toString(16)}`);
  await engine.txn({ success: [{ type: 'put', key, lease: id }] });
  return { key, lease: id };
}

const sealed = (own: { key: Uint8Array; lease: bigint }, token = 0n): Promise<Sealing> =>
  seal(backend, { ...own, token }, call);

describe('a seal', () => {
  test('that is made while the era is lifted is of the new era altogether, or is refused', async () => {
    const own = await claim('orders/42');
    const { claims: before } = await sealed(own);
    let lifts = 0;
    engine.happens = async () => {
      if (lifts++ === 0) await engine.liftEra(1);
    };
    await expect(sealed(own, before.token)).rejects.toMatchObject({ code: 'grant-lost' });
    lifts = 0;
    engine.happens = async () => {
      if (lifts++ === 0) await engine.liftEra(2);
    };
    const { claims, seal: text } = await sealed(own);
    expect(tokenEra(claims.token)).toBe(2);
    expect((await backend.sealKeys.signer()).keyId).toBe(text.split('.')[1]);
  });

  test('of a server that stands still before it signs lives no longer for that', async () => {
    const own = await claim('orders/42');
    await sealed(own);
    const askedAtMs = clock.wall();
    engine.happens = async () => clock.skip(3_600_000);
    const { claims, validMs } = await sealed(own);
    expect(validMs).toBe(30_000);
    expect(claims.expiresAtMs).toBe(askedAtMs + 30_000);
  });

  test('lives no longer than its lease, and never longer than guards allow', async () => {
    const short = await claim('short', 10_000);
    const long = await claim('long', 86_400_000);
    clock.advance(4_000);
    expect((await sealed(short)).validMs).toBe(6_000);
    expect((await sealed(long)).validMs).toBe(SEAL_LIFE_MS_MAX);
    clock.advance(6_000);
    // The claim goes with the lease, in a moment or already.
    await expect(sealed(short)).rejects.toMatchObject({
      code: expect.stringMatching(/^(lease-not-found|grant-lost)$/),
    });
  });

  test('is the holder’s alone, also when many locks below its name came first', async () => {
    for (let at = 0; at < 20; at++) await claim(`a/${at}`);
    const holder = await claim('a');
    const waiter = await claim('a');
    expect((await sealed(holder)).claims.resource).toBe('a');
    await expect(sealed(waiter)).rejects.toMatchObject({ code: 'grant-lost' });
    await engine.revokeLease(holder.lease);
    expect((await sealed(waiter)).claims.resource).toBe('a');
  });

  test('names no resource that a guard could take for another one', async () => {
    const { id } = await engine.grantLease({ ttlMs: 30_000 });
    const tail = [...utf8(`/${id.toString(16)}`)];
    for (const name of [[0xff], [0xef, 0xbb, 0xbf, 0x61], [0xc3], [0xed, 0xa0, 0x80]]) {
      const key = Uint8Array.from([...name, ...tail]);
      await engine.txn({ success: [{ type: 'put', key, lease: id }] });
      await expect(sealed({ key, lease: id })).rejects.toMatchObject({ code: 'invalid-argument' });
    }
    const long = await claim('x'.repeat(513));
    await expect(sealed(long)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});
