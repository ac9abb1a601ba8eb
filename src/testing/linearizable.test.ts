import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkLinearizable, type Operation, type SequentialModel } from './linearizable.ts';
import { type RegisterInput, type RegisterOutput, registerModel } from './register-model.ts';

type Input = { readonly kind: 'read' } | { readonly kind: 'write'; readonly value: number };
type Output = { readonly value?: number };

/** A number that starts at 0, without revisions. */
const register: SequentialModel<number, Input, Output> = {
  initial: 0,
  step: (state, input, output) => {
    if (input.kind === 'write') return input.value;
    return output === undefined || output.value === state ? state : undefined;
  },
  key: String,
};

const write = (value: number, callMs: number, returnMs: number): Operation<Input, Output> => ({
  input: { kind: 'write', value },
  output: {},
  callMs,
  returnMs,
});
const lostWrite = (value: number, callMs: number): Operation<Input, Output> => ({
  input: { kind: 'write', value },
  callMs,
  returnMs: Number.POSITIVE_INFINITY,
});
const read = (value: number, callMs: number, returnMs: number): Operation<Input, Output> => ({
  input: { kind: 'read' },
  output: { value },
  callMs,
  returnMs,
});

const verdict = (...history: Operation<Input, Output>[]): boolean =>
  checkLinearizable(history, register).linearizable;

describe('histories with a known verdict', () => {
  it('accepts an empty history and one after the other', () => {
    expect(verdict()).toBe(true);
    expect(verdict(write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7))).toBe(true);
  });

  it('accepts either value while a write is under way', () => {
    expect(verdict(write(1, 0, 10), read(0, 1, 2), read(1, 3, 4))).toBe(true);
    expect(verdict(write(1, 0, 10), read(1, 1, 2), read(1, 3, 4))).toBe(true);
  });

  it('refuses a value that goes back while a write is under way', () => {
    expect(verdict(write(1, 0, 10), read(1, 1, 2), read(0, 3, 4))).toBe(false);
  });

  it('refuses a stale read after a write was answered', () => {
    expect(verdict(write(1, 0, 1), read(0, 2, 3))).toBe(false);
  });

  it('refuses a value nobody wrote, and a lost update', () => {
    expect(verdict(read(7, 0, 1))).toBe(false);
    expect(verdict(write(1, 0, 1), write(2, 2, 3), read(1, 4, 5))).toBe(false);
  });

  it('lets a write with unknown outcome happen late, early or never, but only once', () => {
    expect(verdict(lostWrite(1, 0), read(0, 1, 2))).toBe(true);
    expect(verdict(lostWrite(1, 0), read(0, 1, 2), read(1, 3, 4))).toBe(true);
    expect(verdict(lostWrite(1, 5), read(1, 1, 2))).toBe(false);
    const twice = [lostWrite(1, 0), read(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)];
    expect(verdict(...twice)).toBe(false);
  });

  it('says how far it came and what could not follow', () => {
    const stale = read(0, 2, 3);
    const result = checkLinearizable([write(1, 0, 1), stale], register);
    expect(result).toMatchObject({ linearizable: false, stuck: [stale] });
  });
});

describe('against every order there is', () => {
  const operation = fc
    .record({
      input: fc.oneof(
        fc.record({ kind: fc.constant('read' as const) }),
        fc.record({ kind: fc.constant('write' as const), value: fc.integer({ min: 0, max: 2 }) }),
      ),
      value: fc.integer({ min: 0, max: 2 }),
      callMs: fc.integer({ min: 0, max: 8 }),
      lasts: fc.integer({ min: 0, max: 5 }),
      known: fc.integer({ min: 0, max: 4 }).map((roll) => roll > 0),
    })
    .map(({ input, value, callMs, lasts, known }): Operation<Input, Output> => {
      if (!known) return { input, callMs, returnMs: Number.POSITIVE_INFINITY };
      const output = input.kind === 'read' ? { value } : {};
      return { input, output, callMs, returnMs: callMs + lasts };
    });

  it('agrees with brute force on small histories', () => {
    let good = 0;
    let bad = 0;
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 6 }), (history) => {
        const expected = bruteForce(history, 0);
        if (expected) good++;
        else bad++;
        expect(verdict(...history)).toBe(expected);
        const short = checkLinearizable(history, { ...register, replaces: true });
        expect(short.linearizable).toBe(expected);
      }),
      { numRuns: 3_000, seed: 20_251_120 },
    );
    expect(Math.min(good, bad)).toBeGreaterThan(300);
  });
});

