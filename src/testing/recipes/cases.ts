/** Every recipe's promises, as cases that run on any engine. */
import { electionCases } from './elections.ts';
import { lockCases } from './locks.ts';
import { otherCases } from './others.ts';
import { sessionCases } from './sessions.ts';
import { sharedLockCases } from './shared-locks.ts';
import type { RecipeCase } from './world.ts';

export function recipeCases(): readonly RecipeCase[] {
  return [
    ...sessionCases(),
    ...lockCases(),
    ...sharedLockCases(),
    ...electionCases(),
    ...otherCases(),
  ];
}
