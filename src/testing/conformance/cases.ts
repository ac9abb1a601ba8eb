/** All cases of the suite, in the order a reader would ask for them. */
import { compareCases } from './compare.ts';
import { keepingCases } from './keeping.ts';
import { leaseCases } from './lease.ts';
import { rangeCases } from './range.ts';
import type { ConformanceCase } from './suite.ts';
import { transactionCases } from './transaction.ts';
import { watchCases } from './watch.ts';
import { watchEndCases } from './watch-end.ts';
import { writeCases } from './write.ts';

export function conformanceCases(): readonly ConformanceCase[] {
  return [
    ...rangeCases(),
    ...writeCases(),
    ...transactionCases(),
    ...compareCases(),
    ...leaseCases(),
    ...watchCases(),
    ...watchEndCases(),
    ...keepingCases(),
  ];
}
