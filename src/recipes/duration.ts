/** Durations as people write them: milliseconds, or a number with a unit (`'250ms'`, `'15s'`). */
import { HoldfastError } from '../model/errors.ts';

/** Milliseconds, or text such as `'250ms'`, `'15s'`, `'2m'`, `'1h'`. */
export type Duration = number | string;

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

export function milliseconds(duration: Duration, what: string): number {
  const ms = typeof duration === 'number' ? duration : parse(duration);
  if (ms !== undefined && Number.isFinite(ms) && ms >= 0) return ms;
  throw new HoldfastError(
    'invalid-argument',
    `${what}: expected milliseconds or text such as "15s", got ${JSON.stringify(duration)}`,
  );
}

function parse(duration: string): number | undefined {
  const match = /^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)$/.exec(duration);
  return match ? Number(match[1]) * UNITS_MS[match[2]!]! : undefined;
}
