/**
 * What the standard demands of a connection, one case per rule: what the peer says, and what must come
 * of it in events and output. The tests run them on our machine; `prove/http2.ts` also on machines
 * broken on purpose, which they must catch.
 */
import { EMPTY, utf8 } from '../../src/base/bytes.ts';
import type { Role } from '../../src/wire/http2/connection.ts';
import { PREFACE, rawFrame } from '../../src/wire/http2/frame.ts';
import type { Header } from '../../src/wire/http2/headers.ts';
import { REQUEST, RESPONSE, Script, type ScriptOptions } from './script.ts';

export interface Case {
  /** Of RFC 9113, or RFC 7541 where it says HPACK. */
  readonly section: string;
  readonly rule: string;
  readonly role: Role;
  readonly options?: ScriptOptions;
  readonly play: (script: Script) => void;
  /** Lines that must be the events, in order; `'*'` at the end admits more. */
  readonly events?: readonly string[];
  readonly output?: readonly string[];
}

const A = ':method=POST,:scheme=http,:path=/a,:authority=b';
const settings = (...entries: readonly (readonly [number, number])[]) =>
  ({ type: 'settings', ack: false, entries }) as const;
const window = (stream: number, increment: number) =>
  ({ type: 'window-update', stream, increment }) as const;
const reset = (stream: number, code = 8) => ({ type: 'rst-stream', stream, code }) as const;
const lost = (code: string, last = 0): Pick<Case, 'events' | 'output'> => ({
  events: [`closed ${code}`],
  output: [`goaway ${last} ${code}`],
});
/** A request whose headers are refused: the stream is, the connection is not. */
const refused: Pick<Case, 'events' | 'output'> = { events: [], output: ['rst 1 PROTOCOL_ERROR'] };
const without = (name: string): Header[] => REQUEST.filter(([known]) => known !== name);
const raw = (type: number, flags: number, stream: number, payload = EMPTY) =>
  rawFrame(type, flags, stream, payload);

const answering: ScriptOptions = {
  above: {
    onHeaders: (stream, _headers, end) => {
      if (end) stream.sendHeaders(RESPONSE, true);
    },
    onData: (stream, bytes, end) => {
      if (!end) return;
      stream.sendHeaders(RESPONSE);
      stream.sendData(bytes);
      stream.sendTrailers([['grpc-status', '0']]);
    },
  },
};

const CONNECTION: readonly Case[] = [
  {
    section: '3.4',
    rule: 'a server says SETTINGS at once and waits for the preface',
    role: 'server',
    options: { bare: true },
    play: () => {},
    events: [],
    output: ['settings', 'window 0 983041'],
  },
  {
    section: '3.4',
    rule: 'bytes that are no preface end the connection',
    role: 'server',
    options: { bare: true },
    play: (s) => s.bytes(utf8('GET / HTTP/1.1\r\n\r\n')),
    events: ['closed PROTOCOL_ERROR'],
  },
  {
    section: '3.4',
    rule: 'the first frame of a peer must be SETTINGS',
    role: 'client',
    options: { bare: true },
    play: (s) => s.say({ type: 'ping', ack: false, data: new Uint8Array(8) }),
    events: ['closed PROTOCOL_ERROR'],
  },
  {
    section: '4.2',
    rule: 'a frame beyond SETTINGS_MAX_FRAME_SIZE ends the connection',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.bytes(raw(0, 0, 1, new Uint8Array(16_385))),
    events: ['reset 1 FRAME_SIZE_ERROR', 'closed FRAME_SIZE_ERROR'],
  },
  {
    section: '4.2',
    rule: 'a frame of exactly SETTINGS_MAX_FRAME_SIZE is accepted',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.data(1, 'x'.repeat(16_384)),
    events: [`data 1 ${'x'.repeat(16_384)}`],
    output: [],
  },
  {
    section: '4.3',
    rule: 'a header block that cannot be decoded ends the connection',
    role: 'server',
    play: (s) => s.bytes(raw(1, 0x5, 1, Uint8Array.of(0xff, 0xff, 0xff))),
    ...lost('COMPRESSION_ERROR'),
  },
  {
    section: '4.3',
    rule: 'a header block must not be interrupted by another frame',
    role: 'server',
    play: (s) =>
      s
        .bytes(raw(1, 0x1, 1, s.block(REQUEST)))
        .say({ type: 'ping', ack: false, data: new Uint8Array(8) }),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '4.3',
    rule: 'a header block must not be interrupted by another stream',
    role: 'server',
    play: (s) => s.bytes(raw(1, 0x1, 1, s.block(REQUEST))).bytes(raw(9, 0x4, 3)),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '4.3',
    rule: 'a header block may be cut into CONTINUATION frames anywhere',
    role: 'server',
    play: (s) => {
      const block = s.block(REQUEST);
      s.bytes(raw(1, 0x1, 1, block.subarray(0, 3)));
      s.bytes(raw(9, 0, 1, block.subarray(3, 4)));
      s.bytes(raw(9, 0x4, 1, block.subarray(4)));
    },
    events: [`headers 1 end ${A}`],
    output: [],
  },
  {
    section: '4.3',
    rule: 'a header block longer than the frames of the peer goes out in CONTINUATION frames',
    role: 'server',
    options: {
      above: {
        onHeaders: (stream) =>
          stream.sendHeaders([...RESPONSE, ['x-long', '|'.repeat(40_000)]], true),
      },
    },
    play: (s) => {
      s.headers(1, REQUEST, true).heard();
    },
    output: ['headers 1 end more', 'continuation 1 more', 'continuation 1'],
  },
  {
    section: '5.5',
    rule: 'frames of unknown types are ignored',
    role: 'server',
    play: (s) => s.bytes(raw(0xee, 0xff, 77, utf8('whatever'))),
    events: [],
    output: [],
  },
  {
    section: '6.10',
    rule: 'CONTINUATION without HEADERS ends the connection',
    role: 'server',
    play: (s) => s.bytes(raw(9, 0x4, 1)),
    ...lost('PROTOCOL_ERROR'),
  },
];

