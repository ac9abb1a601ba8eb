/**
 * A connection under test, and everything it does as plain text: events as `headers 1 end`, output as
 * `rst 1 PROTOCOL_ERROR`. Cases and properties compare these lines.
 */
import { type Bytes, concatBytes, EMPTY, text } from '../../src/base/bytes.ts';
import {
  Connection,
  type ConnectionOptions,
  type Role,
  type StreamHandler,
} from '../../src/wire/http2/connection.ts';
import { errorName } from '../../src/wire/http2/errors.ts';
import { decodeFrame, encodeFrame, type Frame, PREFACE } from '../../src/wire/http2/frame.ts';
import type { Header, HeaderList } from '../../src/wire/http2/headers.ts';
import { HpackEncoder } from '../../src/wire/http2/hpack/encode.ts';
import { BufferPool, OutputBuffer } from '../../src/wire/http2/output.ts';
import type { Stream } from '../../src/wire/http2/stream.ts';

export type MakeConnection = (role: Role, options: ConnectionOptions) => Connection;

const plain: MakeConnection = (role, options) => new Connection(role, options);

export interface ScriptOptions extends Partial<Omit<ConnectionOptions, 'handler' | 'control'>> {
  readonly make?: MakeConnection;
  /** What the layer above does; it sees each event after it has been written down. */
  readonly above?: Partial<StreamHandler>;
  /** Without SETTINGS exchanged at the start. */
  readonly bare?: boolean;
}

/** Writes each event down as a line. */
function recorder(lines: string[], above: Partial<StreamHandler>): StreamHandler {
  const end = (last: boolean): string => (last ? ' end' : '');
  return {
    onHeaders(stream, headers, last) {
      lines.push(`headers ${stream.id}${end(last)} ${show(headers)}`);
      above.onHeaders?.(stream, headers, last);
    },
    onData(stream, bytes, last) {
      lines.push(`data ${stream.id}${end(last)} ${text(bytes)}`);
      above.onData?.(stream, bytes, last);
    },
    onTrailers(stream, headers) {
      lines.push(`trailers ${stream.id} ${show(headers)}`);
      above.onTrailers?.(stream, headers);
    },
    onInterim(stream, headers) {
      lines.push(`interim ${stream.id} ${show(headers)}`);
      above.onInterim?.(stream, headers);
    },
    onReset(stream, code) {
      lines.push(`reset ${stream.id} ${errorName(code)}`);
      above.onReset?.(stream, code);
    },
    onDrain(stream) {
      lines.push(`drain ${stream.id}`);
      above.onDrain?.(stream);
    },
  };
}

const show = (headers: HeaderList): string => headers.map(([n, v]) => `${n}=${v}`).join(',');

export class Script {
  readonly connection: Connection;
  readonly role: Role;
  readonly events: string[] = [];
  readonly streams: Map<number, Stream> = new Map();
  /** Compresses what the script says to the connection. */
  readonly encoder: HpackEncoder = new HpackEncoder();
  /** All frames the connection has written and nobody has looked at. */
  #written: Bytes = EMPTY;
  now = 1_000;

  constructor(role: Role, options: ScriptOptions = {}) {
    const { make = plain, above = {}, bare = false, ...rest } = options;
    this.role = role;
    this.connection = make(role, {
      ...rest,
      handler: recorder(this.events, {
        ...above,
        onHeaders: (stream, headers, end) => {
          this.streams.set(stream.id, stream);
          above.onHeaders?.(stream, headers, end);
        },
      }),
      control: {
        onGoaway: (last, code) => this.events.push(`goaway ${last} ${errorName(code)}`),
        onPingAck: (payload) => this.events.push(`pong ${text(payload)}`),
        onClosed: (fault) => this.events.push(fault ? `closed ${errorName(fault.code)}` : 'closed'),
      },
    });
    if (bare) return;
    if (role === 'server') this.bytes(PREFACE);
    this.say(
      { type: 'settings', ack: false, entries: [] },
      { type: 'settings', ack: true, entries: [] },
    );
    this.output();
  }

  bytes(bytes: Bytes): this {
    this.connection.receive(bytes, this.now);
    return this;
  }

  say(...frames: readonly Frame[]): this {
    return this.bytes(concatBytes(...frames.map(encodeFrame)));
  }

  block(headers: readonly Header[]): Bytes {
    return encodeBlock(this.encoder, headers);
  }

  /** HEADERS of a request (or whatever `headers` says). */
  headers(stream: number, headers: readonly Header[], end = false): this {
    return this.say({
      type: 'headers',
      stream,
      endStream: end,
      endHeaders: true,
      block: this.block(headers),
    });
  }

  data(stream: number, content: string | Bytes, end = false): this {
    const data = typeof content === 'string' ? new TextEncoder().encode(content) : content;
    return this.say({ type: 'data', stream, endStream: end, data });
  }

  /** Raw bytes written since last asked. */
  taken(): Bytes {
    const parts: Bytes[] = [this.#written];
    this.#written = EMPTY;
    for (;;) {
      const bytes = this.connection.takeOutput();
      if (bytes.length === 0) break;
      parts.push(bytes.slice());
      this.connection.giveBack(bytes);
    }
    return concatBytes(...parts);
  }

  /** Frames written since last asked. */
  frames(): Frame[] {
    const bytes = this.taken();
    const frames: Frame[] = [];
    let at = startsWithPreface(bytes) ? PREFACE.length : 0;
    while (at < bytes.length) {
      const next = decodeFrame(bytes, at);
      if (!next) throw new Error('the connection wrote something that is no frame');
      frames.push(next.frame);
      at = next.end;
    }
    return frames;
  }

  /** The same as lines. */
  output(): string[] {
    return this.frames().map(line);
  }

  /** Events since last asked. */
  heard(): string[] {
    return this.events.splice(0);
  }
}

function startsWithPreface(bytes: Bytes): boolean {
  return bytes.length >= PREFACE.length && PREFACE.every((byte, i) => bytes[i] === byte);
}

export function encodeBlock(encoder: HpackEncoder, headers: readonly Header[]): Bytes {
  const out = new OutputBuffer(new BufferPool());
  encoder.encode(headers, out);
  return out.copy(0);
}

export function line(frame: Frame): string {
  const end = 'endStream' in frame && frame.endStream ? ' end' : '';
  switch (frame.type) {
    case 'data':
      return `data ${frame.stream}${end} ${frame.data.length}`;
    case 'headers':
      return `headers ${frame.stream}${end}${frame.endHeaders ? '' : ' more'}`;
    case 'continuation':
      return `continuation ${frame.stream}${frame.endHeaders ? '' : ' more'}`;
    case 'rst-stream':
      return `rst ${frame.stream} ${errorName(frame.code)}`;
    case 'goaway':
      return `goaway ${frame.lastStream} ${errorName(frame.code)}`;
    case 'settings':
      return frame.ack ? 'settings-ack' : 'settings';
    case 'ping':
      return frame.ack ? 'pong' : 'ping';
    case 'window-update':
      return `window ${frame.stream} ${frame.increment}`;
    default:
      return frame.type;
  }
}

export const REQUEST: readonly Header[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/a'],
  [':authority', 'b'],
];

export const RESPONSE: readonly Header[] = [[':status', '200']];
