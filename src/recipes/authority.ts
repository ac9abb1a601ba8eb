/** What every recipe stands on: an engine, time, chance, and the prefix of its keys. */
import { text } from '../base/bytes.ts';
import type { Clock } from '../base/clock.ts';
import { sleep } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import type { Engine } from '../engine/contract.ts';
import { HoldfastError } from '../model/errors.ts';

export interface Authority {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  /** Goes before every key. */
  readonly namespace: string;
}

/** Who stands behind a claim; written beside it for people to read. */
export interface Identity {
  readonly holder: string;
  readonly host: string;
  readonly pid: number;
}

/**
 * Errors that say nothing about the request itself. All requests of recipes may be sent again,
 * because each finds out from its own key whether it happened before.
 */
export function mayPass(error: unknown): boolean {
  return (
    HoldfastError.is(error, 'unavailable') ||
    HoldfastError.is(error, 'deadline-exceeded') ||
    HoldfastError.is(error, 'resource-exhausted') ||
    (HoldfastError.is(error, 'cancelled') && error.outcome === 'unknown')
  );
}

/** A watch that ended this way can be resumed, after reading anew if need be. */
export function mayResume(error: unknown): boolean {
  return (
    mayPass(error) ||
    HoldfastError.is(error, 'cancelled') ||
    HoldfastError.is(error, 'compacted') ||
    HoldfastError.is(error, 'future-revision') ||
    HoldfastError.is(error, 'watch-overrun')
  );
}

const BACKOFF_MS_MIN = 10;
const BACKOFF_MS_MAX = 1_000;

/** Waits before attempt `attempt + 1`: doubling, with jitter so that clients do not march in step. */
export function backOff(
  authority: Authority,
  attempt: number,
  maxMs: number = BACKOFF_MS_MAX,
): Promise<void> {
  const ceiling = Math.min(maxMs, BACKOFF_MS_MIN * 2 ** Math.min(attempt, 10));
  return sleep(authority.clock, ceiling * (0.5 + authority.random.next() / 2));
}

/** A JSON object out of stored bytes; `undefined` for anything else (a foreign client's value). */
export function parseRecord(value: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  if (value.length === 0 || value[0] !== 0x7b) return undefined;
  try {
    const parsed: unknown = JSON.parse(text(value));
    return typeof parsed === 'object' && parsed !== null
      ? (parsed as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
