/**
 * Frames as values (RFC 9113, section 6). The connection works on bytes in place; this is the plain
 * form, for whoever needs frames one by one: tests, peers that misbehave on purpose, dumps.
 */
import {
  type Bytes,
  concatBytes,
  EMPTY,
  getUint32,
  putUint32,
  text,
  utf8,
} from '../../base/bytes.ts';

export const DATA = 0x0;
export const HEADERS = 0x1;
export const PRIORITY = 0x2;
export const RST_STREAM = 0x3;
export const SETTINGS = 0x4;
export const PUSH_PROMISE = 0x5;
export const PING = 0x6;
export const GOAWAY = 0x7;
export const WINDOW_UPDATE = 0x8;
export const CONTINUATION = 0x9;

export const END_STREAM = 0x1;
export const ACK = 0x1;
export const END_HEADERS = 0x4;
export const PADDED = 0x8;
export const WITH_PRIORITY = 0x20;

export const FRAME_HEADER_BYTES = 9;

/** What a client sends first (section 3.4). */
export const PREFACE: Bytes = utf8('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

interface OnStream {
  readonly stream: number;
}

export interface Priority {
  readonly exclusive: boolean;
  readonly dependency: number;
  readonly weight: number;
}

export type Frame =
  | (OnStream & {
      readonly type: 'data';
      readonly endStream: boolean;
      readonly data: Bytes;
      /** Undefined: not padded; 0 is the flag with no padding behind. */
      readonly padding?: number | undefined;
    })
  | (OnStream & {
      readonly type: 'headers';
      readonly endStream: boolean;
      readonly endHeaders: boolean;
      readonly block: Bytes;
      readonly padding?: number | undefined;
      readonly priority?: Priority | undefined;
    })
  | (OnStream & { readonly type: 'priority'; readonly priority: Priority })
  | (OnStream & { readonly type: 'rst-stream'; readonly code: number })
  | {
      readonly type: 'settings';
      readonly ack: boolean;
      readonly entries: readonly (readonly [id: number, value: number])[];
    }
  | (OnStream & {
      readonly type: 'push-promise';
      readonly endHeaders: boolean;
      readonly promised: number;
      readonly block: Bytes;
      readonly padding?: number | undefined;
    })
  | { readonly type: 'ping'; readonly ack: boolean; readonly data: Bytes }
  | {
      readonly type: 'goaway';
      readonly lastStream: number;
      readonly code: number;
      readonly debug: string;
    }
  | (OnStream & { readonly type: 'window-update'; readonly increment: number })
  | (OnStream & {
      readonly type: 'continuation';
      readonly endHeaders: boolean;
      readonly block: Bytes;
    })
  | (OnStream & {
      readonly type: 'unknown';
      readonly code: number;
      readonly flags: number;
      readonly payload: Bytes;
    });

/** Writes the nine bytes before a payload. */
export function putFrameHeader(
  target: Bytes,
  offset: number,
  length: number,
  type: number,
  flags: number,
  stream: number,
): void {
  target[offset] = length >>> 16;
  target[offset + 1] = length >>> 8;
  target[offset + 2] = length;
  target[offset + 3] = type;
  target[offset + 4] = flags;
  target[offset + 5] = stream >>> 24;
  target[offset + 6] = stream >>> 16;
  target[offset + 7] = stream >>> 8;
  target[offset + 8] = stream;
}

/** Any frame, also one that no honest peer would send. */
export function rawFrame(type: number, flags: number, stream: number, payload: Bytes): Bytes {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  putFrameHeader(bytes, 0, payload.length, type, flags, stream);
  bytes.set(payload, FRAME_HEADER_BYTES);
  return bytes;
}

function uint32(...values: readonly number[]): Bytes {
  const bytes = new Uint8Array(values.length * 4);
  values.forEach((value, i) => {
    putUint32(bytes, i * 4, value);
  });
  return bytes;
}

function padded(padding: number | undefined, body: Bytes): Bytes {
  if (padding === undefined) return body;
  return concatBytes(Uint8Array.of(padding), body, new Uint8Array(padding));
}

function priorityBytes(priority: Priority): Bytes {
  const dependency = priority.dependency + (priority.exclusive ? 0x80000000 : 0);
  return concatBytes(uint32(dependency), Uint8Array.of(priority.weight - 1));
}

function settingsBytes(entries: readonly (readonly [number, number])[]): Bytes {
  return concatBytes(
    ...entries.map(([id, value]) => concatBytes(Uint8Array.of(id >>> 8, id), uint32(value))),
  );
}

const flag = (on: boolean, bit: number): number => (on ? bit : 0);

export function encodeFrame(frame: Frame): Bytes {
  switch (frame.type) {
    case 'data': {
      const flags = flag(frame.endStream, END_STREAM) | flag(frame.padding !== undefined, PADDED);
      return rawFrame(DATA, flags, frame.stream, padded(frame.padding, frame.data));
    }
    case 'headers': {
      const flags =
        flag(frame.endStream, END_STREAM) |
        flag(frame.endHeaders, END_HEADERS) |
        flag(frame.padding !== undefined, PADDED) |
        flag(frame.priority !== undefined, WITH_PRIORITY);
      const priority = frame.priority ? priorityBytes(frame.priority) : EMPTY;
      const body = padded(frame.padding, concatBytes(priority, frame.block));
      return rawFrame(HEADERS, flags, frame.stream, body);
    }
    case 'priority':
      return rawFrame(PRIORITY, 0, frame.stream, priorityBytes(frame.priority));
    case 'rst-stream':
      return rawFrame(RST_STREAM, 0, frame.stream, uint32(frame.code));
    case 'settings':
      return rawFrame(SETTINGS, flag(frame.ack, ACK), 0, settingsBytes(frame.entries));
    case 'push-promise': {
      const flags = flag(frame.endHeaders, END_HEADERS) | flag(frame.padding !== undefined, PADDED);
      const body = padded(frame.padding, concatBytes(uint32(frame.promised), frame.block));
      return rawFrame(PUSH_PROMISE, flags, frame.stream, body);
    }
    case 'ping':
      return rawFrame(PING, flag(frame.ack, ACK), 0, frame.data);
    case 'goaway':
      return rawFrame(
        GOAWAY,
        0,
        0,
        concatBytes(uint32(frame.lastStream, frame.code), utf8(frame.debug)),
      );
    case 'window-update':
      return rawFrame(WINDOW_UPDATE, 0, frame.stream, uint32(frame.increment));
    case 'continuation':
      return rawFrame(CONTINUATION, flag(frame.endHeaders, END_HEADERS), frame.stream, frame.block);
    case 'unknown':
      return rawFrame(frame.code, frame.flags, frame.stream, frame.payload);
  }
}

/** A whole frame at `offset` and where the next begins; undefined when it is cut off or wrong. */
export function decodeFrame(
  bytes: Bytes,
  offset = 0,
): { readonly frame: Frame; readonly end: number } | undefined {
  const start = offset + FRAME_HEADER_BYTES;
  if (bytes.length < start) return undefined;
  const end = start + (getUint32(bytes, offset) >>> 8);
  if (bytes.length < end) return undefined;
  const frame = parsePayload(
    bytes[offset + 3]!,
    bytes[offset + 4]!,
    getUint32(bytes, offset + 5) & 0x7fffffff,
    bytes.subarray(start, end),
  );
  return frame && { frame, end };
}

/** Takes the padding off; undefined when there is more padding than payload. */
function unpad(
  flags: number,
  payload: Bytes,
): { body: Bytes; padding: number | undefined } | undefined {
  if ((flags & PADDED) === 0) return { body: payload, padding: undefined };
  const padding = payload[0];
  if (padding === undefined || padding + 1 > payload.length) return undefined;
  return { body: payload.subarray(1, payload.length - padding), padding };
}

function parsePriority(bytes: Bytes): Priority {
  const first = getUint32(bytes, 0);
  return {
    exclusive: first >= 0x80000000,
    dependency: first & 0x7fffffff,
    weight: bytes[4]! + 1,
  };
}

function parsePayload(
  type: number,
  flags: number,
  stream: number,
  payload: Bytes,
): Frame | undefined {
  const { length } = payload;
  switch (type) {
    case DATA: {
      const parts = unpad(flags, payload);
      return (
        parts && {
          type: 'data',
          stream,
          endStream: (flags & END_STREAM) !== 0,
          data: parts.body,
          padding: parts.padding,
        }
      );
    }
    case HEADERS:
      return parseHeaders(flags, stream, payload);
    case PRIORITY:
      if (length !== 5) return undefined;
      return { type: 'priority', stream, priority: parsePriority(payload) };
    case RST_STREAM:
      if (length !== 4) return undefined;
      return { type: 'rst-stream', stream, code: getUint32(payload, 0) };
    case SETTINGS: {
      if (length % 6 !== 0) return undefined;
      const entries: [number, number][] = [];
      for (let at = 0; at < length; at += 6) {
        entries.push([payload[at]! * 256 + payload[at + 1]!, getUint32(payload, at + 2)]);
      }
      return { type: 'settings', ack: (flags & ACK) !== 0, entries };
    }
    case PUSH_PROMISE: {
      const parts = unpad(flags, payload);
      if (!parts || parts.body.length < 4) return undefined;
      return {
        type: 'push-promise',
        stream,
        endHeaders: (flags & END_HEADERS) !== 0,
        promised: getUint32(parts.body, 0) & 0x7fffffff,
        block: parts.body.subarray(4),
        padding: parts.padding,
      };
    }
    case PING:
      if (length !== 8) return undefined;
      return { type: 'ping', ack: (flags & ACK) !== 0, data: payload };
    case GOAWAY:
      if (length < 8) return undefined;
      return {
        type: 'goaway',
        lastStream: getUint32(payload, 0) & 0x7fffffff,
        code: getUint32(payload, 4),
        debug: text(payload.subarray(8)),
      };
    case WINDOW_UPDATE:
      if (length !== 4) return undefined;
      return { type: 'window-update', stream, increment: getUint32(payload, 0) & 0x7fffffff };
    case CONTINUATION:
      return {
        type: 'continuation',
        stream,
        endHeaders: (flags & END_HEADERS) !== 0,
        block: payload,
      };
    default:
      return { type: 'unknown', code: type, stream, flags, payload };
  }
}

function parseHeaders(flags: number, stream: number, payload: Bytes): Frame | undefined {
  const parts = unpad(flags, payload);
  if (!parts) return undefined;
  const prioritised = (flags & WITH_PRIORITY) !== 0;
  if (prioritised && parts.body.length < 5) return undefined;
  return {
    type: 'headers',
    stream,
    endStream: (flags & END_STREAM) !== 0,
    endHeaders: (flags & END_HEADERS) !== 0,
    block: prioritised ? parts.body.subarray(5) : parts.body,
    padding: parts.padding,
    priority: prioritised ? parsePriority(parts.body) : undefined,
  };
}
