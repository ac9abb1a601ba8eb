/** What is counted of locks and their like, under the names that dashboards use. */
import type { Metrics } from '../base/metrics.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { Observer } from './observation.ts';

export interface LockFigures {
  asked(): void;
  answered(result: 'acquired' | 'busy' | ErrorCode, waitMs: number): void;
  ended(heldMs: number): void;
}

/** Never by name: there are as many names as there are locks. */
export function lockFigures(metrics: Metrics): LockFigures {
  let waiters = 0;
  const total = metrics.counter('holdfast_acquire_total', 'Attempts to acquire, by their result.', [
    { result: 'acquired' },
  ]);
  const wait = metrics
    .histogram('holdfast_acquire_wait_seconds', 'Time until an attempt to acquire was answered.')
    .series({});
  const held = metrics
    .histogram('holdfast_hold_seconds', 'Time between a grant and its end.')
    .series({});
  metrics.gauge('holdfast_waiters', 'Attempts to acquire without an answer yet.', () => waiters);
  return {
    asked() {
      waiters++;
    },
    answered(result, waitMs) {
      waiters--;
      total.add({ result });
      wait.observe(waitMs / 1_000);
    },
    ended: (heldMs) => held.observe(heldMs / 1_000),
  };
}

/** The same for a client, which also knows its renewals. */
export function observerOf(metrics: Metrics): Required<Observer> {
  const figures = lockFigures(metrics);
  const lost = metrics.counter('holdfast_lost_total', 'Grants that ended otherwise than released.');
  const late = metrics.counter(
    'holdfast_renew_late_total',
    'Renewals confirmed with less than a third of the TTL left, for each thing held.',
  );
  return {
    onAsk: () => figures.asked(),
    onAnswer: ({ result, waitMs }) => figures.answered(result, waitMs),
    onEnd: ({ reason, heldMs }) => {
      figures.ended(heldMs);
      if (reason !== 'released' && reason !== 'closed') lost.add();
    },
    onRenewal: ({ late: isLate }) => {
      if (isLate) late.add();
    },
  };
}
