/** Time that passes by itself. A busy server gets more of it: what was asked comes before what is next. */
import { sleep } from '../../base/clock.ts';
import { systemClock } from '../../base/system.ts';
import type { Stage } from './world.ts';

/** A request may rightly wait for long, such as one that an engine never answers. */
const ANSWER_MS_MAX = 5_000;
const LOOK_MS = 5;

export const passReally: Stage['pass'] = async (ms, _settle, isIdle) => {
  await sleep(systemClock, ms);
  const giveUpAt = systemClock.now() + ANSWER_MS_MAX;
  while (!isIdle() && systemClock.now() < giveUpAt) await sleep(systemClock, LOOK_MS);
};
