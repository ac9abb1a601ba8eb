/** What is counted of guards. A refusal is the headline: it is what the whole thing is for. */
import type { Metrics } from '../base/metrics.ts';
import type { Admitted, GuardOptions, Refused } from './gate.ts';

export type GuardHooks = Required<Pick<GuardOptions, 'onAdmit' | 'onRefuse'>>;

/** The guards there are, at zero from the start. */
const GUARDS = ['cache', 'file', 'http', 'job', 'object', 'postgres', 'redis', 'stream'].map(
  (guard) => ({ guard }),
);

/** By kind of guard; resources are too many for a label. */
export function guardFigures(metrics: Metrics): GuardHooks {
  const rejected = metrics.counter(
    'holdfast_guard_rejected_total',
    'Operations a guard refused: stale, invalid, or without the seal it demands.',
    GUARDS,
  );
  const admitted = metrics.counter(
    'holdfast_guard_admitted_total',
    'Operations a guard admitted.',
    GUARDS,
  );
  return {
    onAdmit: ({ guard }: Admitted) => admitted.add({ guard }),
    onRefuse: ({ guard }: Refused) => rejected.add({ guard }),
  };
}
