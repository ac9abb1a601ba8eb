/**
 * The one file of `base` that touches the machine: the real clock and the real source of chance.
 * Pure rooms never import it; whoever composes a program passes what it makes.
 */
import { getRandomValues } from 'node:crypto';
import { uptime } from 'node:os';
import { type Clock, sleepAwareClock } from './clock.ts';
import { fromUint32, type Random } from './random.ts';

export const systemClock: Clock = sleepAwareClock({
  monotonicMs: () => performance.now(),
  uptimeMs: () => uptime() * 1_000,
  wallMs: () => Date.now(),
  setTimer: (delayMs, fire) => {
    const timer = setTimeout(fire, delayMs);
    return () => clearTimeout(timer);
  },
});

export const systemRandom: Random = fromUint32(() => getRandomValues(new Uint32Array(1))[0]!);