const STATES: readonly Case[] = [
  ...(
    [
      ['DATA', (s: Script) => s.data(1, 'x')],
      ['RST_STREAM', (s: Script) => s.say(reset(1))],
      ['WINDOW_UPDATE', (s: Script) => s.say(window(1, 1))],
    ] as const
  ).map(
    ([what, play]): Case => ({
      section: '5.1',
      rule: `${what} on an idle stream ends the connection`,
      role: 'server',
      play,
      ...lost('PROTOCOL_ERROR'),
    }),
  ),
  {
    section: '5.1',
    rule: 'a frame that only PRIORITY may be on an idle stream is ignored',
    role: 'server',
    play: (s) =>
      s.say({
        type: 'priority',
        stream: 5,
        priority: { exclusive: false, dependency: 3, weight: 9 },
      }),
    events: [],
    output: [],
  },
  {
    section: '5.1',
    rule: 'DATA on a half-closed stream costs the stream',
    role: 'server',
    play: (s) => s.headers(1, REQUEST, true).heard() && s.data(1, 'x'),
    events: ['reset 1 STREAM_CLOSED'],
    output: ['rst 1 STREAM_CLOSED'],
  },
  {
    section: '5.1',
    rule: 'HEADERS on a half-closed stream costs the stream',
    role: 'server',
    play: (s) => s.headers(1, REQUEST, true).heard() && s.headers(1, [['t', '1']], true),
    events: ['reset 1 STREAM_CLOSED'],
    output: ['rst 1 STREAM_CLOSED'],
  },
  {
    section: '5.1',
    rule: 'DATA on a stream that both sides closed ends the connection',
    role: 'server',
    options: answering,
    play: (s) => s.headers(1, REQUEST, true).heard() && s.data(1, 'x'),
    events: ['closed STREAM_CLOSED'],
    output: ['headers 1 end', 'goaway 1 STREAM_CLOSED'],
  },
  {
    section: '5.1',
    rule: 'HEADERS on a stream that both sides closed ends the connection',
    role: 'server',
    options: answering,
    play: (s) => s.headers(1, REQUEST, true).heard() && s.headers(1, REQUEST, true),
    events: ['closed STREAM_CLOSED'],
    output: ['headers 1 end', 'goaway 1 STREAM_CLOSED'],
  },
  {
    section: '5.1',
    rule: 'WINDOW_UPDATE and RST_STREAM on a closed stream are ignored',
    role: 'server',
    options: answering,
    play: (s) => s.headers(1, REQUEST, true).heard() && s.say(window(1, 5), reset(1)),
    events: [],
    output: ['headers 1 end'],
  },
  {
    section: '5.1',
    rule: 'what was under way when we reset a stream is ignored, and compression stays in step',
    role: 'server',
    options: { above: { onHeaders: (stream) => stream.id === 1 && stream.reset(8) } },
    play: (s) => {
      s.headers(1, REQUEST).heard();
      s.data(1, 'late').headers(1, [['x-late', 'trailer']], true);
      s.headers(3, [...REQUEST, ['x-late', 'trailer']], true);
    },
    events: [`headers 3 end ${A},x-late=trailer`],
    output: ['rst 1 CANCEL'],
  },
  {
    section: '5.1.1',
    rule: 'a client must not open an even stream',
    role: 'server',
    play: (s) => s.headers(2, REQUEST, true),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '5.1.1',
    rule: 'a new stream must have a higher number than all before',
    role: 'server',
    options: answering,
    play: (s) => s.headers(5, REQUEST, true).heard() && s.headers(3, REQUEST, true),
    events: ['closed STREAM_CLOSED'],
    output: ['headers 5 end', 'goaway 5 STREAM_CLOSED'],
  },
  {
    section: '5.1.1',
    rule: 'a server must not answer a stream we never opened',
    role: 'client',
    play: (s) => s.headers(1, RESPONSE, true),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '5.1.2',
    rule: 'streams beyond SETTINGS_MAX_CONCURRENT_STREAMS are refused, and the next has room again',
    role: 'server',
    options: { limits: { concurrentStreams: 1 } },
    play: (s) => {
      s.headers(1, REQUEST).headers(3, REQUEST).say(reset(1)).headers(5, REQUEST);
    },
    events: [`headers 1 ${A}`, 'reset 1 CANCEL', `headers 5 ${A}`],
    output: ['rst 3 REFUSED_STREAM'],
  },
];

