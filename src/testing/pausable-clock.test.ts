import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { PausableClock } from './pausable-clock.ts';

describe('a pausable clock', () => {
  it('is the clock behind it as long as nobody touches it', () => {
    const base = new ManualClock({ nowMs: 100 });
    const clock = new PausableClock(base);
    const fired: number[] = [];
    clock.wakeAt(150, () => fired.push(clock.now()));
    clock.wakeAt(120, () => fired.push(clock.now()));
    const cancel = clock.wakeAt(130, () => fired.push(-1));
    cancel();
    base.advance(60);
    expect([fired, clock.now(), clock.pending, base.pending]).toEqual([[120, 150], 160, 0, 0]);
  });

  it('frozen, its time stands and no timer fires; going on, all late ones do, in order', () => {
    const base = new ManualClock();
    const clock = new PausableClock(base);
    const fired: string[] = [];
    clock.wakeAt(30, () => fired.push('b'));
    clock.wakeAt(20, () => fired.push('a'));
    clock.wakeAt(500, () => fired.push('later'));
    base.advance(10);
    clock.pause();
    base.advance(100);
    expect([clock.now(), clock.paused, fired]).toEqual([10, true, []]);
    clock.resume();
    expect([clock.now(), clock.paused, fired]).toEqual([110, false, ['a', 'b']]);
    base.advance(390);
    expect(fired).toEqual(['a', 'b', 'later']);
  });

  it('a late timer that an earlier one cancels does not fire', () => {
    const base = new ManualClock();
    const clock = new PausableClock(base);
    const fired: string[] = [];
    clock.wakeAt(10, () => {
      fired.push('first');
      cancel();
    });
    const cancel = clock.wakeAt(20, () => fired.push('second'));
    clock.pause();
    base.advance(50);
    clock.resume();
    expect(fired).toEqual(['first']);
  });

  it('runs fast or slow within the declared drift, and its timers with it', () => {
    const base = new ManualClock();
    const clock = new PausableClock(base, { driftMax: 0.1, rate: 1.1 });
    const fired: number[] = [];
    clock.wakeAt(110, () => fired.push(base.now()));
    clock.wakeAt(200, () => fired.push(base.now()));
    base.advance(100);
    expect(clock.now()).toBeCloseTo(110, 6);
    expect(fired[0]).toBeCloseTo(100, 6);
    clock.setRate(0.9);
    base.advance(100);
    expect(clock.now()).toBeCloseTo(200, 6);
    expect(fired[1]).toBeCloseTo(200, 6);
    expect(() => clock.setRate(1.2)).toThrow(RangeError);
    expect(() => clock.setRate(Number.NaN)).toThrow(RangeError);
  });

  it('never goes back, whatever happens to its rate', () => {
    const base = new ManualClock();
    const clock = new PausableClock(base, { driftMax: 0.5 });
    let last = clock.now();
    for (let i = 0; i < 200; i++) {
      base.advance((i % 7) / 3);
      clock.setRate(1 + ((i % 11) - 5) / 10);
      if (i % 13 === 0) clock.pause();
      if (i % 13 === 5) clock.resume();
      expect(clock.now()).toBeGreaterThanOrEqual(last);
      last = clock.now();
    }
  });

  it('tells who waits when it runs again', async () => {
    const clock = new PausableClock(new ManualClock());
    await clock.whenRunning();
    clock.pause();
    let running = false;
    const waiting = clock.whenRunning().then(() => {
      running = true;
    });
    await Promise.resolve();
    expect(running).toBe(false);
    clock.resume();
    await waiting;
  });
});
