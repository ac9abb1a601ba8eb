import { describe, expect, test } from 'vitest';
import { ERROR_CODES, type ErrorCode, HoldfastError } from '../../model/errors.ts';
import {
  errorOf,
  httpStatusOf,
  plainRpcError,
  rpcError,
  STATUS,
  type StatusName,
  statusOf,
  UNAVAILABLE,
  watchCancelError,
} from './status.ts';

const NAMES = Object.keys(STATUS) as StatusName[];

describe('the table of statuses', () => {
  test('has every text once', () => {
    const texts = NAMES.map((name) => STATUS[name].message);
    expect(new Set(texts).size).toBe(texts.length);
    expect(texts.every((message) => message.startsWith('etcdserver: '))).toBe(true);
  });

  test.each(NAMES)('%s goes out and comes back as the same error', (name) => {
    const sent = statusOf(rpcError(name));
    expect(sent).toEqual({ code: STATUS[name].code, message: STATUS[name].message });
    for (const code of [sent.code, 2]) {
      const back = errorOf({ ...sent, code }, 'read');
      expect([back.code, back.message, back.outcome]).toEqual([
        STATUS[name].error,
        sent.message,
        'rejected',
      ]);
    }
    // Seen by a proxy that answers with it again, or rebuilt by code and text alone.
    expect(statusOf(errorOf(sent, 'write'))).toEqual(sent);
    expect(statusOf(new HoldfastError(STATUS[name].error, sent.message))).toEqual(sent);
  });

  test('has an answer for every code of ours, with a text', () => {
    for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
      const status = statusOf(new HoldfastError(code, 'what happened'));
      expect(status.code).toBeGreaterThan(0);
      expect(status.message).not.toBe('');
    }
  });

  test('keeps what a foreign error says inside', () => {
    expect(statusOf(new TypeError('secret'))).toEqual({ code: 13, message: 'internal error' });
    expect(statusOf('secret')).toEqual({ code: 13, message: 'internal error' });
  });
});

describe('what a client may believe about a write', () => {
  test.each([
    [14, 'connection closed', 'unknown'],
    [4, 'context deadline exceeded', 'unknown'],
    [1, 'context canceled', 'unknown'],
    [13, 'stream terminated', 'unknown'],
    [2, 'something', 'unknown'],
    [14, 'etcdserver: request timed out', 'unknown'],
    [14, 'etcdserver: leader changed', 'unknown'],
    [14, 'etcdserver: no leader', 'rejected'],
    [3, 'bad', 'rejected'],
    [8, 'etcdserver: mvcc: database space exceeded', 'rejected'],
    [7, 'etcdserver: permission denied', 'rejected'],
    [99, 'what', 'unknown'],
  ])('code %i, %s: %s', (code, message, outcome) => {
    expect(errorOf({ code, message }, 'write').outcome).toBe(outcome);
    expect(errorOf({ code, message }, 'read').outcome).toBe('rejected');
  });
});

test('an error may bring its own code and text', () => {
  const error = plainRpcError(2, 'mutex: session is expired', 'session-lost');
  expect(statusOf(error)).toEqual({ code: 2, message: 'mutex: session is expired' });
  expect(errorOf(statusOf(error), 'read').code).toBe('session-lost');
});

test('a cancelled watch says why', () => {
  const reason = 'mvcc: required revision has been compacted';
  expect(watchCancelError(reason).code).toBe('compacted');
  expect(watchCancelError('etcdserver: permission denied').code).toBe('permission-denied');
  expect(watchCancelError('').code).toBe('unavailable');
});

test('codes have the HTTP status of the gateway', () => {
  expect([0, 3, 5, UNAVAILABLE, 16, 99].map(httpStatusOf)).toEqual([200, 400, 404, 503, 401, 500]);
});
