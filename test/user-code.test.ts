/** The example of docs/testing.md: a user's own code, tested on an engine on a bad day. */
import { expect, it } from 'vitest';
import { seededRandom } from '../src/base/random.ts';
import type { Engine } from '../src/engine/contract.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import { HoldfastError } from '../src/model/errors.ts';
import { dropAnswer, faultyEngine, onCall } from '../src/testing/index.ts';

const utf8 = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

type Charge = (engine: Engine, order: string) => Promise<void>;

/** Counts a charge and tries again when the connection breaks. Wrong: it may count twice. */
const chargeTwice: Charge = (engine, order) =>
  untilAnswered(async () => {
    const key = utf8(`total/${order}`);
    const { total } = await read(engine, key);
    const value = utf8(String(total + 1));
    await engine.txn({ success: [{ type: 'put', key, value }] });
    return true;
  });

/** The same with a mark for the charge, written by the transaction that counts. */
const chargeOnce: Charge = (engine, order) =>
  untilAnswered(async () => {
    const key = utf8(`total/${order}`);
    const mark = utf8(`charged/${order}`);
    const { total, modRevision } = await read(engine, key);
    const { succeeded, results } = await engine.txn({
      compare: [
        { key: mark, target: 'version', result: '=', value: 0 },
        { key, target: 'mod', result: '=', value: modRevision },
      ],
      success: [
        { type: 'put', key: mark },
        { type: 'put', key, value: utf8(String(total + 1)) },
      ],
      failure: [{ type: 'range', key: mark }],
    });
    const [marked] = results;
    return succeeded || (marked?.type === 'range' && marked.count > 0);
  });

async function read(engine: Engine, key: Uint8Array) {
  const [kv] = (await engine.range({ key })).kvs;
  return { total: kv ? Number(text(kv.value)) : 0, modRevision: kv?.modRevision ?? 0 };
}

/** Tries until `work` says that it is done; a lost connection is a reason to try again. */
async function untilAnswered(work: () => Promise<boolean>): Promise<void> {
  for (;;) {
    try {
      if (await work()) return;
    } catch (error) {
      if (!HoldfastError.is(error, 'unavailable')) throw error;
    }
  }
}

/** Loses the answer to each call of a run in turn, and answers what was counted each time. */
async function totalsUnderLoss(charge: Charge): Promise<readonly number[]> {
  const totals: number[] = [];
  for (let lost = 1; ; lost++) {
    const engine = faultyEngine(await openMemoryEngine(), { random: seededRandom(1) });
    const fault = engine.inject(onCall(lost, dropAnswer()));
    try {
      await charge(engine, '42');
      fault.uninstall();
      if (fault.hits === 0) return totals;
      totals.push((await read(engine, utf8('total/42'))).total);
    } finally {
      await engine.close();
    }
  }
}

it('a charge counts once, whichever answer is lost', async () => {
  expect(await totalsUnderLoss(chargeOnce)).toEqual([1, 1]);
});

it('the test would find a charge that counts twice', async () => {
  expect(await totalsUnderLoss(chargeTwice)).toEqual([1, 2]);
});
