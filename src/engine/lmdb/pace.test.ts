import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.ts';
import { Pace } from './pace.ts';

describe('who waits for a sync', () => {
  it('is another thread until a few short ones have been seen', async () => {
    const { pace, sync } = paced();
    const seen: boolean[] = [];
    for (let i = 0; i < 9; i++) {
      seen.push(pace.isBrief);
      await sync(0.2);
    }
    expect(seen).toEqual([...new Array<boolean>(8).fill(false), true]);
  });

  it('is another thread on a disk whose every sync takes a millisecond', async () => {
    const { pace, sync } = paced();
    for (let i = 0; i < 1_000; i++) {
      await sync(1);
      expect(pace.isBrief).toBe(false);
    }
  });

  it('is another thread after a long one, until it has seen enough short ones again', async () => {
    const { pace, sync } = paced();
    for (let i = 0; i < 20; i++) await sync(0.2);
    expect(pace.isBrief).toBe(true);
    await sync(40);
    const elsewhere: boolean[] = [];
    for (let i = 0; i < 32; i++) {
      elsewhere.push(pace.isBrief);
      await sync(0.2);
    }
    expect(elsewhere).not.toContain(true);
    expect(pace.isBrief).toBe(true);
  });

  it('is this thread in spite of one that is a little longer', async () => {
    const { pace, sync } = paced();
    for (let i = 0; i < 20; i++) await sync(0.2);
    await sync(1.5);
    expect(pace.isBrief).toBe(true);
  });

  it('comes to be another thread when the disk becomes slower', async () => {
    const { pace, sync } = paced();
    for (let i = 0; i < 20; i++) await sync(0.2);
    let here = 0;
    for (; pace.isBrief; here++) await sync(1);
    expect(here).toBeGreaterThan(0);
    expect(here).toBeLessThan(32);
  });
});

function paced(): { pace: Pace; sync: (ms: number) => Promise<void> } {
  const clock = new ManualClock();
  const pace = new Pace(clock);
  return { pace, sync: (ms) => pace.timed(async () => clock.advance(ms)) };
}
