/**
 * Metrics of a program that locks and guards, in the Prometheus text format.
 *
 *   const metrics = holdfastMetrics();
 *   const hf = await connect('lmdb:./locks', { observer: metrics.observer });
 *   const orders = await FencedDirectory.open('./orders', metrics.guard);
 *   response.end(metrics.render());                     // at /metrics
 *
 * Whoever has a registry of his own takes the hooks instead: `Observer` and `GuardOptions`.
 */
import { Metrics } from './base/metrics.ts';
import { type GuardHooks, guardFigures } from './guard/figures.ts';
import { observerOf } from './recipes/figures.ts';
import type { Observer } from './recipes/observation.ts';

export type { GuardHooks } from './guard/figures.ts';
export type { Answered, Asked, Ended, Observer, RecipeKind } from './recipes/observation.ts';
export type { Renewal } from './recipes/renewals.ts';

export interface HoldfastMetrics {
  /** For `connect`. */
  readonly observer: Required<Observer>;
  /** For the options of any guard. */
  readonly guard: GuardHooks;
  /** The text format, version 0.0.4. */
  render(): string;
}

export function holdfastMetrics(): HoldfastMetrics {
  const metrics = new Metrics();
  const observer = observerOf(metrics);
  const guard = guardFigures(metrics);
  return { observer, guard, render: () => metrics.render() };
}
