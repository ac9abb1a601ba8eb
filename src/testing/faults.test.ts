import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { text, utf8 } from '../base/bytes.ts';
import { ManualClock } from '../base/clock.ts';
import { seededRandom } from '../base/random.ts';
import type { Engine } from '../engine/contract.ts';
import { openMemoryEngine } from '../engine/memory/engine.ts';
import type { TxnRequest } from '../model/transaction.ts';
import { type FaultyEngine, faultyEngine } from './faults.ts';
import { Follower } from './follower.ts';
import { PausableClock } from './pausable-clock.ts';
import {
  delay,
  delayAnswer,
  dropAnswer,
  dropRequest,
  duplicate,
  failWith,
  onCall,
  onVerb,
  sometimes,
} from './verdicts.ts';
import { turn } from './waiting.ts';

const key = utf8('k');
const put = (value: string): TxnRequest => ({
  success: [{ type: 'put', key, value: utf8(value), prevKv: true }],
});
const lost = { code: 'unavailable', outcome: 'unknown' };

let clock: ManualClock;
let inner: Engine;
let engine: FaultyEngine;

beforeEach(async () => {
  clock = new ManualClock();
  inner = await openMemoryEngine({ clock, random: seededRandom(1) });
  engine = faultyEngine(inner, { clock, random: seededRandom(2) });
});
afterEach(() => engine.close());

/** What is really there. */
async function stored(): Promise<[value: string | undefined, version: number]> {
  const [kv] = (await inner.range({ key })).kvs;
  return [kv && text(kv.value), kv?.version ?? 0];
}

describe('verdicts', () => {
  it('passes every verb on while nobody injects anything', async () => {
    await engine.txn(put('1'));
    const lease = await engine.grantLease({ ttlMs: 60_000 });
    await engine.keepAlive(lease.id);
    expect((await engine.leaseInfo(lease.id)).id).toBe(lease.id);
    await engine.revokeLease(lease.id);
    await engine.liftEra(1);
    await engine.compact((await engine.status()).header.revision);
    expect((await engine.range({ key })).count).toBe(1);
    expect([engine.calls(), engine.calls('txn')]).toEqual([9, 1]);
  });

  it('a dropped request does nothing, and the caller cannot know', async () => {
    engine.inject(onVerb('txn', dropRequest()));
    await expect(engine.txn(put('1'))).rejects.toMatchObject(lost);
    expect(await stored()).toEqual([undefined, 0]);
  });

  it('a dropped answer is carried out, and the caller cannot know', async () => {
    engine.inject(onVerb('txn', dropAnswer()));
    await expect(engine.txn(put('1'))).rejects.toMatchObject(lost);
    expect(await stored()).toEqual(['1', 1]);
  });

  it('a duplicate is carried out twice and answered once, by either', async () => {
    const first = engine.inject(onVerb('txn', duplicate('first')));
    expect((await engine.txn(put('1'))).results).toEqual([{ type: 'put', prevKv: undefined }]);
    expect(await stored()).toEqual(['1', 2]);
    first.uninstall();
    engine.inject(onVerb('txn', duplicate()));
    const [second] = (await engine.txn(put('2'))).results;
    expect(second).toMatchObject({ prevKv: { version: 3 } });
    expect(await stored()).toEqual(['2', 4]);
  });

  it('a delayed request arrives late, a delayed answer is seen late', async () => {
    using guard = engine.inject(onVerb('txn', delay(100)));
    const late = engine.txn(put('1'));
    await turn();
    expect(await stored()).toEqual([undefined, 0]);
    clock.advance(100);
    await late;
    expect([await stored(), guard.hits]).toEqual([['1', 1], 1]);
    guard.uninstall();
    engine.inject(onVerb('txn', delayAnswer(100)));
    let answered = false;
    const slow = engine.txn(put('2')).then(() => {
      answered = true;
    });
    await turn();
    expect([await stored(), answered]).toEqual([['2', 2], false]);
    clock.advance(100);
    await slow;
  });

  it('a loss can be noticed late, and an abort ends the wait for it', async () => {
    engine.inject(onVerb('txn', dropAnswer(1_000)));
    const controller = new AbortController();
    const work = engine.txn(put('1'), { signal: controller.signal });
    await turn();
    controller.abort();
    await expect(work).rejects.toMatchObject({ code: 'cancelled', outcome: 'unknown' });
    expect(await stored()).toEqual(['1', 1]);
  });

  it('a failure is what it was told to be, and nothing is carried out', async () => {
    engine.inject(onVerb('txn', failWith('no-space')));
    const refused = { code: 'no-space', outcome: 'rejected' };
    await expect(engine.txn(put('1'))).rejects.toMatchObject(refused);
    expect(await stored()).toEqual([undefined, 0]);
  });

  it('a real refusal stays a refusal when an answer is late', async () => {
    engine.inject(onVerb('keepAlive', delayAnswer(5)));
    const renewal = engine.keepAlive(7n);
    await turn();
    clock.advance(5);
    await expect(renewal).rejects.toMatchObject({ code: 'lease-not-found' });
  });
});

