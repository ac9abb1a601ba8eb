/**
 * `holdfast/testing`: the engine contract in executable form, a model to compare engines with, and
 * an engine on a bad day to test your own code against. See docs/testing.md.
 *
 * Random histories need fast-check, an optional peer; they are in `holdfast/testing/histories`.
 */
export { type Clock, ManualClock } from '../base/clock.ts';
export { type Random, seededRandom } from '../base/random.ts';
export { conformanceCases } from './conformance/cases.ts';
export { ExpectationError } from './conformance/expect.ts';
export {
  type ConformanceOptions,
  type Framework,
  runCase,
  runConformance,
  skipReason,
} from './conformance/run.ts';
export type {
  ConformanceCase,
  Fixture,
  Need,
  Open,
  OpenOptions,
  Skip,
} from './conformance/suite.ts';
export { EngineWrapper } from './engine-wrapper.ts';
export {
  FaultGuard,
  type FaultOptions,
  FaultyEngine,
  faultyEngine,
  type PartitionOptions,
} from './faults.ts';
export { Follower } from './follower.ts';
export {
  checkLinearizable,
  type Linearization,
  type Operation,
  type SequentialModel,
} from './linearizable.ts';
export { acceptsRange, Model, type ModelLease, type ModelTxn, Refusal } from './model.ts';
export { PausableClock, type PausableClockOptions } from './pausable-clock.ts';
export {
  type RegisterInput,
  type RegisterOutput,
  type RegisterState,
  registerModel,
} from './register-model.ts';
export {
  type Change,
  type Replay,
  replayOf,
  type Validator,
  type Violation,
  validateWatch,
  WATCH_VALIDATORS,
  type WatchRecord,
} from './validators.ts';
export {
  type Call,
  delay,
  delayAnswer,
  dropAnswer,
  dropRequest,
  duplicate,
  failWith,
  onCall,
  onVerb,
  pass,
  type Requests,
  type Rule,
  sometimes,
  type Verb,
  type Verdict,
} from './verdicts.ts';
