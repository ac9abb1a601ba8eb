/** Keys and values. Each call is a transaction of the model; the gate sees it as it came. */
import { HoldfastError } from '../../model/errors.ts';
import type { DeleteOperation, PutOperation, RangeRequest } from '../../model/transaction.ts';
import {
  deleteToModel,
  putToModel,
  rangeResultToWire,
  rangeToModel,
  txnResultToWire,
  txnToModel,
} from '../../wire/messages/convert.ts';
import type { RangeStreamResponseInit } from '../../wire/messages/gen/rpc.ts';
import { KVService } from '../../wire/messages/services.ts';
import type { Backend, Call } from '../backend.ts';
import { type Handler, only, stream, unary } from './service.ts';

/** Pairs in one message of a streamed range. */
const STREAM_PAIRS = 1_000;

export function kvService(backend: Backend): Handler[] {
  const range = async (request: RangeRequest, call: Call): ReturnType<typeof readRange> =>
    readRange(backend, request, call);
  return [
    unary(KVService.Range, (request, call) => {
      const wanted = rangeToModel(request);
      const now = backend.gate.open ? backend.view(call).atOnce?.range(wanted) : undefined;
      if (now) return rangeResultToWire(now, backend.wire);
      return range(wanted, call).then((result) => rangeResultToWire(result, backend.wire));
    }),
    unary(KVService.Put, (request, call) => put(backend, putToModel(request), call)),
    unary(KVService.DeleteRange, (request, call) => remove(backend, deleteToModel(request), call)),
    unary(KVService.Txn, (request, call) =>
      backend
        .txn(txnToModel(request), call)
        .then((result) => txnResultToWire(result, backend.wire)),
    ),
    unary(KVService.Compact, async (request, call) => {
      backend.admin(call);
      const { revision, physical } = request;
      const header = await backend.engine.compact(revision, { physical });
      return { header: backend.header(header) };
    }),
    stream(KVService.RangeStream, (requests, call) => rangeStream(backend, requests, call, range)),
  ];
}

function readRange(
  backend: Backend,
  request: RangeRequest,
  call: Call,
): ReturnType<Backend['engine']['range']> {
  backend.gate.keys(call.identity, [{ right: 'read', range: request }]);
  return backend.view(call).range(request, backend.patience(call));
}

// No more promises than it takes: every write comes through one of these.

function put(backend: Backend, operation: PutOperation, call: Call): Promise<object> {
  return backend.txn({ success: [operation] }, call).then(({ header, results: [result] }) => {
    if (result?.type !== 'put') throw broken();
    return { header: backend.header(header), prevKv: result.prevKv };
  });
}

function remove(backend: Backend, operation: DeleteOperation, call: Call): Promise<object> {
  return backend.txn({ success: [operation] }, call).then(({ header, results: [result] }) => {
    if (result?.type !== 'delete') throw broken();
    const { deleted, prevKvs } = result;
    return { header: backend.header(header), deleted, prevKvs };
  });
}

/** Header, `more` and `count` go with the last piece alone. */
async function* rangeStream(
  backend: Backend,
  requests: AsyncIterable<Parameters<typeof rangeToModel>[0]>,
  call: Call,
  range: (request: RangeRequest, call: Call) => ReturnType<typeof readRange>,
): AsyncGenerator<RangeStreamResponseInit> {
  const { header, kvs, more, count } = await range(rangeToModel(await only(requests)), call);
  for (let at = 0; at + STREAM_PAIRS < kvs.length; at += STREAM_PAIRS) {
    yield { rangeResponse: { kvs: kvs.slice(at, at + STREAM_PAIRS) } };
  }
  const rest = kvs.length - (kvs.length % STREAM_PAIRS || Math.min(kvs.length, STREAM_PAIRS));
  yield { rangeResponse: { header: backend.header(header), kvs: kvs.slice(rest), more, count } };
}

function broken(): HoldfastError {
  return new HoldfastError('internal', 'the engine answered another operation than it was asked', {
    outcome: 'unknown',
  });
}