describe('rules', () => {
  it('the first verdict that is not pass wins, and a guard takes its rule away', async () => {
    const drop = engine.inject(onVerb('txn', dropRequest()));
    engine.inject(onVerb('txn', failWith('no-space')));
    await expect(engine.txn(put('1'))).rejects.toMatchObject({ code: 'unavailable' });
    drop.uninstall();
    drop.uninstall();
    await expect(engine.txn(put('1'))).rejects.toMatchObject({ code: 'no-space' });
    expect(drop.hits).toBe(1);
  });

  it('can strike the nth call of a verb, or the nth of all', async () => {
    engine.inject(onVerb('txn', dropAnswer(), 2));
    engine.inject(onCall(4, dropRequest()));
    await engine.txn(put('1'));
    await engine.range({ key });
    await expect(engine.txn(put('2'))).rejects.toMatchObject(lost);
    await expect(engine.range({ key })).rejects.toMatchObject(lost);
    await engine.txn(put('3'));
    expect(await stored()).toEqual(['3', 3]);
  });

  it('chance comes from the seed', async () => {
    const run = async (): Promise<string> => {
      const rules = [sometimes(0.5, dropRequest())];
      const unlucky = faultyEngine(inner, { clock, random: seededRandom(9), rules });
      let out = '';
      for (let i = 0; i < 20; i++) {
        out += await unlucky.range({ key }).then(
          () => '.',
          () => 'x',
        );
      }
      return out;
    };
    const first = await run();
    expect(await run()).toBe(first);
    expect(first).toMatch(/\..*x|x.*\./);
  });
});

describe('partitions, watches and leases', () => {
  it('in a partition nothing arrives and watches break, until it is healed', async () => {
    const request = { key };
    const follower = new Follower(engine.watch(request), request);
    await follower.created();
    {
      using _partition = engine.partition();
      await expect(engine.txn(put('1'))).rejects.toMatchObject(lost);
      expect(await follower.failure()).toMatchObject({ code: 'unavailable' });
      const another = new Follower(engine.watch(request), request);
      expect(await another.failure()).toMatchObject({ code: 'unavailable' });
      expect(await stored()).toEqual([undefined, 0]);
    }
    await engine.txn(put('2'));
    expect(await stored()).toEqual(['2', 1]);
  });

  it('a partition can lose only the answers', async () => {
    using _partition = engine.partition({ lose: 'answers' });
    await expect(engine.txn(put('1'))).rejects.toMatchObject(lost);
    expect(await stored()).toEqual(['1', 1]);
  });

  it('an answer under way when the network parts is lost', async () => {
    engine.inject(onVerb('txn', delayAnswer(100)));
    const work = engine.txn(put('1'));
    await turn();
    using _partition = engine.partition();
    clock.advance(100);
    await expect(work).rejects.toMatchObject(lost);
  });

  it('a cut watch breaks, and one made afterwards goes on from its revision', async () => {
    const request = { key };
    const follower = new Follower(engine.watch(request), request);
    await follower.created();
    const { header } = await engine.txn(put('1'));
    await follower.take(1);
    engine.cutWatches();
    expect(await follower.failure()).toMatchObject({ code: 'unavailable' });
    await engine.txn(put('2'));
    const resumed = { key, startRevision: header.revision + 1 };
    const next = new Follower(engine.watch(resumed), resumed);
    const [event] = await next.take(1);
    expect(text(event!.kv.value)).toBe('2');
    await next.close();
  });

  it('expires leases at will, their keys with them', async () => {
    const { id } = await engine.grantLease({ ttlMs: 60_000 });
    await engine.txn({ success: [{ type: 'put', key, lease: id }] });
    await engine.expireLeases();
    expect(await stored()).toEqual([undefined, 0]);
    await expect(engine.keepAlive(id)).rejects.toMatchObject({ code: 'lease-not-found' });
    await engine.expireLease(id);
  });
});

describe('a paused holder', () => {
  it('sends and hears nothing until it goes on, while others go on', async () => {
    const holder = new PausableClock(clock);
    const held = faultyEngine(inner, { clock, holder });
    const request = { key };
    const follower = new Follower(held.watch(request), request);
    await follower.created();
    holder.pause();
    const late = held.txn({ success: [{ type: 'delete', key }] });
    await engine.txn(put('other'));
    await turn();
    expect([await stored(), follower.events.length]).toEqual([['other', 1], 0]);
    holder.resume();
    await late;
    expect(await stored()).toEqual([undefined, 0]);
    expect((await follower.take(2)).map(({ type }) => type)).toEqual(['put', 'delete']);
    await follower.close();
  });

  it('does not keep anybody waiting when its engine is closed', async () => {
    const holder = new PausableClock(clock);
    const held = faultyEngine(inner, { clock, holder });
    holder.pause();
    const work = held.range({ key });
    await held.close();
    await expect(work).rejects.toMatchObject({ code: 'closed' });
  });

  it('its own lease ends meanwhile, and its late renewal is refused', async () => {
    const holder = new PausableClock(clock);
    const held = faultyEngine(inner, { clock, holder });
    const { id, ttlMs } = await held.grantLease({ ttlMs: 5_000 });
    const fired: number[] = [];
    holder.wakeAt(holder.now() + ttlMs / 2, () => fired.push(holder.now()));
    holder.pause();
    clock.advance(ttlMs + 1);
    await turn();
    expect(fired).toEqual([]);
    holder.resume();
    expect(fired).toEqual([ttlMs + 1]);
    await expect(held.keepAlive(id)).rejects.toMatchObject({ code: 'lease-not-found' });
  });
});
