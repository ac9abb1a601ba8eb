export {
  admit,
  admitReader,
  admitWriter,
  NO_MARK,
  type Rule,
  refusalText,
  type SharedMarks,
  type SharedVerdict,
  type Verdict,
} from './fence.ts';
export type { Admitted, Claim, GuardOptions, Mark, Presented, Refused } from './gate.ts';
export {
  generateSealKey,
  isSealed,
  type SealClaims,
  type SealExpectation,
  type SealKey,
  type SealKeySet,
  sealKeySet,
  sealToken,
  verifySeal,
} from './seal.ts';
