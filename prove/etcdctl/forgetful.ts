import type { Engine } from '../../src/engine/contract.ts';
import type { OperationResult } from '../../src/model/transaction.ts';

/** An engine whose puts do not tell what they replaced. */
export function forgetful(engine: Engine): Engine {
  const bend = (result: OperationResult): OperationResult =>
    result.type === 'put' ? { ...result, prevKv: undefined } : result;
  return {
    ...engine,
    txn: async (request, call) => {
      const answered = await engine.txn(request, call);
      return { ...answered, results: answered.results.map(bend) };
    },
  };
}
