import { describe, expect, it } from 'vitest';
import { REQUEST, RESPONSE, Script, type ScriptOptions } from '../../../test/http2/script.ts';
import { rawFrame } from './frame.ts';
import type { Header } from './headers.ts';
import { Budget, DEFAULT_LIMITS, type Limits } from './limits.ts';

/** The limit under test, set to 5 (or so), and a way to come to `count` of what it counts. */
interface LimitCase {
  readonly limit: keyof Limits;
  readonly limits: Partial<Limits>;
  /** What still passes; one more is refused. */
  readonly most: number;
  readonly reach: (script: Script, count: number) => void;
  readonly options?: ScriptOptions;
  /** What it costs to go beyond. */
  readonly price: 'connection' | 'stream';
}

const five = { burst: 5, perSecond: 0 };
const times = (count: number, act: (i: number) => unknown): void => {
  for (let i = 0; i < count; i++) act(i);
};
const ping = { type: 'ping', ack: false, data: new Uint8Array(8) } as const;
const settings = { type: 'settings', ack: false, entries: [] } as const;
const padded = (length: number): Header[] => [...REQUEST, ['x-pad', 'x'.repeat(length)]];
const listSize = (list: readonly Header[]): number =>
  list.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
const BASE = listSize(padded(0));

const CASES: readonly LimitCase[] = [
  {
    limit: 'frameBytes',
    limits: { frameBytes: 20_000 },
    most: 20_000,
    reach: (s, bytes) => s.headers(1, REQUEST).data(1, new Uint8Array(bytes)),
    price: 'connection',
  },
  {
    limit: 'headerListBytes',
    limits: { headerListBytes: 1_000 },
    most: 1_000 - BASE,
    reach: (s, length) => s.headers(1, padded(length), true),
    price: 'stream',
  },
  {
    limit: 'headerBombBytes',
    limits: { headerListBytes: 500, headerBombBytes: 1_000 },
    most: 1_000 - BASE,
    reach: (s, length) => s.headers(1, padded(length), true),
    price: 'connection',
  },
  {
    limit: 'headers',
    limits: { headers: 10 },
    most: 10 - REQUEST.length,
    reach: (s, count) =>
      s.headers(
        1,
        [...REQUEST, ...Array.from({ length: count }, (_, i): Header => ['x', `${i}`])],
        true,
      ),
    price: 'stream',
  },
  {
    limit: 'headerBlockBytes',
    limits: { headerBlockBytes: 1_000, headerListBytes: 100_000 },
    most: 1_000,
    reach: (s, bytes) => {
      const block = s.block(REQUEST);
      const pieces = new Uint8Array(bytes);
      pieces.fill(0x82);
      pieces.set(block);
      s.bytes(rawFrame(1, 0x1, 1, pieces.subarray(0, 500))).bytes(
        rawFrame(9, 0, 1, pieces.subarray(500)),
      );
    },
    price: 'connection',
  },
  {
    limit: 'continuations',
    limits: { continuations: 5 },
    most: 5,
    reach: (s, count) => {
      const block = s.block(REQUEST);
      s.bytes(rawFrame(1, 0x1, 1, block.subarray(0, 2)));
      times(count, (i) => s.bytes(rawFrame(9, 0, 1, block.subarray(2 + i, 3 + i))));
    },
    price: 'connection',
  },
  {
    limit: 'concurrentStreams',
    limits: { concurrentStreams: 5 },
    most: 5,
    reach: (s, count) => times(count, (i) => s.headers(i * 2 + 1, REQUEST)),
    price: 'stream',
  },
  {
    limit: 'settingsEntries',
    limits: { settingsEntries: 5 },
    most: 5,
    reach: (s, count) =>
      s.say({ ...settings, entries: Array.from({ length: count }, () => [0x99, 1] as const) }),
    price: 'connection',
  },
  {
    limit: 'bufferedBytes',
    limits: { bufferedBytes: 17 * 50 },
    most: 50,
    // Nobody takes the answers.
    reach: (s, count) => times(count, () => s.say(ping)),
    price: 'connection',
  },
  {
    limit: 'queuedBytes',
    limits: { queuedBytes: 4_000 },
    most: 5,
    reach: (s, count) => {
      // The first takes the whole window, so that the others wait.
      times(count + 1, (i) => {
        s.headers(i * 2 + 1, REQUEST);
        const stream = s.streams.get(i * 2 + 1)!;
        stream.sendHeaders(RESPONSE);
        stream.sendData(new Uint8Array(i === 0 ? 65_535 : 1_000));
        // Large frames are queued at first, and written when they are taken.
        s.connection.takeOutput();
      });
    },
    price: 'connection',
  },
  {
    limit: 'resets',
    limits: { resets: five },
    most: 5,
    reach: (s, count) =>
      times(count, (i) =>
        s.headers(i * 2 + 1, REQUEST).say({ type: 'rst-stream', stream: i * 2 + 1, code: 8 }),
      ),
    price: 'connection',
  },
  {
    limit: 'resets',
    limits: { resets: five, concurrentStreams: 0 },
    most: 5,
    reach: (s, count) => times(count, (i) => s.headers(i * 2 + 1, REQUEST)),
    price: 'connection',
  },
  {
    limit: 'resets',
    limits: { resets: five },
    most: 5,
    // Streams that we reset because the peer makes us: window updates of nothing.
    reach: (s, count) =>
      times(count, (i) =>
        s
          .headers(i * 2 + 1, REQUEST)
          .say({ type: 'window-update', stream: i * 2 + 1, increment: 0 }),
      ),
    price: 'connection',
  },
  {
    limit: 'pings',
    limits: { pings: five },
    most: 5,
    reach: (s, count) => times(count, () => s.say(ping)),
    price: 'connection',
  },
  {
    limit: 'settings',
    limits: { settings: { burst: 6, perSecond: 0 } },
    most: 5, // the first was spent at the beginning
    reach: (s, count) => times(count, () => s.say(settings)),
    price: 'connection',
  },
  {
    limit: 'emptyFrames',
    limits: { emptyFrames: five },
    most: 5,
    reach: (s, count) => {
      s.headers(1, REQUEST);
      times(count, () => s.data(1, ''));
    },
    price: 'connection',
  },
  {
    limit: 'emptyFrames',
    limits: { emptyFrames: five },
    most: 5,
    reach: (s, count) => {
      s.headers(1, REQUEST);
      times(count, () =>
        s.say({ type: 'data', stream: 1, endStream: false, data: new Uint8Array(0), padding: 99 }),
      );
    },
    price: 'connection',
  },
  {
    limit: 'emptyFrames',
    limits: { emptyFrames: five, continuations: 100 },
    most: 5,
    reach: (s, count) => {
      s.bytes(rawFrame(1, 0x1, 1, s.block(REQUEST)));
      times(count, () => s.bytes(rawFrame(9, 0, 1, new Uint8Array(0))));
    },
    price: 'connection',
  },
  {
    limit: 'windowUpdates',
    limits: { windowUpdates: five },
    most: 5,
    reach: (s, count) =>
      times(count, () => s.say({ type: 'window-update', stream: 0, increment: 1 })),
    price: 'connection',
  },
  {
    limit: 'idleFrames',
    limits: { idleFrames: five },
    most: 5,
    reach: (s, count) => times(count, () => s.bytes(rawFrame(0xaa, 0, 0, new Uint8Array(3)))),
    price: 'connection',
  },
  {
    limit: 'idleFrames',
    limits: { idleFrames: five },
    most: 5,
    reach: (s, count) => times(count, () => s.bytes(rawFrame(2, 0, 1, new Uint8Array(5)))),
    price: 'connection',
  },
];