const FRAMES: readonly Case[] = [
  ...(
    [
      ['DATA', 0x0, 0x0, utf8('x')],
      ['HEADERS', 0x1, 0x5, Uint8Array.of(0x82)],
      ['PRIORITY', 0x2, 0x0, new Uint8Array(5)],
      ['RST_STREAM', 0x3, 0x0, new Uint8Array(4)],
    ] as const
  ).map(
    ([what, type, flags, payload]): Case => ({
      section: type === 0 ? '6.1' : `6.${type + 1}`,
      rule: `${what} on stream 0 ends the connection`,
      role: 'server',
      play: (s) => s.bytes(raw(type, flags, 0, payload)),
      ...lost('PROTOCOL_ERROR'),
    }),
  ),
  ...(
    [
      ['6.5', 'SETTINGS', 0x4],
      ['6.7', 'PING', 0x6],
      ['6.8', 'GOAWAY', 0x7],
    ] as const
  ).map(
    ([section, what, type]): Case => ({
      section,
      rule: `${what} on a stream ends the connection`,
      role: 'server',
      play: (s) => s.bytes(raw(type, 0, 1, new Uint8Array(type === 4 ? 0 : 8))),
      ...lost('PROTOCOL_ERROR'),
    }),
  ),
  ...(
    [
      ['6.3', 'PRIORITY', 0x2, 4],
      ['6.4', 'RST_STREAM', 0x3, 3],
      ['6.4', 'RST_STREAM', 0x3, 5],
      ['6.9', 'WINDOW_UPDATE', 0x8, 3],
    ] as const
  ).map(
    ([section, what, type, length]): Case => ({
      section,
      rule: `${what} of ${length} bytes is of a wrong size`,
      role: 'server',
      play: (s) => s.bytes(raw(type, 0, 1, new Uint8Array(length))),
      ...lost('FRAME_SIZE_ERROR'),
    }),
  ),
  ...(
    [
      ['6.5', 'SETTINGS', 0x4, 0, 5],
      ['6.5', 'acknowledged SETTINGS with content', 0x4, 1, 6],
      ['6.7', 'PING', 0x6, 0, 7],
      ['6.7', 'PING', 0x6, 0, 9],
      ['6.8', 'GOAWAY', 0x7, 0, 7],
    ] as const
  ).map(
    ([section, what, type, flags, length]): Case => ({
      section,
      rule: `${what} of ${length} bytes is of a wrong size`,
      role: 'server',
      play: (s) => s.bytes(raw(type, flags, 0, new Uint8Array(length))),
      ...lost('FRAME_SIZE_ERROR'),
    }),
  ),
  {
    section: '6.1',
    rule: 'padding is taken off DATA, and counts for flow control',
    role: 'server',
    options: { streamWindow: 65_535 },
    play: (s) => {
      s.headers(1, REQUEST).heard();
      for (let i = 0; i < 16_384; i++) {
        s.say({ type: 'data', stream: 1, endStream: false, data: utf8('x'), padding: 0 });
        if (i === 0) s.heard();
      }
      s.heard();
      s.say({ type: 'data', stream: 1, endStream: true, data: utf8('last'), padding: 200 });
    },
    events: ['data 1 end last'],
    output: ['window 1 32768'],
  },
  {
    section: '6.1',
    rule: 'padding as long as the frame leaves nothing, which is allowed',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.bytes(raw(0, 0x9, 1, Uint8Array.of(2, 0, 0))),
    events: ['data 1 end '],
    output: [],
  },
  {
    section: '6.1',
    rule: 'more padding than payload ends the connection',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.bytes(raw(0, 0x9, 1, Uint8Array.of(3, 0, 0))),
    events: ['reset 1 PROTOCOL_ERROR', 'closed PROTOCOL_ERROR'],
    output: ['goaway 1 PROTOCOL_ERROR'],
  },
  {
    section: '6.2',
    rule: 'HEADERS may be padded and carry a priority, which is ignored',
    role: 'server',
    play: (s) =>
      s.say({
        type: 'headers',
        stream: 1,
        endStream: true,
        endHeaders: true,
        block: s.block(REQUEST),
        padding: 9,
        priority: { exclusive: true, dependency: 0, weight: 256 },
      }),
    events: [`headers 1 end ${A}`],
    output: [],
  },
  {
    section: '6.2',
    rule: 'HEADERS too short for its priority is of a wrong size',
    role: 'server',
    play: (s) => s.bytes(raw(1, 0x25, 1, new Uint8Array(4))),
    ...lost('FRAME_SIZE_ERROR'),
  },
  {
    section: '6.4',
    rule: 'RST_STREAM ends a stream at once',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.say(reset(1, 5)),
    events: ['reset 1 STREAM_CLOSED'],
    output: [],
  },
  {
    section: '6.5.2',
    rule: 'ENABLE_PUSH is 0 or 1',
    role: 'server',
    play: (s) => s.say(settings([2, 2])),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '6.5.2',
    rule: 'a server must not switch on pushes',
    role: 'client',
    play: (s) => s.say(settings([2, 1])),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '6.5.2',
    rule: 'INITIAL_WINDOW_SIZE beyond 2^31-1 ends the connection',
    role: 'server',
    play: (s) => s.say(settings([4, 0x80000000])),
    ...lost('FLOW_CONTROL_ERROR'),
  },
  ...[16_383, 16_777_216].map(
    (size): Case => ({
      section: '6.5.2',
      rule: `MAX_FRAME_SIZE of ${size} is out of range`,
      role: 'server',
      play: (s) => s.say(settings([5, size])),
      ...lost('PROTOCOL_ERROR'),
    }),
  ),
  {
    section: '6.5.3',
    rule: 'SETTINGS are acknowledged, unknown ones ignored',
    role: 'server',
    play: (s) => s.say(settings([0xabcd, 1], [1, 100], [5, 16_384], [3, 0])),
    events: [],
    output: ['settings-ack'],
  },
  {
    section: '6.5.3',
    rule: 'each setting of a frame takes effect',
    role: 'server',
    play: (s) => {
      s.say(settings([1, 100], [3, 7], [4, 77], [5, 20_000], [6, 9]));
      const got = JSON.stringify(s.connection.peerSettings);
      const wanted = JSON.stringify({
        headerTableSize: 100,
        enablePush: true,
        maxConcurrentStreams: 7,
        initialWindowSize: 77,
        maxFrameSize: 20_000,
        maxHeaderListSize: 9,
      });
      if (got !== wanted) throw new Error(`the peer's settings are ${got}`);
    },
    events: [],
    output: ['settings-ack'],
  },
  {
    section: '6.5.3',
    rule: 'our windows hold once the peer has acknowledged them, for open streams too',
    role: 'server',
    options: { bare: true, streamWindow: 200_000 },
    play: (s) => {
      s.bytes(PREFACE).say(settings()).headers(1, REQUEST);
      for (let i = 0; i < 2; i++) s.data(1, new Uint8Array(16_000));
      s.say({ type: 'settings', ack: true, entries: [] });
      for (let i = 0; i < 3; i++) s.data(1, new Uint8Array(16_000));
      s.data(1, 'all', true);
      s.events.splice(0, s.events.length - 1);
    },
    events: ['data 1 end all'],
  },
  {
    section: '6.6',
    rule: 'a push to a client that has switched pushes off ends the connection',
    role: 'client',
    play: (s) => {
      s.connection.request(REQUEST, true);
      s.say({
        type: 'push-promise',
        stream: 1,
        endHeaders: true,
        promised: 2,
        block: s.block(REQUEST),
      });
    },
    events: ['reset 1 REFUSED_STREAM', 'closed PROTOCOL_ERROR'],
  },
  {
    section: '6.6',
    rule: 'a client must not push',
    role: 'server',
    play: (s) =>
      s.say({ type: 'push-promise', stream: 1, endHeaders: true, promised: 2, block: EMPTY }),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '6.7',
    rule: 'a ping is answered with its own eight bytes',
    role: 'server',
    play: (s) => s.say({ type: 'ping', ack: false, data: utf8('12345678') }),
    events: [],
    output: ['pong'],
  },
  {
    section: '6.7',
    rule: 'an answered ping is an event, and not answered again',
    role: 'server',
    play: (s) => s.say({ type: 'ping', ack: true, data: utf8('12345678') }),
    events: ['pong 12345678'],
    output: [],
  },
  {
    section: '6.8',
    rule: 'after GOAWAY streams beyond its last were surely not processed, the others go on',
    role: 'client',
    play: (s) => {
      for (let i = 0; i < 3; i++) s.connection.request(REQUEST, true);
      s.say({ type: 'goaway', lastStream: 3, code: 0, debug: 'bye' });
      s.headers(1, RESPONSE, true);
    },
    events: ['reset 5 REFUSED_STREAM', 'goaway 3 NO_ERROR', 'headers 1 end :status=200'],
    output: ['headers 1 end', 'headers 3 end', 'headers 5 end'],
  },
  {
    section: '6.8',
    rule: 'a later GOAWAY must not name a higher stream',
    role: 'client',
    play: (s) => {
      s.say({ type: 'goaway', lastStream: 3, code: 0, debug: '' });
      s.say({ type: 'goaway', lastStream: 5, code: 0, debug: '' });
    },
    events: ['goaway 3 NO_ERROR', 'closed PROTOCOL_ERROR'],
  },
  {
    section: '6.8',
    rule: 'a server that has said its last stream refuses the next and finishes the others',
    role: 'server',
    options: answering,
    play: (s) => {
      s.headers(1, REQUEST);
      s.connection.announceShutdown();
      s.headers(3, REQUEST);
      s.connection.refuseNew();
      s.headers(5, REQUEST).data(1, 'x', true).data(3, 'y', true);
      s.heard();
    },
    output: [
      'goaway 2147483647 NO_ERROR',
      'goaway 3 NO_ERROR',
      'rst 5 REFUSED_STREAM',
      ...['1', '3'].flatMap((id) => [`headers ${id}`, `data ${id} 1`, `headers ${id} end`]),
    ],
  },
];

