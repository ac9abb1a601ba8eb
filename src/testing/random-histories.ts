/**
 * Random histories: the engine and the model must agree on every one of them.
 *
 * A history that fails is shrunk to a short one and reported with the seed that makes it again.
 * The only file that uses fast-check, which is an optional peer dependency of the package.
 */
import fc from 'fast-check';
import { show } from './conformance/expect.ts';
import type { Open } from './conformance/suite.ts';
import { runHistory } from './history-run.ts';
import {
  type CompareStep,
  type DeleteStep,
  KEY_COUNT,
  type OperationStep,
  type PutStep,
  type RangeStep,
  type ReadStep,
  type Step,
  type TxnStep,
  VALUE_COUNT,
  type WatchStep,
} from './history-steps.ts';

export interface AgreementOptions {
  readonly open: Open;
  readonly histories: number;
  /** Steps in each history. */
  readonly length: number;
  readonly seed: number;
  /** Leave out steps an engine cannot do: `compact` on a store shared with others. */
  readonly without?: readonly Step['type'][];
  /** Look for a short history once one has failed. @default true */
  readonly shrink?: boolean;
}

export interface Agreement {
  readonly agreed: boolean;
  readonly histories: number;
  readonly steps: number;
  readonly seed: number;
  /** The shortest failing history found, and what differs. */
  readonly counterexample?: { readonly steps: readonly Step[]; readonly difference: string };
}

export async function agreeWithModel(options: AgreementOptions): Promise<Agreement> {
  const { open, length, seed, shrink = true, without = [] } = options;
  let histories = 0;
  let steps = 0;
  let failed = false;
  const property = fc.asyncProperty(new HistoryArbitrary(length, without), async (history) => {
    if (!failed) {
      histories++;
      steps += history.length;
    }
    const fixture = await open({});
    try {
      await runHistory(fixture, history);
    } catch (error) {
      failed = true;
      throw error;
    } finally {
      await fixture.dispose();
    }
  });
  const numRuns = options.histories;
  const result = await fc.check(property, { seed, numRuns, endOnFailure: !shrink });
  if (!result.failed) return { agreed: true, histories, steps, seed };
  const error = result.errorInstance;
  const difference = error instanceof Error ? error.message : String(error);
  const counterexample = { steps: result.counterexample?.[0] ?? [], difference };
  return { agreed: false, histories, steps, seed, counterexample };
}

/** An agreement for people: what was compared, or what differs and how to see it again. */
export function describeAgreement(agreement: Agreement): string {
  const { histories, steps, seed, counterexample } = agreement;
  if (!counterexample) return `${histories} histories of ${steps} steps agree (seed ${seed})`;
  const lines = counterexample.steps.map((step, i) => `  ${i}. ${show(step)}`);
  return [`seed ${seed}: ${counterexample.difference}`, ...lines].join('\n');
}

/** Histories of one length that shrink to shorter ones. */
class HistoryArbitrary extends fc.Arbitrary<Step[]> {
  readonly #whole: fc.Arbitrary<Step[]>;
  readonly #parts: fc.Arbitrary<Step[]>;

  constructor(length: number, without: readonly Step['type'][]) {
    super();
    const step = steps(without);
    this.#whole = fc.array(step, { minLength: length, maxLength: length, size: 'max' });
    this.#parts = fc.array(step, { minLength: 0, maxLength: length, size: 'max' });
  }

  override generate(random: fc.Random, bias: number | undefined): fc.Value<Step[]> {
    return this.#whole.generate(random, bias);
  }

  override canShrinkWithoutContext(_value: unknown): _value is Step[] {
    return false;
  }

  override shrink(value: Step[], context: unknown): fc.Stream<fc.Value<Step[]>> {
    return this.#parts.shrink(value, context);
  }
}

const flag = (percent: number): fc.Arbitrary<boolean> =>
  fc.integer({ min: 1, max: 100 }).map((roll) => roll > 100 - percent);

function maybe<T>(arbitrary: fc.Arbitrary<T>, percent: number): fc.Arbitrary<T | undefined> {
  return fc.tuple(flag(percent), arbitrary).map(([there, value]) => (there ? value : undefined));
}

const key = fc.integer({ min: 0, max: KEY_COUNT - 1 });
/** How far back: mostly near, sometimes beyond what is readable, sometimes in the future. */
const back = fc.integer({ min: -2, max: 12 });
/** The same for what may also be asked at the edge of the readable past. */
const past = fc.oneof(
  { weight: 4, arbitrary: back },
  { weight: 1, arbitrary: fc.constant('bound' as const) },
);
/** Which lease: none, one of the last few granted, or one that never was. */
const lease = fc.integer({ min: -1, max: 5 });

const range: fc.Arbitrary<RangeStep> = fc.record({
  from: key,
  to: fc.oneof(
    { weight: 4, arbitrary: fc.constant(-1) },
    { weight: 3, arbitrary: fc.constant(KEY_COUNT) },
    { weight: 3, arbitrary: key },
  ),
});

