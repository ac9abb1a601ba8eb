import { describe, expect, test } from 'vitest';
import { ManualClock, sleep, sleepAwareClock, waitUntil } from './clock.ts';
import { systemClock } from './system.ts';

describe('the manual clock', () => {
  test('alarms fire in order of time, then of registration, each at its own time', () => {
    const clock = new ManualClock();
    const fired: [string, number][] = [];
    clock.wakeAt(20, () => fired.push(['late', clock.now()]));
    clock.wakeAt(10, () => fired.push(['first', clock.now()]));
    clock.wakeAt(10, () => fired.push(['second', clock.now()]));
    clock.advance(15);
    expect(fired).toEqual([
      ['first', 10],
      ['second', 10],
    ]);
    clock.advance(5);
    expect(fired.at(-1)).toEqual(['late', 20]);
    expect(clock.pending).toBe(0);
  });

  test('an alarm set while another fires still fires within the same advance', () => {
    const clock = new ManualClock();
    let fired = 0;
    clock.wakeAt(10, () => clock.wakeAt(clock.now() + 10, () => fired++));
    clock.advance(20);
    expect(fired).toBe(1);
  });

  test('a cancelled alarm never fires', () => {
    const clock = new ManualClock();
    let fired = 0;
    clock.wakeAt(10, () => fired++)();
    clock.advance(100);
    expect(fired).toBe(0);
  });

  test('skipped time fires nothing until time is advanced again', () => {
    const clock = new ManualClock();
    const seen: number[] = [];
    clock.wakeAt(10, () => seen.push(clock.now()));
    clock.skip(1_000);
    expect(seen).toEqual([]);
    clock.advance(0);
    expect(seen).toEqual([1_000]);
  });

  test('setting the wall clock moves no deadline', () => {
    const clock = new ManualClock({ wallMs: 5_000 });
    clock.advance(10);
    clock.setWall(1);
    expect([clock.now(), clock.wall()]).toEqual([10, 1]);
  });

  test('a wait ends at its time, or with the reason of the abort and no alarm left', async () => {
    const clock = new ManualClock();
    const done = sleep(clock, 10).then(() => 'slept');
    clock.advance(10);
    expect(await done).toBe('slept');
    const abort = new AbortController();
    const aborted = waitUntil(clock, 1_000, abort.signal);
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    expect(clock.pending).toBe(0);
    await expect(sleep(clock, 1, abort.signal)).rejects.toThrow('enough');
  });
});

/** A machine whose three clocks move as told. */
function machine() {
  const at = { monotonic: 1_000, uptime: 50_000, wall: 1_700_000_000_000 };
  const timers: { delay: number; fire: () => void }[] = [];
  const clock = sleepAwareClock({
    monotonicMs: () => at.monotonic,
    uptimeMs: () => at.uptime,
    wallMs: () => at.wall,
    setTimer: (delay, fire) => {
      const timer = { delay, fire };
      timers.push(timer);
      return () => timers.splice(timers.indexOf(timer), 1);
    },
  });
  const run = (ms: number): void => {
    at.monotonic += ms;
    at.uptime += ms;
    at.wall += ms;
  };
  const suspend = (ms: number): void => {
    at.uptime += ms;
    at.wall += ms;
  };
  return { at, clock, timers, run, suspend };
}

describe('the clock that counts sleep', () => {
  test('reads as the monotonic clock while the machine is awake', () => {
    const { clock, run } = machine();
    run(5_000);
    expect(clock.now()).toBe(5_000);
  });

  test('counts a suspension at the first reading after it', () => {
    const { clock, run, suspend } = machine();
    run(100);
    clock.now();
    suspend(60_000);
    expect(clock.now()).toBe(60_100);
  });

  test('counts a suspension that the wall clock hides, within a second', () => {
    const { at, clock, run, suspend } = machine();
    clock.now();
    suspend(60_000);
    at.wall -= 60_000;
    run(1_001);
    expect(clock.now()).toBe(61_001);
  });

  test('does not follow the wall clock, forward or back', () => {
    const { at, clock, run } = machine();
    run(10);
    at.wall += 3_600_000;
    expect(clock.now()).toBe(10);
    at.wall -= 7_200_000;
    run(10);
    expect(clock.now()).toBe(20);
  });

  test('takes the coarseness of the uptime for noise, and never goes back', () => {
    const { at, clock, run } = machine();
    let last = 0;
    for (let i = 0; i < 200; i++) {
      run(97);
      at.uptime += i % 2 ? 9 : -9;
      const now = clock.now();
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
    }
    expect(last).toBe(200 * 97);
  });

  test('a timer that comes early waits for the rest, a long wait is cut into pieces', () => {
    const { clock, timers, run } = machine();
    let woken = 0;
    const fire = (): void => timers.shift()?.fire();
    clock.wakeAt(100_000, () => woken++);
    expect(timers[0]?.delay).toBe(60_000);
    run(60_000);
    fire();
    expect([woken, timers[0]?.delay]).toEqual([0, 40_000]);
    run(39_000);
    fire();
    expect([woken, timers[0]?.delay]).toEqual([0, 1_000]);
    run(1_000);
    fire();
    expect([woken, timers.length]).toEqual([1, 0]);
  });

  test('a cancelled wake leaves no timer behind', () => {
    const { clock, timers } = machine();
    clock.wakeAt(1_000, () => {})();
    expect(timers).toEqual([]);
  });

  test('the machine itself: time passes and a wake comes no sooner than asked', async () => {
    const start = systemClock.now();
    await sleep(systemClock, 20);
    expect(systemClock.now() - start).toBeGreaterThanOrEqual(20);
    expect(Math.abs(systemClock.wall() - Date.now())).toBeLessThan(1_000);
  });
});