const FLOW: readonly Case[] = [
  {
    section: '6.9',
    rule: 'a window update of nothing costs the connection on stream 0',
    role: 'server',
    play: (s) => s.say(window(0, 0)),
    ...lost('PROTOCOL_ERROR'),
  },
  {
    section: '6.9',
    rule: 'a window update of nothing costs the stream on a stream',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.say(window(1, 0)),
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '6.9.1',
    rule: 'a window beyond 2^31-1 costs the connection on stream 0',
    role: 'server',
    play: (s) => s.say(window(0, 0x7fffffff)),
    ...lost('FLOW_CONTROL_ERROR'),
  },
  {
    section: '6.9.1',
    rule: 'a window beyond 2^31-1 costs the stream on a stream',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.say(window(1, 0x7fffffff)),
    events: ['reset 1 FLOW_CONTROL_ERROR'],
    output: ['rst 1 FLOW_CONTROL_ERROR'],
  },
  {
    section: '6.9.1',
    rule: 'more DATA than the window of its stream costs the stream',
    role: 'server',
    options: { streamWindow: 10 },
    play: (s) => s.headers(1, REQUEST).heard() && s.data(1, '01234567890'),
    events: ['reset 1 FLOW_CONTROL_ERROR'],
    output: ['rst 1 FLOW_CONTROL_ERROR'],
  },
  {
    section: '6.9.1',
    rule: 'DATA as long as the window of its stream is accepted, and the window opened again',
    role: 'server',
    options: { streamWindow: 10 },
    play: (s) => s.headers(1, REQUEST).heard() && s.data(1, '0123456789'),
    events: ['data 1 0123456789'],
    output: ['window 1 10'],
  },
  {
    section: '6.9.1',
    rule: 'more DATA than the window of the connection costs the connection',
    role: 'server',
    options: {
      connectionWindow: 65_535,
      streamWindow: 100_000,
      above: {
        onHeaders: (stream) => {
          stream.holdCredit = true;
        },
      },
    },
    play: (s) => {
      s.headers(1, REQUEST);
      for (let i = 0; i < 4; i++) s.data(1, new Uint8Array(16_384));
      s.events.splice(0, s.events.length - 2);
    },
    events: ['reset 1 FLOW_CONTROL_ERROR', 'closed FLOW_CONTROL_ERROR'],
    output: ['goaway 1 FLOW_CONTROL_ERROR'],
  },
  {
    section: '6.9.1',
    rule: 'held data opens no window until it is credited',
    role: 'server',
    options: {
      streamWindow: 10,
      above: {
        onHeaders: (stream) => {
          stream.holdCredit = true;
        },
        onData: (stream, bytes, end) => end && stream.credit(bytes.length),
      },
    },
    play: (s) => {
      s.headers(1, REQUEST).data(1, '01234567').heard();
      s.streams.get(1)!.credit(5);
      s.streams.get(1)!.credit(1_000);
    },
    events: [],
    output: ['window 1 5'],
  },
  {
    section: '6.9.1',
    rule: 'we never send more than the windows of the peer admit, and go on when they open',
    role: 'server',
    options: {
      above: {
        onHeaders: (stream) => {
          stream.sendHeaders(RESPONSE);
          stream.sendData(utf8('0123456789'), true);
        },
      },
    },
    play: (s) => {
      s.say(settings([4, 4])).headers(1, REQUEST, true);
      s.say(window(1, 1), window(1, 5));
      s.heard();
    },
    output: ['settings-ack', 'headers 1', 'data 1 4', 'data 1 1', 'data 1 end 5'],
  },
  {
    section: '6.9.2',
    rule: 'a smaller initial window may make windows negative; they must be earned back',
    role: 'server',
    options: answering,
    play: (s) => {
      s.headers(1, REQUEST)
        .say(settings([4, 5]))
        .data(1, '0123456789', true);
      s.say(settings([4, 0]), window(1, 4), settings([4, 1]), window(1, 5));
      s.heard();
    },
    output: [
      'settings-ack',
      'headers 1',
      'data 1 5',
      'settings-ack',
      'settings-ack',
      'data 1 5',
      'headers 1 end',
    ],
  },
  {
    section: '6.9.2',
    rule: 'an initial window that lifts a stream beyond 2^31-1 ends the connection',
    role: 'server',
    play: (s) =>
      s
        .headers(1, REQUEST)
        .say(window(1, 0x7fffffff - 65_535))
        .heard() && s.say(settings([4, 65_536])),
    events: ['reset 1 FLOW_CONTROL_ERROR', 'closed FLOW_CONTROL_ERROR'],
    output: ['goaway 1 FLOW_CONTROL_ERROR'],
  },
];

