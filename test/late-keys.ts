/** Keys that are not there until a guard has asked for them, as fetched ones are after a rotation. */
import type { SealRule } from '../src/guard/gate.ts';
import { type SealKeySet, sealKeySet } from '../src/guard/seal.ts';

export interface LateKeys {
  readonly keys: SealRule['keys'];
  /** How often a guard asked. */
  asked(): number;
}

export function lateKeys(behind: SealKeySet): LateKeys {
  let there = sealKeySet([]).verifiers;
  let asked = 0;
  const keys = {
    signer: undefined,
    get verifiers() {
      return there;
    },
    async ready() {
      asked++;
      await Promise.resolve();
      there = behind.verifiers;
    },
  };
  return { keys, asked: () => asked };
}
