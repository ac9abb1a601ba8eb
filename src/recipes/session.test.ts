import { describe, expect, test } from 'vitest';
import { text, utf8 } from '../base/bytes.ts';
import { ManualClock } from '../base/clock.ts';
import { seededRandom } from '../base/random.ts';
import type { Engine } from '../engine/contract.ts';
import { backOff } from './authority.ts';
import { decodeClaim, encodeClaim } from './claim.ts';
import { milliseconds } from './duration.ts';
import { Interruption } from './interruption.ts';
import { checkName, claimKey, leaseOfClaim, linePrefix, ownKey, standsIn } from './keys.ts';

describe('names and keys', () => {
  test('names that would escape their place are refused', () => {
    for (const name of ['', '/a', 'a/', 'a\0b', '.holdfast/x', 'x'.repeat(1_025)]) {
      expect(() => checkName(name)).toThrow(/is not a name/);
    }
    expect(checkName('orders/42')).toBe('orders/42');
  });

  test('names of our own keys are escaped, so that one is never below another', () => {
    expect(text(ownKey('ns/', 'group', 'a/b', 'x'))).toBe('ns/.holdfast/group/a%2Fb/x');
    expect(() => ownKey('', 'group', '\ud800')).toThrow(/well-formed/);
  });

  test('a claim names its lease, with or without a number', () => {
    const prefix = linePrefix('', 'a');
    expect(text(claimKey(prefix, 0x7an, 0))).toBe('a/7a');
    expect(leaseOfClaim(prefix, claimKey(prefix, 0x7an, 3))).toBe(0x7an);
    expect(leaseOfClaim(prefix, utf8('a/not-a-lease'))).toBeUndefined();
    expect(standsIn(prefix, utf8('a/7a'))).toBe(true);
    expect(standsIn(prefix, utf8('a/b/7a'))).toBe(false);
  });

  test('a claim of a foreign client is read as one without a name', () => {
    expect(decodeClaim(utf8(''))).toEqual({});
    expect(decodeClaim(utf8('{broken'))).toEqual({});
    const identity = { holder: 'h "quoted"', host: 'x', pid: 1 };
    const claim = decodeClaim(encodeClaim(identity, { sinceMs: 5, heldMs: 6, owner: 'o"' }));
    expect(claim).toMatchObject({ holder: 'h "quoted"', owner: 'o"', sinceMs: 5, heldMs: 6 });
  });
});

describe('durations', () => {
  test('numbers and text with a unit are read, everything else is refused', () => {
    expect(milliseconds('250ms', 'ttl')).toBe(250);
    expect(milliseconds('1.5s', 'ttl')).toBe(1_500);
    expect(milliseconds('2m', 'ttl')).toBe(120_000);
    for (const wrong of ['5', 's', '-1s', '1 day', Number.NaN, -1, Number.POSITIVE_INFINITY]) {
      expect(() => milliseconds(wrong, 'ttl')).toThrow(/ttl/);
    }
  });
});

describe('an interruption', () => {
  test('rejects what waits, and everything that comes later', async () => {
    const interruption = new Interruption();
    const waiting = interruption.race(new Promise(() => {}));
    interruption.interrupt(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    await expect(interruption.race(Promise.resolve(1))).rejects.toThrow('enough');
  });

  test('leaves no alarm and no listener behind', () => {
    const clock = new ManualClock();
    const { signal } = new AbortController();
    const interruption = new Interruption().onSignal(signal).onTime(clock, 5, () => new Error());
    expect(clock.pending).toBe(1);
    interruption.dispose();
    expect(clock.pending).toBe(0);
  });

  test('backing off waits longer each time and never beyond its bound', async () => {
    const clock = new ManualClock();
    const authority = { clock, random: seededRandom(1), namespace: '', engine: {} as Engine };
    for (const [attempt, most] of [
      [0, 10],
      [3, 80],
      [20, 1_000],
    ] as const) {
      const begun = clock.now();
      const waiting = backOff(authority, attempt);
      clock.advanceTo(clock.nextAlarmAt() ?? 0);
      await waiting;
      expect(clock.now() - begun).toBeGreaterThanOrEqual(most / 2);
      expect(clock.now() - begun).toBeLessThanOrEqual(most);
    }
  });
});
