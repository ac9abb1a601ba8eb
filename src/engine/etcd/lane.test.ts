/** Who travels with whom, when, and what each caller is told; without a server. */
import { describe, expect, it } from 'vitest';
import { text, utf8 } from '../../base/bytes.ts';
import { ManualClock } from '../../base/clock.ts';
import { type Deferred, deferred } from '../../base/deferred.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { TxnRequest, TxnResult } from '../../model/transaction.ts';
import { Lane, type LaneOptions } from './lane.ts';

interface Departure {
  readonly keys: readonly string[];
  readonly timeoutMs: number;
  readonly answer: Deferred<void>;
}

/** Puts one key, and may compare another. */
function put(key: string, options: { readonly reads?: string; readonly bytes?: number } = {}) {
  const { reads, bytes = 0 } = options;
  return {
    compare: reads ? [{ key: utf8(reads), target: 'version', result: '=', value: 1 }] : [],
    success: [{ type: 'put', key: utf8(key), value: new Uint8Array(bytes) }],
  } as const satisfies TxnRequest;
}

function keyOf(request: TxnRequest): string {
  const [first] = request.success ?? [];
  return first?.type === 'put' ? text(first.key) : '';
}

class Station {
  readonly clock = new ManualClock();
  readonly departures: Departure[] = [];
  readonly lane: Lane;
  #revision = 0;

