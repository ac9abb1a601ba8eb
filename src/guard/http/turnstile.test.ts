import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.ts';
import { MemoryMarks } from '../marks.ts';
import { type Admission, Turnstile } from './turnstile.ts';

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('the turnstile', () => {
  it('lets a newer token in only after the older operations have left', async () => {
    const turnstile = new Turnstile('t', new MemoryMarks(), { clock: new ManualClock() });
    const older = [await turnstile.enter(33n, 'r'), await turnstile.enter(33n, 'r')];
    const order: string[] = [];
    const newer = turnstile.enter(34n, 'r').then(() => order.push('newer in'));
    for (const each of older) {
      await settle();
      order.push('older out');
      each.leave();
    }
    await newer;
    expect(order).toEqual(['older out', 'older out', 'newer in']);
    await expect(turnstile.enter(33n, 'r')).rejects.toMatchObject({ code: 'stale' });
    await turnstile.enter(1n, 'another');
  });

  it('aborts what does not leave in time, and turns the newer away when that has no effect', async () => {
    const clock = new ManualClock();
    const turnstile = new Turnstile('t', new MemoryMarks(), { clock, drainMs: 100, abortMs: 50 });
    const older = await turnstile.enter(33n, 'r');
    const newer = turnstile.enter(34n, 'r');
    newer.catch(() => {});
    await settle();
    clock.advance(99);
    older.ensure();
    expect(older.signal.aborted).toBe(false);
    clock.advance(1);
    await settle();
    expect(() => older.ensure()).toThrow('stale: token 33 < mark 34');
    clock.advance(50);
    await expect(newer).rejects.toMatchObject({ code: 'conflict', outcome: 'rejected' });
    older.leave();
    await turnstile.enter(34n, 'r');
  });

  it('refuses one that was overtaken while it waited', async () => {
    const turnstile = new Turnstile('t', new MemoryMarks(), { clock: new ManualClock() });
    const first = await turnstile.enter(1n, 'r');
    const second = turnstile.enter(2n, 'r');
    second.catch(() => {});
    const third = turnstile.enter(3n, 'r');
    await settle();
    first.leave();
    await expect(second).rejects.toMatchObject({ code: 'stale' });
    (await third).leave();
  });

  it('never has two tokens inside at once, nor an older one after a newer', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ token: fc.bigInt(1n, 5n), turns: fc.nat(4) }), { maxLength: 25 }),
        async (list) => {
          const turnstile = new Turnstile('t', new MemoryMarks(), { clock: new ManualClock() });
          const inside: Admission[] = [];
          let newest = 0n;
          await Promise.allSettled(
            list.map(async ({ token, turns }) => {
              for (let i = 0; i < turns; i++) await Promise.resolve();
              const admission = await turnstile.enter(token, 'r');
              expect(admission.token >= newest).toBe(true);
              newest = admission.token;
              inside.push(admission);
              expect(new Set(inside.map((each) => each.token)).size).toBe(1);
              for (let i = 0; i < turns; i++) await Promise.resolve();
              inside.splice(inside.indexOf(admission), 1);
              admission.leave();
            }),
          ).then((all) => {
            for (const each of all) {
              if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'stale' });
            }
          });
          expect(inside).toEqual([]);
        },
      ),
    );
  });
});