const read: fc.Arbitrary<ReadStep> = fc
  .record({
    range,
    back: maybe(past, 40),
    limit: fc.integer({ min: 0, max: 4 }),
    sortTarget: maybe(fc.constantFrom('key', 'version', 'create', 'mod', 'value'), 50),
    sortOrder: maybe(fc.constantFrom('ascend', 'descend'), 50),
    keysOnly: flag(15),
    countOnly: flag(10),
    minMod: maybe(back, 15),
    maxMod: maybe(back, 15),
    minCreate: maybe(back, 15),
    maxCreate: maybe(back, 15),
  })
  .map(({ range: where, ...rest }) => ({ type: 'range', ...where, ...rest }));

const put: fc.Arbitrary<PutStep> = fc.record({
  type: fc.constant('put'),
  key,
  value: fc.integer({ min: 0, max: VALUE_COUNT - 1 }),
  lease: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: lease }),
  prevKv: flag(40),
  ignoreValue: flag(8),
  ignoreLease: flag(8),
});

/** A put that is refused or not whatever other puts do, since the order in a burst is open. */
const plainPut: fc.Arbitrary<PutStep> = put.map((step) => ({
  ...step,
  ignoreValue: false,
  ignoreLease: false,
}));

const remove: fc.Arbitrary<DeleteStep> = fc
  .record({ range, prevKv: flag(40) })
  .map(({ range: where, prevKv }) => ({ type: 'delete', ...where, prevKv }));

/** Whether one key exists: what most transactions ask. */
const existence: fc.Arbitrary<CompareStep> = fc.record({
  from: key,
  to: fc.constant(-1),
  target: fc.constantFrom('version', 'create'),
  result: fc.constantFrom('=', '!='),
  value: fc.constant(0),
});

const anyCompare: fc.Arbitrary<CompareStep> = fc
  .record({
    range,
    target: fc.constantFrom('version', 'create', 'mod', 'lease', 'value'),
    result: fc.constantFrom('=', '!=', '<', '>'),
    value: fc.integer({ min: 0, max: 4 }),
  })
  .map(({ range: where, ...rest }) => ({ ...where, ...rest }));

const compare: fc.Arbitrary<CompareStep> = fc.oneof(existence, anyCompare);

function txn(depth: number): fc.Arbitrary<TxnStep> {
  const operation: fc.Arbitrary<OperationStep> = fc.oneof(
    { weight: 5, arbitrary: put },
    { weight: 2, arbitrary: remove },
    { weight: 3, arbitrary: read },
    ...(depth > 0 ? [{ weight: 2, arbitrary: fc.constant(0).chain(() => txn(depth - 1)) }] : []),
  );
  return fc.record({
    type: fc.constant('txn'),
    compare: fc.array(compare, { maxLength: 2 }),
    success: fc.array(operation, { maxLength: 4 }),
    failure: fc.array(operation, { maxLength: 3 }),
  });
}

/** A put or delete alone, which is how most keys change. */
const single: fc.Arbitrary<TxnStep> = fc
  .oneof({ weight: 3, arbitrary: put }, { weight: 1, arbitrary: remove })
  .map((operation) => ({ type: 'txn', compare: [], success: [operation], failure: [] }));

const watch: fc.Arbitrary<WatchStep> = fc
  .record({
    range,
    back: maybe(past, 60),
    prevKv: flag(50),
    noPut: flag(10),
    noDelete: flag(10),
  })
  .map(({ range: where, ...rest }) => ({ type: 'watch', ...where, ...rest }));

function steps(without: readonly Step['type'][]): fc.Arbitrary<Step> {
  const index = fc.integer({ min: 0, max: 7 });
  const of = <T extends string>(type: T) => fc.constant(type);
  const all: readonly [Step['type'], number, fc.Arbitrary<Step>][] = [
    ['txn', 30, single],
    ['txn', 16, txn(2)],
    ['range', 14, read],
    ['burst', 3, fc.record({ type: of('burst'), puts: fc.array(plainPut, { maxLength: 6 }) })],
    [
      'grant',
      6,
      fc.record({
        type: of('grant'),
        ttlMs: fc.constantFrom(2_000, 5_000, 30_000),
        again: flag(20),
      }),
    ],
    ['keepAlive', 3, fc.record({ type: of('keepAlive'), lease })],
    ['revoke', 2, fc.record({ type: of('revoke'), lease })],
    ['leaseInfo', 2, fc.record({ type: of('leaseInfo'), lease })],
    [
      'advance',
      5,
      fc.record({ type: of('advance'), ms: fc.constantFrom(1_000, 2_000, 4_000, 20_000) }),
    ],
    ['watch', 5, watch],
    ['progress', 2, fc.record({ type: of('progress'), watch: index })],
    ['unwatch', 2, fc.record({ type: of('unwatch'), watch: index })],
    ['drain', 4, fc.record({ type: of('drain') })],
    [
      'compact',
      4,
      fc.record({ type: of('compact'), back: fc.integer({ min: -1, max: 8 }), physical: flag(50) }),
    ],
    ['reopen', 1, fc.record({ type: of('reopen') })],
  ];
  return fc.oneof(
    ...all
      .filter(([type]) => !without.includes(type))
      .map(([, weight, arbitrary]) => ({ weight, arbitrary })),
  );
}
