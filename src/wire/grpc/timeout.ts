/** `grpc-timeout`: at most eight digits and a unit. */

const UNITS_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};
const FORM = /^([0-9]{1,8})([HMSmun])$/;

/** Milliseconds, or undefined when the value is malformed. */
export function parseTimeout(value: string): number | undefined {
  const found = FORM.exec(value);
  return found ? Number(found[1]) * UNITS_MS[found[2]!]! : undefined;
}

const DIGITS_MAX = 99_999_999;

/** Rounded up in the finest unit that fits, so that the peer never gives up before us. */
export function formatTimeout(ms: number): string {
  if (!(ms > 0)) return '0m';
  if (ms % 1_000 === 0 && ms / 1_000 <= DIGITS_MAX) return `${ms / 1_000}S`;
  if (ms <= DIGITS_MAX) return `${Math.ceil(ms)}m`;
  for (const unit of ['S', 'M', 'H']) {
    const count = Math.ceil(ms / UNITS_MS[unit]!);
    if (count <= DIGITS_MAX) return `${count}${unit}`;
  }
  return `${DIGITS_MAX}H`;
}