/** Tries every order of the known operations with any of the unknown ones in between. */
function bruteForce(left: readonly Operation<Input, Output>[], state: number): boolean {
  if (left.every(({ output }) => output === undefined)) return true;
  return left.some((next) => {
    const rest = left.filter((other) => other !== next);
    const tooEarly = rest.some((o) => o.output !== undefined && o.returnMs < next.callMs);
    const after = register.step(state, next.input, next.output);
    return !tooEarly && after !== undefined && bruteForce(rest, after);
  });
}

describe('keys with revisions', () => {
  const at = (
    input: RegisterInput,
    output: RegisterOutput | undefined,
    callMs: number,
    returnMs: number,
  ): Operation<RegisterInput, RegisterOutput> =>
    output ? { input, output, callMs, returnMs } : { input, callMs, returnMs };
  const check = (...history: Operation<RegisterInput, RegisterOutput>[]): boolean =>
    checkLinearizable(history, registerModel).linearizable;

  it('refuses revisions that run against real time', () => {
    const a = at({ kind: 'write', key: 'k', value: 'a' }, { revision: 5 }, 0, 1);
    const b = at({ kind: 'write', key: 'k', value: 'b' }, { revision: 4 }, 2, 3);
    expect(check(a, b)).toBe(false);
    expect(check({ ...a, returnMs: 9 }, b)).toBe(true);
  });

  it('finds the place of a write whose answer was lost', () => {
    const lost = at({ kind: 'write', key: 'k', value: 'x' }, undefined, 0, Infinity);
    const seen = at({ kind: 'read', key: 'k' }, { revision: 9, value: 'x', modRevision: 7 }, 5, 6);
    const again = at({ kind: 'read', key: 'k' }, { revision: 9, value: 'x', modRevision: 8 }, 7, 8);
    expect(check(lost, seen)).toBe(true);
    expect(check(lost, seen, again)).toBe(false);
  });

  it('lets only one of two conditional writes with one expectation succeed', () => {
    const cas = (value: string, succeeded: boolean, revision: number) =>
      at({ kind: 'write-if', key: 'k', value, expected: 0 }, { revision, succeeded }, 0, 10);
    expect(check(cas('a', true, 2), cas('b', false, 2))).toBe(true);
    expect(check(cas('a', true, 2), cas('b', true, 3))).toBe(false);
  });

  it('looks at each key alone', () => {
    const history = ['a', 'b', 'c'].map((key, i) =>
      at({ kind: 'write', key, value: 'x' }, { revision: 9 - i }, i * 2, i * 2 + 1),
    );
    expect(check(...history)).toBe(true);
  });

  it('checks thousands of concurrent operations in moments', () => {
    const history: Operation<RegisterInput, RegisterOutput>[] = [];
    for (let i = 0; i < 3_000; i++) {
      const value = String(i);
      const write = { kind: 'write', key: 'k', value } as const;
      // One in fifty answers is lost, and half of those writes never happened.
      const isLost = i % 50 === 0;
      const happened = !isLost || i % 100 === 0;
      const answer = isLost ? undefined : { revision: i + 2 };
      history.push(at(write, answer, i, isLost ? Infinity : i + 20));
      if (!happened) continue;
      const output = { revision: i + 2, value, modRevision: i + 2 };
      history.push(at({ kind: 'read', key: 'k' }, output, i, i + 20));
    }
    expect(check(...history)).toBe(true);
    const last = history.at(-1)!;
    const stale = {
      ...last,
      callMs: 9_000,
      returnMs: 9_001,
      output: { revision: 9_000, value: '5', modRevision: 7 },
    };
    expect(check(...history, stale)).toBe(false);
  });
});
