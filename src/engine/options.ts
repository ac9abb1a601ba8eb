/** What all embedded engines let their users choose, and its defaults. */
import type { Clock } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import { systemClock, systemRandom } from '../base/system.ts';
import type { LocalEngineOptions } from '../mvcc/local-engine.ts';

export interface EmbeddedOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  /** Bytes in use beyond which puts and lease grants are refused. @default 8 GiB; 0: no quota */
  readonly quotaBytes?: number;
  /** Revisions of history kept. @default 100,000; 0: keep all until told to compact */
  readonly retainRevisions?: number;
  /** How often a quiet watch that asked for progress hears of it. @default 10 minutes */
  readonly progressIntervalMs?: number;
  /** Shorter leases are raised to this. @default 100 */
  readonly leaseTtlMsMin?: number;
  /** Keys and values of one request. @default 1.5 MiB */
  readonly requestBytesMax?: number;
  /** Operations in one transaction. @default 128 */
  readonly operationsMax?: number;
}

/** Goes with every answer to `status`. */
export const VERSION = '0.1.0';

/** Everything `LocalEngine.open` wants beside the store. */
export function embeddedOptions(
  options: EmbeddedOptions,
  keyBytesMax: number,
): Omit<LocalEngineOptions, 'store' | 'term'> {
  return {
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    quotaBytes: options.quotaBytes ?? 8 * 2 ** 30,
    retainRevisions: options.retainRevisions ?? 100_000,
    progressIntervalMs: options.progressIntervalMs ?? 600_000,
    leaseTtlMsMin: options.leaseTtlMsMin ?? 100,
    limits: {
      keyBytesMax,
      requestBytesMax: options.requestBytesMax ?? 1.5 * 2 ** 20,
      operationsMax: options.operationsMax ?? 128,
    },
    version: VERSION,
  };
}
