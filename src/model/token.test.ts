import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HoldfastError } from './errors.ts';
import {
  compareTokens,
  ERA_MAX,
  formatToken,
  makeToken,
  parseToken,
  REVISION_MAX,
  TOKEN_MAX,
  tokenEra,
  tokenRevision,
} from './token.ts';

const era = fc.integer({ min: 0, max: ERA_MAX });
const revision = fc.integer({ min: 1, max: REVISION_MAX });

describe('a token', () => {
  test('is the revision itself in the first era', () => {
    expect(makeToken(0, 33)).toBe(33n);
  });

  test('of a later era is above every token of an earlier one', () => {
    expect(makeToken(1, 1)).toBeGreaterThan(makeToken(0, REVISION_MAX));
    fc.assert(
      fc.property(era, revision, era, revision, (e1, r1, e2, r2) => {
        const expected = Math.sign(e1 - e2 || r1 - r2);
        expect(compareTokens(makeToken(e1, r1), makeToken(e2, r2))).toBe(expected);
      }),
    );
  });

  test('gives back its era and revision, and survives its written form', () => {
    fc.assert(
      fc.property(era, revision, (e, r) => {
        const token = makeToken(e, r);
        expect([tokenEra(token), tokenRevision(token)]).toEqual([e, r]);
        expect(parseToken(formatToken(token))).toBe(token);
        expect(token <= TOKEN_MAX).toBe(true);
      }),
    );
  });

  test('reaches exactly the largest positive 64-bit number', () => {
    expect(makeToken(ERA_MAX, REVISION_MAX)).toBe(TOKEN_MAX);
  });

  test.each([
    [-1, 1],
    [ERA_MAX + 1, 1],
    [0.5, 1],
    [0, 0],
    [0, REVISION_MAX + 1],
    [0, Number.NaN],
  ])('is never made of era %d and revision %d', (e, r) => {
    expect(() => makeToken(e, r)).toThrow(HoldfastError);
  });

  test.each([
    '',
    '0',
    '-1',
    '+1',
    '01',
    ' 1',
    '1 ',
    '1n',
    '1.0',
    '1e3',
    '0x1f',
    '１',
    '9223372036854775808',
    '99999999999999999999',
    0,
    -1,
    1.5,
    2 ** 53,
    0n,
    -1n,
    2n ** 63n,
    null,
    undefined,
    {},
    ['1'],
  ])('is not read from %s', (input) => {
    expect(() => parseToken(input)).toThrow(expect.objectContaining({ code: 'token-invalid' }));
  });
});