const wrongRequests: readonly (readonly [string, readonly Header[]])[] = [
  ['an upper-case name', [...REQUEST, ['X-A', '1']]],
  ['a name with a space', [...REQUEST, ['x a', '1']]],
  ['an empty name', [...REQUEST, ['', '1']]],
  ['a value with a line break', [...REQUEST, ['x-a', '1\n2']]],
  ['a value with a zero', [...REQUEST, ['x-a', '1\x002']]],
  ['a value with leading white space', [...REQUEST, ['x-a', ' 1']]],
  ['a value with trailing white space', [...REQUEST, ['x-a', '1\t']]],
  ['connection', [...REQUEST, ['connection', 'close']]],
  ['keep-alive', [...REQUEST, ['keep-alive', '1']]],
  ['proxy-connection', [...REQUEST, ['proxy-connection', '1']]],
  ['transfer-encoding', [...REQUEST, ['transfer-encoding', 'chunked']]],
  ['upgrade', [...REQUEST, ['upgrade', 'h2c']]],
  ['te other than trailers', [...REQUEST, ['te', 'gzip']]],
  ['a pseudo-header behind a regular one', [['x', 'y'], ...REQUEST]],
  ['an unknown pseudo-header', [...REQUEST, [':what', '1']]],
  ['a pseudo-header of responses', [...REQUEST, [':status', '200']]],
  ['no :method', without(':method')],
  ['no :scheme', without(':scheme')],
  ['no :path', without(':path')],
  ['two :path', [...REQUEST, [':path', '/']]],
  ['an empty :path', [...without(':path'), [':path', '']]],
  ['a :path without a slash', [...without(':path'), [':path', 'a']]],
  ['host against :authority', [...REQUEST, ['host', 'c']]],
  ['a content-length that is no number', [...REQUEST, ['content-length', '-1']]],
  ['two content-lengths', [...REQUEST, ['content-length', '1'], ['content-length', '2']]],
  ['a content-length and no content', [...REQUEST, ['content-length', '1']]],
  [
    'CONNECT with :path',
    [
      [':method', 'CONNECT'],
      [':path', '/'],
      [':authority', 'a'],
    ],
  ],
];