function lossOf(test: LimitCase, count: number): 'connection' | 'stream' | 'nothing' {
  const script = new Script('server', { ...test.options, limits: test.limits });
  test.reach(script, count);
  if (script.connection.closed) return 'connection';
  const refused = script.output().some((line) => /^rst/.test(line));
  return refused ? 'stream' : 'nothing';
}

describe('limits', () => {
  it.each(CASES.map((test, i) => [test.limit, test.price, i, test] as const))(
    'of %s: the most passes, one more costs the %s (case %i)',
    (limit, price, _i, test) => {
      const below = lossOf(test, test.most);
      // A price beyond another limit: what costs the connection may have cost the stream before.
      expect(below).not.toBe(price);
      if (!['headerBombBytes', 'resets'].includes(limit)) expect(below).toBe('nothing');
      expect(lossOf(test, test.most + 1)).toBe(price);
    },
  );

  it('name every limit there is', () => {
    const tested = new Set(CASES.map((test) => test.limit));
    expect([...tested].sort()).toEqual(Object.keys(DEFAULT_LIMITS).sort());
  });

  it('of rates refill with time', () => {
    const script = new Script('server', { limits: { pings: { burst: 5, perSecond: 1 } } });
    for (let i = 0; i < 50; i++) {
      script.say(ping);
      script.now += 1_000;
    }
    expect(script.connection.closed).toBe(false);
    for (let i = 0; i < 6; i++) script.say(ping);
    expect(script.connection.fault?.reason).toBe('too_many_pings');
  });

  it('of pings and window updates do not count what our own answers explain', () => {
    const script = new Script('server', {
      limits: { pings: five, windowUpdates: five },
      above: { onHeaders: (stream) => stream.sendHeaders(RESPONSE, true) },
    });
    for (let i = 0; i < 100; i++) {
      script.headers(i * 2 + 1, REQUEST, true).say(ping);
      script.say({ type: 'window-update', stream: 0, increment: 1 });
      script.output();
    }
    expect(script.connection.closed).toBe(false);
  });

  it('of resets do not count against a client that also finishes its calls', () => {
    const script = new Script('server', {
      limits: { resets: five },
      above: { onHeaders: (stream, _headers, end) => end && stream.sendHeaders(RESPONSE, true) },
    });
    for (let i = 0; i < 200; i += 2) {
      script.headers(i * 2 + 1, REQUEST, true);
      script.headers(i * 2 + 3, REQUEST).say({ type: 'rst-stream', stream: i * 2 + 3, code: 8 });
    }
    expect(script.connection.closed).toBe(false);
  });

  it('of resets do not count streams that were open for a second: a deadline gives up many at once', () => {
    const gaveUpAfter = (ms: number): boolean => {
      const script = new Script('server', { limits: { resets: five } });
      for (let i = 0; i < 50; i++) script.headers(i * 2 + 1, REQUEST);
      script.now += ms;
      for (let i = 0; i < 50; i++) script.say({ type: 'rst-stream', stream: i * 2 + 1, code: 8 });
      return script.connection.closed;
    };
    expect([gaveUpAfter(1_000), gaveUpAfter(900)]).toEqual([false, true]);
  });

  it('of what waits on one stream do not hold for the data of many', () => {
    const script = new Script('server', {
      limits: { bufferedBytes: 100_000 },
      above: { onHeaders: (stream) => stream.sendHeaders(RESPONSE) },
    });
    for (let i = 0; i < 30; i++) script.headers(i * 2 + 1, REQUEST);
    for (const stream of script.streams.values()) {
      stream.sendData(new Uint8Array(50_000));
    }
    expect(script.connection.closed).toBe(false);
    expect(script.connection.queuedBytes).toBeGreaterThan(1_000_000);
  });

  it('of what waits on one stream do not hold for its largest piece, wherever it stands', () => {
    const script = new Script('server', {
      limits: { bufferedBytes: 100_000 },
      above: { onHeaders: (stream) => stream.sendHeaders(RESPONSE) },
    });
    script.headers(1, REQUEST);
    const stream = script.streams.get(1)!;
    for (const bytes of [90_000, 20_000, 900_000, 50_000, 20_000]) {
      expect(stream.sendData(new Uint8Array(bytes))).toBe(true);
    }
    expect(script.connection.closed).toBe(false);
    stream.sendData(new Uint8Array(20_000));
    stream.sendData(new Uint8Array(1));
    expect(script.connection.fault?.reason).toMatch(/slowly/);
  });

  it('of what waits to be written hold for queued data too: the slow reader is given up', () => {
    const script = new Script('server', {
      limits: { bufferedBytes: 100_000 },
      above: { onHeaders: (stream) => stream.sendHeaders(RESPONSE) },
    });
    script.headers(1, REQUEST);
    const stream = script.streams.get(1)!;
    for (let i = 0; i < 300 && !script.connection.closed; i++)
      stream.sendData(new Uint8Array(1_000));
    expect(script.connection.fault?.reason).toMatch(/slowly/);
    expect(script.connection.buffered).toBeLessThan(1_000);
  });

  it('of a budget never let more than burst and rate through', () => {
    const budget = new Budget({ burst: 10, perSecond: 100 });
    let passed = 0;
    for (let now = 0; now < 10_000; now += 0.5) if (budget.spend(now)) passed++;
    expect(passed).toBeGreaterThan(990);
    expect(passed).toBeLessThanOrEqual(1_010);
  });
});