  constructor(options: Partial<LaneOptions> = {}) {
    this.lane = new Lane({
      ...{ clock: this.clock, operationsMax: 128, bytesMax: 100_000, callTimeoutMs: 8_000 },
      sendOne: async (request, { timeoutMs }) => (await this.#go([request], timeoutMs))[0]!,
      sendAll: (requests, _, { timeoutMs }) => this.#go(requests, timeoutMs),
      ...options,
    });
  }

  get routes(): string[] {
    return this.departures.map(({ keys }) => keys.join('+'));
  }

  /** The answer to the request that left as number `at`. */
  async answered(at: number, error?: HoldfastError): Promise<void> {
    const { answer } = this.departures[at]!;
    if (error) answer.reject(error);
    else answer.resolve();
    await turn();
  }

  async #go(requests: readonly TxnRequest[], timeoutMs: number): Promise<readonly TxnResult[]> {
    const departure = { keys: requests.map(keyOf), timeoutMs, answer: deferred<void>() };
    this.departures.push(departure);
    await departure.answer.promise;
    const header = { revision: ++this.#revision, era: 0 };
    return requests.map(() => ({ header, succeeded: true, results: [] }));
  }
}

const turn = (): Promise<void> =>
  new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

/** What a caller was told, or undefined while it waits. */
function told(call: Promise<TxnResult>): { readonly now: string | undefined } {
  const state: { now: string | undefined } = { now: undefined };
  call.then(
    ({ header }) => {
      state.now = `revision ${header.revision}`;
    },
    (error: HoldfastError) => {
      state.now = `${error.code} ${error.outcome}`;
    },
  );
  return state;
}

describe('transactions that may share a revision', () => {
  it('go at once when nothing is under way', () => {
    const station = new Station();
    told(station.lane.submit(put('a'), undefined));
    expect(station.routes).toEqual(['a']);
    expect(station.clock.pending).toBe(0);
  });

  it('wait for the answer that is awaited, and go together, in the order they came', async () => {
    const station = new Station();
    const calls = ['a', 'b', 'c', 'd'].map((key) => told(station.lane.submit(put(key), undefined)));
    expect(station.routes).toEqual(['a']);
    await station.answered(0);
    expect(station.routes).toEqual(['a', 'b+c+d']);
    await station.answered(1);
    expect(calls.map(({ now }) => now)).toEqual([1, 2, 2, 2].map((n) => `revision ${n}`));
    expect(station.clock.pending).toBe(0);
  });

  it('wait ten milliseconds at most for a server that does not answer', () => {
    const station = new Station();
    for (const key of ['a', 'b', 'c']) told(station.lane.submit(put(key), undefined));
    station.clock.advance(9);
    expect(station.routes).toEqual(['a']);
    station.clock.advance(1);
    expect(station.routes).toEqual(['a', 'b+c']);
    told(station.lane.submit(put('d'), undefined));
    station.clock.advance(10);
    expect(station.routes).toEqual(['a', 'b+c', 'd']);
  });

  it('have the wait taken off the time for the answer', () => {
    const station = new Station();
    told(station.lane.submit(put('a'), undefined));
    station.clock.advance(3);
    told(station.lane.submit(put('b'), undefined));
    told(station.lane.submit(put('c'), undefined));
    station.clock.advance(10);
    expect(station.departures.map(({ timeoutMs }) => timeoutMs)).toEqual([8_000, 7_990]);
  });

  it('come along when an answer’s caller asks again in the same turn', async () => {
    const station = new Station();
    const again = station.lane
      .submit(put('a'), undefined)
      .then(() => station.lane.submit(put('a'), undefined));
    again.catch(() => {});
    told(station.lane.submit(put('b'), undefined));
    await station.answered(0);
    expect(station.routes).toEqual(['a', 'b+a']);
  });

  it('whose keys meet go in requests of their own, at the same time', async () => {
    const station = new Station();
    told(station.lane.submit(put('x'), undefined));
    for (const request of [put('a'), put('a'), put('b', { reads: 'a' }), put('c')]) {
      told(station.lane.submit(request, undefined));
    }
    await station.answered(0);
    expect(station.routes).toEqual(['x', 'a+c', 'a', 'b']);
  });

  it('stay below the limits of one request', async () => {
    const station = new Station({ operationsMax: 10 });
    told(station.lane.submit(put('x'), undefined));
    for (let i = 0; i < 10; i++) told(station.lane.submit(put(`k${i}`), undefined));
    for (let i = 0; i < 3; i++)
      told(station.lane.submit(put(`b${i}`, { bytes: 40_000 }), undefined));
    await station.answered(0);
    const sizes = station.departures.slice(1).map(({ keys }) => keys.length);
    // 1 for the bundle, 1 for each, 1 for what the heaviest of them does.
    expect(Math.max(...sizes)).toBeLessThanOrEqual(8);
    expect(sizes.reduce((sum, size) => sum + size)).toBe(13);
    expect(station.routes.filter((route) => (route.match(/b/g) ?? []).length > 2)).toEqual([]);
  });

  it('that are given up before they leave are rejected and never sent; later unknown', async () => {
    const station = new Station();
    const [early, late] = [new AbortController(), new AbortController()];
    const first = told(station.lane.submit(put('a'), undefined));
    const gone = told(station.lane.submit(put('b'), early.signal));
    const sent = told(station.lane.submit(put('c'), late.signal));
    const other = told(station.lane.submit(put('d'), undefined));
    early.abort();
    await station.answered(0);
    expect([first.now, gone.now]).toEqual(['revision 1', 'cancelled rejected']);
    late.abort();
    await turn();
    expect([sent.now, other.now]).toEqual(['cancelled unknown', undefined]);
    await station.answered(1);
    expect(other.now).toBe('revision 2');
    expect(station.routes).toEqual(['a', 'c+d']);
  });

  it('are unknown, all of them, when the answer is lost, and not sent again', async () => {
    const station = new Station();
    const calls = ['a', 'b', 'c'].map((key) => told(station.lane.submit(put(key), undefined)));
    await station.answered(0);
    await station.answered(1, new HoldfastError('unavailable', 'cut', { outcome: 'unknown' }));
    expect(calls.slice(1).map(({ now }) => now)).toEqual(Array(2).fill('unavailable unknown'));
    expect(station.routes).toEqual(['a', 'b+c']);
  });

  it('go alone when the server refuses them together for the sake of one', async () => {
    const station = new Station();
    const aborted = new AbortController();
    told(station.lane.submit(put('a'), undefined));
    const calls = ['b', 'c'].map((key) => told(station.lane.submit(put(key), undefined)));
    const gone = told(station.lane.submit(put('d'), aborted.signal));
    await station.answered(0);
    aborted.abort();
    await station.answered(1, new HoldfastError('lease-not-found', 'no lease'));
    expect(station.routes).toEqual(['a', 'b+c+d', 'b', 'c']);
    await station.answered(2, new HoldfastError('lease-not-found', 'no lease'));
    await station.answered(3);
    expect([...calls, gone].map(({ now }) => now)).toEqual([
      'lease-not-found rejected',
      'revision 2',
      'cancelled unknown',
    ]);
  });

  it('are all refused when no member can be reached, without asking for each', async () => {
    const station = new Station();
    const calls = ['a', 'b', 'c'].map((key) => told(station.lane.submit(put(key), undefined)));
    await station.answered(0);
    await station.answered(1, new HoldfastError('unavailable', 'no member'));
    expect(calls.slice(1).map(({ now }) => now)).toEqual(Array(2).fill('unavailable rejected'));
    expect(station.departures.length).toBe(2);
  });

  it('are rejected when the engine closes before they leave', async () => {
    const station = new Station();
    told(station.lane.submit(put('a'), undefined));
    const waiting = told(station.lane.submit(put('b'), undefined));
    station.lane.close(new HoldfastError('closed', 'closed'));
    await station.answered(0);
    expect([waiting.now, station.routes, station.clock.pending]).toEqual([
      'closed rejected',
      ['a'],
      0,
    ]);
  });
});
