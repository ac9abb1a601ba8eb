/**
 * A small set of expectations, so that the suite needs no test framework: a case holds when it
 * returns and fails when it throws. Bytes are shown as text in messages.
 */
import { printable } from '../../base/bytes.ts';
import { type ErrorCode, HoldfastError, type Outcome } from '../../model/errors.ts';

export class ExpectationError extends Error {
  override readonly name = 'ExpectationError';
}

export function fail(message: string): never {
  throw new ExpectationError(message);
}

export function expectTrue(condition: boolean, message: string): asserts condition {
  if (!condition) fail(message);
}

/** Deep equality over plain data, bytes included; absent and `undefined` fields are the same. */
export function expectEqual(actual: unknown, expected: unknown, what = 'the value'): void {
  if (!sameData(actual, expected)) {
    fail(`${what}: expected ${show(expected)}, got ${show(actual)}`);
  }
}

/** The rejection of `work`, which must be a HoldfastError with this code (or one of these). */
export async function expectError(
  work: Promise<unknown>,
  codes: ErrorCode | readonly ErrorCode[],
  outcome?: Outcome,
): Promise<HoldfastError> {
  const wanted = typeof codes === 'string' ? [codes] : codes;
  const error = await work.then(
    (answer) => fail(`expected ${wanted.join(' or ')}, got the answer ${show(answer)}`),
    (reason: unknown) => reason,
  );
  if (error instanceof ExpectationError) throw error;
  return expectHoldfastError(error, wanted, outcome);
}

export function expectHoldfastError(
  error: unknown,
  codes: ErrorCode | readonly ErrorCode[],
  outcome?: Outcome,
): HoldfastError {
  const wanted = typeof codes === 'string' ? [codes] : codes;
  if (!HoldfastError.is(error)) fail(`expected ${wanted.join(' or ')}, got ${String(error)}`);
  expectTrue(
    wanted.includes(error.code),
    `expected ${wanted.join(' or ')}, got ${error.code}: ${error.message}`,
  );
  if (outcome) expectEqual(error.outcome, outcome, `the outcome of ${error.code}`);
  return error;
}

export function sameData(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (a instanceof Uint8Array || b instanceof Uint8Array) {
    if (!(a instanceof Uint8Array && b instanceof Uint8Array)) return false;
    return a.length === b.length && a.every((byte, i) => byte === b[i]);
  }
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
  if (Array.isArray(a) && a.length !== (b as unknown[]).length) return false;
  const names = new Set([...Object.keys(x), ...Object.keys(y)]);
  return [...names].every((name) => sameData(x[name], y[name]));
}

/** Plain data on one line, for messages and printed histories. */
export function show(value: unknown): string {
  if (value instanceof Uint8Array) {
    return value.length > 64 ? `<${value.length} bytes>` : printable(value);
  }
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'string') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const fields = Object.entries(value).filter(([, field]) => field !== undefined);
    return `{${fields.map(([name, field]) => `${name}: ${show(field)}`).join(', ')}}`;
  }
  return String(value);
}
