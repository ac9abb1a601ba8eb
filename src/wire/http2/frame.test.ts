import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeFrame, encodeFrame, type Frame } from './frame.ts';

const uint31 = fc.integer({ min: 0, max: 0x7fffffff });
const uint32 = fc.integer({ min: 0, max: 0xffffffff });
const stream = fc.integer({ min: 1, max: 0x7fffffff });
const bytes = fc.uint8Array({ maxLength: 300 });
const padding = fc.option(fc.integer({ min: 0, max: 255 }), { nil: undefined });
const priority = fc.record({
  exclusive: fc.boolean(),
  dependency: uint31,
  weight: fc.integer({ min: 1, max: 256 }),
});
const type = <T extends string>(name: T): fc.Arbitrary<T> => fc.constant(name);
const ends = { endStream: fc.boolean(), endHeaders: fc.boolean() };

const frames: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({ type: type('data'), stream, endStream: fc.boolean(), data: bytes, padding }),
  fc.record({
    type: type('headers'),
    stream,
    ...ends,
    block: bytes,
    padding,
    priority: fc.option(priority, { nil: undefined }),
  }),
  fc.record({ type: type('priority'), stream, priority }),
  fc.record({ type: type('rst-stream'), stream, code: uint32 }),
  fc.record({
    type: type('settings'),
    ack: fc.boolean(),
    entries: fc.array(fc.tuple(fc.integer({ min: 0, max: 65_535 }), uint32), { maxLength: 10 }),
  }),
  fc.record({
    type: type('push-promise'),
    stream,
    endHeaders: fc.boolean(),
    promised: uint31,
    block: bytes,
    padding,
  }),
  fc.record({
    type: type('ping'),
    ack: fc.boolean(),
    data: fc.uint8Array({ minLength: 8, maxLength: 8 }),
  }),
  fc.record({ type: type('goaway'), lastStream: uint31, code: uint32, debug: fc.string() }),
  fc.record({ type: type('window-update'), stream: uint31, increment: uint31 }),
  fc.record({ type: type('continuation'), stream, endHeaders: fc.boolean(), block: bytes }),
  fc.record({
    type: type('unknown'),
    code: fc.integer({ min: 10, max: 255 }),
    stream: uint31,
    flags: fc.integer({ min: 0, max: 255 }),
    payload: bytes,
  }),
);

describe('frames', () => {
  it('come back as they were after encoding, one behind the other', () => {
    fc.assert(
      fc.property(frames, frames, (first, second) => {
        const one = encodeFrame(first);
        const both = new Uint8Array([...one, ...encodeFrame(second)]);
        const front = decodeFrame(both)!;
        expect(front).toEqual({ frame: first, end: one.length });
        expect(decodeFrame(both, front.end)?.frame).toEqual(second);
      }),
      { numRuns: 1_000 },
    );
  });

  it('are not taken for whole when cut off anywhere', () => {
    fc.assert(
      fc.property(frames, fc.nat(), (frame, cut) => {
        const whole = encodeFrame(frame);
        expect(decodeFrame(whole.subarray(0, cut % whole.length))).toBeUndefined();
      }),
    );
  });
});
