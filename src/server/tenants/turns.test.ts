import { beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../../base/clock.ts';
import { HoldfastError } from '../../model/errors.ts';
import { type Seat, Turns } from './turns.ts';

let clock: ManualClock;
let turns: Turns;
let ran: string[];
const BEAT_MS = 50;

beforeEach(() => {
  clock = new ManualClock();
  turns = new Turns(clock);
  ran = [];
});

const ask = (seat: Seat, name: string, costMs = 0.5): Promise<unknown> =>
  seat.run(costMs, async () => ran.push(name));

function askMuch(seat: Seat, name: string, times: number, costMs = 0.5): void {
  for (let at = 0; at < times; at++) void ask(seat, name, costMs).catch(() => {});
}

const count = (name: string): number => ran.filter((each) => each === name).length;

describe('a tenant that is alone', () => {
  test('waits for nobody, however much it asks for', () => {
    askMuch(turns.seat(), 'a', 5_000);
    expect(count('a')).toBe(5_000);
    expect(clock.pending).toBe(0);
  });

  test('is alone again a minute after the other was last seen, and what waits goes on', () => {
    const [noisy, other] = [turns.seat(), turns.seat()];
    void ask(other, 'other');
    askMuch(noisy, 'noisy', 1_000, 2_000);
    expect(count('noisy')).toBe(1);
    clock.advance(61_000);
    expect(count('noisy')).toBe(1_000);
    expect(clock.pending).toBe(0);
  });
});

describe('beside another', () => {
  test('who did much while it was alone is modest again soon after it became so', () => {
    const [busy, other] = [turns.seat(), turns.seat()];
    askMuch(busy, 'busy', 10_000);
    void ask(other, 'other');
    clock.advance(1_100);
    void ask(busy, 'busy');
    expect(count('busy')).toBe(10_001);
  });

  test('who has used up its share waits, and each beat carries a millisecond of it', () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 100, 0.25);
    // What it had saved up: 5 ms.
    const atOnce = count('noisy');
    expect(atOnce).toBeLessThanOrEqual(21);
    clock.advance(BEAT_MS);
    expect(count('noisy') - atOnce).toBe(4);
    clock.advance(BEAT_MS * 5);
    expect(count('noisy') - atOnce).toBe(24);
  });

  test('who asks for little goes at once, whatever waits', () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 500);
    for (let at = 0; at < 100; at++) {
      clock.advance(10);
      void ask(quiet, 'quiet');
      expect(count('quiet')).toBe(at + 2);
    }
  });

  test('two who wait take turns, one request of each', () => {
    const [first, second, quiet] = [turns.seat(), turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(first, 'first', 200);
    askMuch(second, 'second', 50);
    ran = [];
    clock.advance(BEAT_MS * 10);
    expect(count('first')).toBe(10);
    expect(count('second')).toBe(10);
  });

  test('a request that was dearer than a beat takes the next ones with it', () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 20, 10);
    const before = count('noisy');
    clock.advance(BEAT_MS);
    expect(count('noisy')).toBe(before + 1);
    clock.advance(BEAT_MS * 9);
    expect(count('noisy')).toBe(before + 1);
    clock.advance(BEAT_MS);
    expect(count('noisy')).toBe(before + 2);
  });

  test('what turned out dearer than reckoned is taken off the next beats', async () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 60);
    clock.advance(BEAT_MS);
    const before = count('noisy');
    noisy.charge(3);
    clock.advance(BEAT_MS * 3);
    expect(count('noisy')).toBe(before);
    clock.advance(BEAT_MS);
    expect(count('noisy')).toBeGreaterThan(before);
  });

  test('who held up the loop for long rests by the square of it, and others go on', () => {
    const [noisy, second, quiet] = [turns.seat(), turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 60);
    askMuch(second, 'second', 60);
    noisy.held(5);
    quiet.held(5);
    ran = [];
    clock.advance(BEAT_MS * 24);
    expect(count('noisy')).toBe(0);
    expect(count('second')).toBe(48);
    void ask(quiet, 'quiet');
    expect(count('quiet')).toBe(1);
    clock.advance(BEAT_MS * 2);
    expect(count('noisy')).toBeGreaterThan(0);
  });

  test('what nobody waits for any more is not done, and costs no turn', async () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 11);
    const caller = new AbortController();
    const work = async (): Promise<unknown> => ran.push('abandoned');
    const abandoned = Array.from({ length: 100 }, () => noisy.run(0.5, work, caller.signal));
    const settled = Promise.allSettled(abandoned);
    void ask(noisy, 'last');
    caller.abort();
    clock.advance(BEAT_MS);
    expect(count('last')).toBe(1);
    for (const { status } of await settled) expect(status).toBe('rejected');
    expect(count('abandoned')).toBe(0);
  });

  test('more than 1,024 that wait are refused, without effect', async () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 1_024 + 30);
    const refused = await ask(noisy, 'noisy').catch((error: unknown) => error);
    expect(HoldfastError.is(refused, 'resource-exhausted') && refused.outcome).toBe('rejected');
  });

  test('what waits when the server ends is told so, and nothing is left behind', async () => {
    const [noisy, quiet] = [turns.seat(), turns.seat()];
    void ask(quiet, 'quiet');
    askMuch(noisy, 'noisy', 50);
    const waiting = ask(noisy, 'last');
    turns.close();
    await expect(waiting).rejects.toMatchObject({ code: 'unavailable', outcome: 'rejected' });
    await expect(ask(noisy, 'late')).rejects.toMatchObject({ code: 'unavailable' });
    expect(clock.pending).toBe(0);
  });
});
