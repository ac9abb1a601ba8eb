export {
  isSealed,
  type SealClaims,
  type SealExpectation,
  type SealedToken,
} from '../model/seal.ts';
export { type PublicSealKey, readSealKeys, SEAL_KEYS_PATH } from '../model/seal-keys.ts';
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
export {
  type FetchedSealKeys,
  type FetchSealKeysOptions,
  fetchSealKeys,
} from './fetched-seal-keys.ts';
export type { Admitted, Claim, GuardOptions, Mark, Presented, Refused, SealRule } from './gate.ts';
export {
  generateSealKey,
  type SealKey,
  type SealKeySet,
  sealKeySet,
  sealToken,
  verifySeal,
} from './seal.ts';
