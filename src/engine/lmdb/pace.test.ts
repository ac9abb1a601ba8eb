import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.ts';
import { Pace } from './pace.ts';

describe('who waits for a sync', () => {
  it('may be said', async () => {
    const clock = new ManualClock();
    for (const place of ['here', 'elsewhere'] as const) {
      const pace = new Pace(clock, place);
      for (let i = 0; i < 40; i++) {
        expect(pace.waitsHere).toBe(place === 'here');
        pace.here(() => clock.advance(40));
      }
    }
  });

  it('is this thread while they are short, in spite of some that are a little longer', async () => {
    const { pace, syncs } = paced();
    await syncs(20, 0.2);
    await syncs(1, 6);
    await syncs(20, 0.2);
    expect(await syncs(1, 1.5)).toBe(1);
    expect(pace.waitsHere).toBe(true);
  });

  it('is another thread after a long one, until one of the next is short again', async () => {
    const { pace, syncs } = paced();
    await syncs(20, 0.2);
    await syncs(1, 40);
    expect(await syncs(32, 0.2)).toBe(0);
    expect(pace.waitsHere).toBe(true);
    expect(await syncs(100, 0.2)).toBe(100);
  });

  it('is another thread on a slow disk, but for one in thousands that is tried', async () => {
    const { syncs } = paced();
    expect(await syncs(10_000, 3)).toBeLessThan(11);
  });

  it('comes to be another thread when the disk becomes slower', async () => {
    const { pace, syncs } = paced();
    await syncs(20, 0.2);
    expect(await syncs(200, 1.5)).toBeLessThan(100);
    expect(pace.waitsHere).toBe(false);
  });

  it('is soon this thread again when a slow disk has become a short-spoken one', async () => {
    const { syncs } = paced();
    await syncs(10_000, 3);
    await syncs(8_192, 0.2);
    expect(await syncs(100, 0.2)).toBe(100);
    await syncs(1, 40);
    await syncs(32, 0.2);
    expect(await syncs(100, 0.2)).toBe(100);
  });
});

function paced(): { pace: Pace; syncs: (count: number, ms: number) => Promise<number> } {
  const clock = new ManualClock();
  const pace = new Pace(clock);
  /** Answers how many of them this thread waited for. */
  const syncs = async (count: number, ms: number): Promise<number> => {
    let here = 0;
    for (let i = 0; i < count; i++) {
      const isHere = pace.waitsHere;
      if (isHere) here++;
      if (isHere) pace.here(() => clock.advance(ms));
      else await pace.elsewhere(async () => clock.advance(ms));
    }
    return here;
  };
  return { pace, syncs };
}