const MESSAGES: readonly Case[] = [
  ...wrongRequests.map(
    ([what, headers]): Case => ({
      section: /content-length/.test(what)
        ? '8.1.1'
        : /:|pseudo|host|CONNECT/.test(what)
          ? '8.3.1'
          : '8.2',
      rule: `a request with ${what} is malformed`,
      role: 'server',
      play: (s) => s.headers(1, headers, true),
      ...refused,
    }),
  ),
  {
    section: '8.3.1',
    rule: 'OPTIONS * and CONNECT are requests too',
    role: 'server',
    play: (s) => {
      s.headers(1, [...without(':path').slice(1), [':method', 'OPTIONS'], [':path', '*']], true);
      s.headers(
        3,
        [
          [':method', 'CONNECT'],
          [':authority', 'a:1'],
        ],
        true,
      );
    },
    events: [
      'headers 1 end :scheme=http,:authority=b,:method=OPTIONS,:path=*',
      'headers 3 end :method=CONNECT,:authority=a:1',
    ],
    output: [],
  },
  {
    section: '8.1',
    rule: 'a request with content and trailers comes in order, and is answered the same way',
    role: 'server',
    options: { above: { onTrailers: (stream) => stream.sendHeaders(RESPONSE, true) } },
    play: (s) =>
      s
        .headers(1, REQUEST)
        .data(1, 'x')
        .headers(1, [['t', '1']], true),
    events: [`headers 1 ${A}`, 'data 1 x', 'trailers 1 t=1'],
    output: ['headers 1 end'],
  },
  {
    section: '8.1',
    rule: 'trailers that do not end the stream are malformed',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.headers(1, [['t', '1']]),
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1',
    rule: 'trailers with a pseudo-header are malformed',
    role: 'server',
    play: (s) => s.headers(1, REQUEST).heard() && s.headers(1, [[':path', '/']], true),
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1.1',
    rule: 'content as long as content-length is accepted',
    role: 'server',
    play: (s) =>
      s.headers(1, [...REQUEST, ['content-length', '2']]).heard() &&
      s.data(1, 'a').data(1, 'b', true),
    events: ['data 1 a', 'data 1 end b'],
    output: [],
  },
  {
    section: '8.1.1',
    rule: 'more content than content-length is malformed at once',
    role: 'server',
    play: (s) => s.headers(1, [...REQUEST, ['content-length', '2']]).heard() && s.data(1, 'abc'),
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1.1',
    rule: 'less content than content-length is malformed at its end',
    role: 'server',
    play: (s) =>
      s.headers(1, [...REQUEST, ['content-length', '2']]).heard() && s.data(1, 'a', true),
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1.1',
    rule: 'less content than content-length is malformed before trailers too',
    role: 'server',
    play: (s) =>
      s.headers(1, [...REQUEST, ['content-length', '2']]).heard() &&
      s.headers(1, [['t', '1']], true),
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1',
    rule: 'interim responses come before the real one',
    role: 'client',
    play: (s) => {
      s.connection.request(REQUEST, true);
      s.headers(1, [[':status', '100']]).headers(1, [
        [':status', '103'],
        ['link', 'x'],
      ]);
      s.headers(1, RESPONSE)
        .data(1, 'x')
        .headers(1, [['t', '1']], true);
    },
    events: [
      'interim 1 :status=100',
      'interim 1 :status=103,link=x',
      'headers 1 :status=200',
      'data 1 x',
      'trailers 1 t=1',
    ],
    output: ['headers 1 end'],
  },
  ...(
    [
      ['an interim response that ends the stream', [[':status', '100']]],
      ['a response without :status', [['a', 'b']]],
      ['a response with two :status', [...RESPONSE, ...RESPONSE]],
      ['a response with a :status of four digits', [[':status', '2000']]],
      ['a response with a pseudo-header of requests', [...RESPONSE, [':path', '/']]],
      ['a response with connection', [...RESPONSE, ['connection', 'close']]],
      ['a response with a content-length and no content', [...RESPONSE, ['content-length', '5']]],
    ] as readonly (readonly [string, readonly Header[]])[]
  ).map(
    ([what, headers]): Case => ({
      section: '8.3.2',
      rule: `${what} is malformed`,
      role: 'client',
      play: (s) => {
        s.connection.request(REQUEST, true);
        s.headers(1, headers, true);
      },
      events: ['reset 1 PROTOCOL_ERROR'],
      output: ['headers 1 end', 'rst 1 PROTOCOL_ERROR'],
    }),
  ),
  {
    section: '8.6',
    rule: '101 is no interim response of HTTP/2',
    role: 'client',
    play: (s) => {
      s.connection.request(REQUEST, true);
      s.headers(1, [[':status', '101']]);
    },
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['headers 1 end', 'rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1',
    rule: 'DATA before the response is malformed',
    role: 'client',
    play: (s) => {
      s.connection.request(REQUEST, true);
      s.data(1, 'x');
    },
    events: ['reset 1 PROTOCOL_ERROR'],
    output: ['headers 1 end', 'rst 1 PROTOCOL_ERROR'],
  },
  {
    section: '8.1.1',
    rule: 'a response to HEAD, and 304, may name a length without content',
    role: 'client',
    play: (s) => {
      s.connection.request([[':method', 'HEAD'], ...REQUEST.slice(1)], true);
      s.connection.request(REQUEST, true);
      s.headers(1, [...RESPONSE, ['content-length', '5']], true);
      s.headers(
        3,
        [
          [':status', '304'],
          ['content-length', '5'],
        ],
        true,
      );
    },
    events: [
      'headers 1 end :status=200,content-length=5',
      'headers 3 end :status=304,content-length=5',
    ],
    output: ['headers 1 end', 'headers 3 end'],
  },
  {
    section: '8.6',
    rule: 'an early and complete answer may be followed by a reset without error',
    role: 'server',
    options: {
      above: {
        onHeaders: (stream) => {
          stream.sendHeaders(RESPONSE, true);
          stream.reset(0);
        },
      },
    },
    play: (s) => s.headers(1, REQUEST).heard() && s.data(1, 'late', true),
    events: [],
    output: ['headers 1 end', 'rst 1 NO_ERROR'],
  },
  {
    section: 'HPACK 4.2',
    rule: 'a peer with a smaller table is obeyed from the next block on',
    role: 'server',
    options: answering,
    play: (s) => {
      s.say(settings([1, 0]))
        .headers(1, REQUEST, true)
        .heard();
      if (s.connection.peerSettings.headerTableSize !== 0) throw new Error('not applied');
    },
    output: ['settings-ack', 'headers 1 end'],
  },
  {
    section: 'HPACK 2.3.2',
    rule: 'the same bytes mean another field once the table has changed',
    role: 'server',
    play: (s) => {
      const insert = (value: number) => Uint8Array.of(0x83, 0x86, 0x84, 0x40, 1, 0x78, 1, value);
      const newest = Uint8Array.of(0x83, 0x86, 0x84, 0xbe);
      s.bytes(raw(1, 0x5, 1, insert(0x31))).bytes(raw(1, 0x5, 3, newest));
      s.bytes(raw(1, 0x5, 5, newest)).bytes(raw(1, 0x5, 7, insert(0x32)));
      s.bytes(raw(1, 0x5, 9, newest));
    },
    events: [1, 1, 1, 2, 2].map(
      (value, i) => `headers ${i * 2 + 1} end :method=POST,:scheme=http,:path=/,x=${value}`,
    ),
    output: [],
  },
  {
    section: 'HPACK 4.2',
    rule: 'a peer that does not make its table smaller as our settings demand loses the connection',
    role: 'server',
    options: { headerTableBytes: 0 },
    play: (s) => s.bytes(raw(1, 0x5, 1, Uint8Array.of(0x83, 0x86, 0x84))),
    ...lost('COMPRESSION_ERROR'),
  },
  {
    section: 'HPACK A',
    rule: 'the static table has 61 entries',
    role: 'server',
    play: (s) => {
      s.bytes(raw(1, 0x5, 1, Uint8Array.of(0x83, 0x86, 0x84, 0xbd)));
      s.bytes(raw(1, 0x5, 3, Uint8Array.of(0x83, 0x86, 0x84, 0xbe)));
    },
    events: [
      'headers 1 end :method=POST,:scheme=http,:path=/,www-authenticate=',
      'reset 1 COMPRESSION_ERROR',
      'closed COMPRESSION_ERROR',
    ],
  },
  {
    section: 'HPACK 4.4',
    rule: 'a field larger than the table empties it and is not kept',
    role: 'server',
    play: (s) => {
      const small = Uint8Array.of(0x83, 0x86, 0x84, 0x40, 1, 0x78, 1, 0x31);
      const large = new Uint8Array(9 + 5_000).fill(0x61);
      large.set([0x83, 0x86, 0x84, 0x40, 1, 0x79, 0x7f, 0x89, 0x26]);
      s.bytes(raw(1, 0x5, 1, small))
        .bytes(raw(1, 0x5, 3, large))
        .heard();
      s.bytes(raw(1, 0x5, 5, Uint8Array.of(0xbe)));
    },
    ...lost('COMPRESSION_ERROR', 3),
    events: ['reset 1 COMPRESSION_ERROR', 'reset 3 COMPRESSION_ERROR', 'closed COMPRESSION_ERROR'],
  },
  {
    section: 'HPACK 5.2',
    rule: 'a Huffman string padded with anything but ones ends the connection',
    role: 'server',
    play: (s) => s.bytes(raw(1, 0x5, 1, Uint8Array.of(0x83, 0x86, 0x84, 0, 1, 0x78, 0x81, 0x00))),
    ...lost('COMPRESSION_ERROR'),
  },
  {
    section: 'HPACK 6.3',
    rule: 'a peer that takes a larger table than we allow loses the connection',
    role: 'server',
    play: (s) => s.bytes(raw(1, 0x5, 1, Uint8Array.of(0x3f, 0xe2, 0x1f, 0x82))),
    ...lost('COMPRESSION_ERROR'),
  },
];

export const CASES: readonly Case[] = [...CONNECTION, ...STATES, ...FRAMES, ...FLOW, ...MESSAGES];

/** What differs from what must be, or undefined when the rule holds. */
export function broken(test: Case, make?: ScriptOptions['make']): string | undefined {
  const script = new Script(test.role, { ...test.options, ...(make ? { make } : {}) });
  if (test.options?.bare !== true) script.heard();
  test.play(script);
  const differs = (what: string, got: readonly string[], wanted?: readonly string[]) =>
    wanted && got.join('\n') !== wanted.join('\n')
      ? `${what}: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`
      : undefined;
  return (
    differs('events', script.heard(), test.events) ??
    differs('output', script.output(), test.output)
  );
}
