/** Compares: every target, every result, missing keys, ranges. */
import { utf8 } from '../../base/bytes.ts';
import type { KeyRange } from '../../model/range.ts';
import type { Compare, CompareResult } from '../../model/transaction.ts';
import { expectEqual } from './expect.ts';
import { type ConformanceCase, group } from './suite.ts';
import type { TestStore } from './test-store.ts';

const RESULTS: readonly CompareResult[] = ['=', '!=', '<', '>'];

/** Which results hold when what is stored stands like this to the value asked for. */
const HOLDS: Readonly<Record<'less' | 'equal' | 'greater', readonly CompareResult[]>> = {
  less: ['!=', '<'],
  equal: ['='],
  greater: ['!=', '>'],
};

type Operand = Compare extends infer C
  ? C extends Compare
    ? Pick<C, 'target' | 'value'>
    : never
  : never;

async function holding(
  store: TestStore,
  where: KeyRange,
  operand: Operand,
): Promise<readonly CompareResult[]> {
  const held: CompareResult[] = [];
  for (const result of RESULTS) {
    const compare = [{ ...where, ...operand, result } as Compare];
    if ((await store.txn({ compare })).succeeded) held.push(result);
  }
  return held;
}

async function expectHolds(
  store: TestStore,
  where: KeyRange,
  operand: Operand,
  stands: 'less' | 'equal' | 'greater' | 'never',
): Promise<void> {
  const expected = stands === 'never' ? [] : HOLDS[stands];
  const what = `${operand.target} asked against ${String(operand.value)} (${stands})`;
  expectEqual(await holding(store, where, operand), expected, what);
}

export function compareCases(): readonly ConformanceCase[] {
  return group('compare', COMPARES);
}

const COMPARES = [
  {
    name: 'version, create and mod compare as numbers with every result',
    run: async (store: TestStore) => {
      const create = await store.put('a', '1');
      const mod = await store.put('a', '2');
      const stored = { version: 2, create, mod } as const;
      for (const target of ['version', 'create', 'mod'] as const) {
        const where = store.where('a');
        await expectHolds(store, where, { target, value: stored[target] }, 'equal');
        await expectHolds(store, where, { target, value: stored[target] + 1 }, 'less');
        await expectHolds(store, where, { target, value: stored[target] - 1 }, 'greater');
      }
    },
  },
  {
    name: 'values compare as unsigned bytes with every result',
    run: async (store: TestStore) => {
      await store.put('a', Uint8Array.of(100, 200));
      const against = (...value: number[]) =>
        ({ target: 'value', value: Uint8Array.from(value) }) as const;
      const where = store.where('a');
      await expectHolds(store, where, against(100, 200), 'equal');
      await expectHolds(store, where, against(100, 201), 'less');
      await expectHolds(store, where, against(100, 100), 'greater');
      await expectHolds(store, where, against(100), 'greater');
      await expectHolds(store, where, against(100, 200, 0), 'less');
      await expectHolds(store, where, against(), 'greater');
    },
  },
  {
    name: 'leases compare as numbers, a key without one as 0',
    run: async (store: TestStore) => {
      const lease = await store.grantLong();
      await store.put('a', '1', { lease: lease.id });
      await store.put('b', '1');
      const against = (value: bigint) => ({ target: 'lease', value }) as const;
      await expectHolds(store, store.where('a'), against(lease.id), 'equal');
      await expectHolds(store, store.where('a'), against(lease.id + 1n), 'less');
      await expectHolds(store, store.where('a'), against(0n), 'greater');
      await expectHolds(store, store.where('b'), against(0n), 'equal');
      await expectHolds(store, store.where('b'), against(lease.id), 'less');
    },
  },
  {
    name: 'a missing key has version, create, mod and lease 0',
    run: async (store: TestStore) => {
      await store.put('was', '1');
      await store.remove('was');
      for (const name of ['never', 'was']) {
        for (const target of ['version', 'create', 'mod'] as const) {
          await expectHolds(store, store.where(name), { target, value: 0 }, 'equal');
          await expectHolds(store, store.where(name), { target, value: 1 }, 'less');
        }
        await expectHolds(store, store.where(name), { target: 'lease', value: 0n }, 'equal');
        await expectHolds(store, store.where(name), { target: 'lease', value: 7n }, 'less');
      }
    },
  },
  {
    name: 'a compare of the value of a missing key is false, whatever it asks',
    run: async (store: TestStore) => {
      for (const value of ['', 'x']) {
        const operand = { target: 'value', value: utf8(value) } as const;
        await expectHolds(store, store.where('never'), operand, 'never');
      }
    },
  },
  {
    name: 'a range compare must hold for every key of the range',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      await store.put('b', '1');
      await store.put('c', '2');
      const one = { target: 'value', value: utf8('1') } as const;
      await expectHolds(store, store.where(['a', 'c']), one, 'equal');
      expectEqual(await holding(store, store.where(['a', 'd']), one), []);
      const version = { target: 'version', value: 1 } as const;
      await expectHolds(store, store.where(['a', 'd']), version, 'equal');
      await store.put('b', '1');
      expectEqual(await holding(store, store.where(['a', 'd']), version), []);
      const zero = { target: 'version', value: 0 } as const;
      await expectHolds(store, store.where(['a', 'd']), zero, 'greater');
    },
  },
  {
    name: 'a compare over an empty range counts as one missing key',
    run: async (store: TestStore) => {
      await store.put('a', '1');
      const nothing = store.where(['x', 'z']);
      await expectHolds(store, nothing, { target: 'version', value: 0 }, 'equal');
      await expectHolds(store, nothing, { target: 'mod', value: 5 }, 'less');
      await expectHolds(store, nothing, { target: 'lease', value: 0n }, 'equal');
      await expectHolds(store, nothing, { target: 'value', value: utf8('') }, 'never');
    },
  },
];
