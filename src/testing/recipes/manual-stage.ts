/** Time that the case moves: one alarm after another, and all that follows from it before the next. */
import type { ManualClock } from '../../base/clock.ts';
import type { Stage } from './world.ts';

export function passOn(clock: ManualClock): Stage['pass'] {
  return async (ms, settle) => {
    const target = clock.now() + ms;
    await settle();
    let next = clock.nextAlarmAt();
    while (next !== undefined && next <= target) {
      clock.advanceTo(next);
      await settle();
      next = clock.nextAlarmAt();
    }
    clock.advanceTo(target);
    await settle();
  };
}
