import { describe, expect, test } from 'vitest';
import { abortError, HoldfastError } from './errors.ts';

describe('an error', () => {
  test('says rejected unless the outcome is unknown', () => {
    expect(new HoldfastError('stale', 'x').outcome).toBe('rejected');
    expect(new HoldfastError('unavailable', 'x', { outcome: 'unknown' }).outcome).toBe('unknown');
  });

  test('keeps its details and its cause apart', () => {
    const cause = new Error('below');
    const error = new HoldfastError('stale', 'x', { token: 33n, mark: 34n, cause });
    expect(error.details).toEqual({ token: 33n, mark: 34n });
    expect(error.cause).toBe(cause);
    expect('cause' in new HoldfastError('stale', 'x')).toBe(false);
  });

  test('is known across two copies of the package, and by its code', () => {
    const foreign = Object.assign(new Error('x'), { name: 'HoldfastError', code: 'stale' });
    expect(HoldfastError.is(foreign)).toBe(true);
    expect(HoldfastError.is(foreign, 'stale')).toBe(true);
    expect(HoldfastError.is(foreign, 'closed')).toBe(false);
  });

  test.each([[new Error('x')], [{ name: 'HoldfastError', code: 'stale' }], [undefined], ['x']])(
    'is not seen in %s',
    (other) => {
      expect(HoldfastError.is(other)).toBe(false);
    },
  );

  test('is made of anything thrown, with the outcome unknown', () => {
    const own = new HoldfastError('closed', 'x');
    expect(HoldfastError.from(own)).toBe(own);
    const abort = new DOMException('x', 'AbortError');
    expect(HoldfastError.from(abort)).toMatchObject({ code: 'cancelled', outcome: 'unknown' });
    expect(HoldfastError.from('text')).toMatchObject({ code: 'internal', message: 'text' });
  });

  test('of an abort is the reason if it is one of ours, a deadline, or a cancellation', () => {
    const own = new HoldfastError('session-lost', 'x');
    expect(abortError(AbortSignal.abort(own), 'unknown')).toBe(own);
    const timeout = new DOMException('x', 'TimeoutError');
    expect(abortError(AbortSignal.abort(timeout), 'unknown').code).toBe('deadline-exceeded');
    expect(abortError(AbortSignal.abort('stop'), 'rejected')).toMatchObject({
      code: 'cancelled',
      outcome: 'rejected',
      cause: 'stop',
    });
  });
});
