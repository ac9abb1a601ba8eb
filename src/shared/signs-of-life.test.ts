import { describe, expect, test } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { watchForSigns } from './signs-of-life.ts';

const PATIENCE_MS = 1_000;
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
};

function watched(ask: () => Promise<unknown>): {
  clock: ManualClock;
  ends: string[];
  stop: () => void;
} {
  const clock = new ManualClock();
  const ends: string[] = [];
  const failed = (how: string): void => void ends.push(how);
  const stop = watchForSigns({ clock, patienceMs: PATIENCE_MS, ask, failed });
  return { clock, ends, stop };
}

async function pass(clock: ManualClock, ms: number): Promise<void> {
  for (let at = 0; at < ms; at += 50) {
    clock.advance(50);
    await settled();
  }
}

describe('watching for signs of life', () => {
  test('goes on as long as there are answers', async () => {
    const { clock, ends, stop } = watched(() => Promise.resolve());
    await pass(clock, 20 * PATIENCE_MS);
    expect(ends).toEqual([]);
    stop();
    expect(clock.pending).toBe(0);
  });

  test('ends once patience is over, and not before', async () => {
    const { clock, ends } = watched(() => new Promise(() => {}));
    await pass(clock, PATIENCE_MS - 50);
    expect(ends).toEqual([]);
    await pass(clock, PATIENCE_MS);
    expect(ends).toEqual(['silent']);
    expect(clock.pending).toBe(0);
  });

  test('ends at once when it is refused', async () => {
    const { ends, clock } = watched(() => Promise.reject(new Error('gone')));
    await settled();
    expect(ends).toEqual(['refused']);
    expect(clock.pending).toBe(0);
  });

  test('does not blame another for its own pause', async () => {
    let answer = (): void => {};
    const ask = (): Promise<void> =>
      new Promise((resolve) => {
        answer = resolve;
      });
    const { clock, ends } = watched(ask);
    clock.skip(60 * PATIENCE_MS);
    clock.advance(0);
    // Timers come first when a process goes on, and only then what had arrived meanwhile.
    answer();
    await settled();
    for (let part = 0; part < 20; part++) {
      clock.advance(PATIENCE_MS / 4);
      answer();
      await settled();
    }
    expect(ends).toEqual([]);
  });
});
