/** SETTINGS (RFC 9113, section 6.5): the values of either side, read and written. */
import { type Bytes, getUint32, putUint32 } from '../../base/bytes.ts';
import { type Fault, FLOW_CONTROL_ERROR, PROTOCOL_ERROR } from './errors.ts';

export interface Settings {
  readonly headerTableSize: number;
  readonly enablePush: boolean;
  readonly maxConcurrentStreams: number;
  readonly initialWindowSize: number;
  readonly maxFrameSize: number;
  readonly maxHeaderListSize: number;
}

/** What holds until a peer says otherwise. */
export const INITIAL_SETTINGS: Settings = Object.freeze({
  headerTableSize: 4_096,
  enablePush: true,
  maxConcurrentStreams: Number.POSITIVE_INFINITY,
  initialWindowSize: 65_535,
  maxFrameSize: 16_384,
  maxHeaderListSize: Number.POSITIVE_INFINITY,
});

export const WINDOW_MAX = 0x7fffffff;
export const FRAME_BYTES_MIN = 16_384;
export const FRAME_BYTES_MAX = 16_777_215;

const HEADER_TABLE_SIZE = 1;
const ENABLE_PUSH = 2;
const MAX_CONCURRENT_STREAMS = 3;
const INITIAL_WINDOW_SIZE = 4;
const MAX_FRAME_SIZE = 5;
const MAX_HEADER_LIST_SIZE = 6;

export const ENTRY_BYTES = 6;

/** Applies the entries in `bytes[start, end)` in order; unknown ones are ignored. */
export function applySettings(
  known: Settings,
  bytes: Bytes,
  start: number,
  end: number,
): Settings | Fault {
  const next = { ...known };
  for (let at = start; at < end; at += ENTRY_BYTES) {
    const id = bytes[at]! * 256 + bytes[at + 1]!;
    const value = getUint32(bytes, at + 2);
    switch (id) {
      case HEADER_TABLE_SIZE:
        next.headerTableSize = value;
        break;
      case ENABLE_PUSH:
        if (value > 1) return { code: PROTOCOL_ERROR, reason: 'ENABLE_PUSH is neither 0 nor 1' };
        next.enablePush = value === 1;
        break;
      case MAX_CONCURRENT_STREAMS:
        next.maxConcurrentStreams = value;
        break;
      case INITIAL_WINDOW_SIZE:
        if (value > WINDOW_MAX) {
          return { code: FLOW_CONTROL_ERROR, reason: 'INITIAL_WINDOW_SIZE is too large' };
        }
        next.initialWindowSize = value;
        break;
      case MAX_FRAME_SIZE:
        if (value < FRAME_BYTES_MIN || value > FRAME_BYTES_MAX) {
          return { code: PROTOCOL_ERROR, reason: 'MAX_FRAME_SIZE is out of range' };
        }
        next.maxFrameSize = value;
        break;
      case MAX_HEADER_LIST_SIZE:
        next.maxHeaderListSize = value;
        break;
      default:
        break;
    }
  }
  return next;
}

/** The payload that tells a peer what differs from the initial values. */
export function encodeSettings(settings: Settings): Bytes {
  const entries: [id: number, value: number][] = [];
  const add = (id: number, value: number, initial: number): void => {
    if (value !== initial) entries.push([id, value]);
  };
  const initial = INITIAL_SETTINGS;
  add(HEADER_TABLE_SIZE, settings.headerTableSize, initial.headerTableSize);
  add(ENABLE_PUSH, Number(settings.enablePush), Number(initial.enablePush));
  add(MAX_CONCURRENT_STREAMS, settings.maxConcurrentStreams, initial.maxConcurrentStreams);
  add(INITIAL_WINDOW_SIZE, settings.initialWindowSize, initial.initialWindowSize);
  add(MAX_FRAME_SIZE, settings.maxFrameSize, initial.maxFrameSize);
  add(MAX_HEADER_LIST_SIZE, settings.maxHeaderListSize, initial.maxHeaderListSize);
  const bytes = new Uint8Array(entries.length * ENTRY_BYTES);
  entries.forEach(([id, value], i) => {
    bytes[i * ENTRY_BYTES + 1] = id;
    putUint32(bytes, i * ENTRY_BYTES + 2, value);
  });
  return bytes;
}

/** Whether the entries contain ENABLE_PUSH = 1, which a server must not send. */
export function announcesPush(bytes: Bytes, start: number, end: number): boolean {
  for (let at = start; at < end; at += ENTRY_BYTES) {
    const id = bytes[at]! * 256 + bytes[at + 1]!;
    if (id === ENABLE_PUSH && getUint32(bytes, at + 2) === 1) return true;
  }
  return false;
}

/**
 * The smallest table the entries name, if they name any: the peer may have made its table smaller and
 * larger again within one frame, and its memory of the entries is gone then (RFC 7541, section 4.2).
 */
export function smallestTable(bytes: Bytes, start: number, end: number): number | undefined {
  let smallest: number | undefined;
  for (let at = start; at < end; at += ENTRY_BYTES) {
    if (bytes[at]! * 256 + bytes[at + 1]! !== HEADER_TABLE_SIZE) continue;
    smallest = Math.min(smallest ?? Number.POSITIVE_INFINITY, getUint32(bytes, at + 2));
  }
  return smallest;
}
