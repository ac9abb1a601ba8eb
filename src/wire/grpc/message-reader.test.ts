import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Bytes, concatBytes } from '../../base/bytes.ts';
import { HoldfastError } from '../../model/errors.ts';
import { frameMessage, MessageReader, wholeMessage } from './message-reader.ts';

/** Feeds the chunks and answers every message, then the text of the error if there was one. */
function read(chunks: readonly Bytes[], bytesMax: number): string[] {
  const reader = new MessageReader({ bytesMax, decompress: (bytes) => bytes.slice().reverse() });
  const out: string[] = [];
  try {
    for (const chunk of chunks) {
      reader.push(chunk);
      for (let m = reader.next(); m !== undefined; m = reader.next()) out.push(m.join());
    }
    reader.end();
  } catch (error) {
    expect(HoldfastError.is(error)).toBe(true);
    out.push(String(error));
  }
  return out;
}

function cut(bytes: Bytes, places: readonly number[]): Bytes[] {
  const at = [...new Set(places.map((p) => p % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((start, i) => bytes.slice(start, at[i] ?? bytes.length));
}

const stream = fc
  .array(fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.boolean()), { maxLength: 6 })
  .map((messages) => concatBytes(...messages.map(([m, packed]) => frameMessage(m, packed))));

describe('the reader of messages', () => {
  test('gives the same messages and errors however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.oneof(stream, fc.uint8Array({ maxLength: 60 })),
        fc.array(fc.nat(), { maxLength: 12 }),
        (bytes, places) => {
          expect(read(cut(bytes, places), 30)).toEqual(read([bytes], 30));
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('gives back what was framed, several messages in a chunk too', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (messages) => {
        const bytes = concatBytes(...messages.map((m) => frameMessage(m)));
        expect(read([bytes], 300)).toEqual(messages.map((m) => m.join()));
      }),
    );
  });

  test('a long prefix costs no memory before its bytes come', () => {
    const reader = new MessageReader({ bytesMax: 2 ** 31 });
    reader.push(Uint8Array.of(0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3));
    expect(reader.next()).toBeUndefined();
    expect(reader.pending).toBe(8);
  });

  test('a message above the limit is refused by its prefix alone', () => {
    expect(read([Uint8Array.of(0, 0, 0, 0, 31)], 30)[0]).toContain('larger than max (31 vs. 30)');
  });

  test('a compressed message without an encoding is refused', () => {
    const reader = new MessageReader({ bytesMax: 10 });
    reader.push(frameMessage(Uint8Array.of(1), true));
    expect(() => reader.next()).toThrow('without a known encoding');
    expect(() => reader.next()).toThrow('without a known encoding');
  });

  test('the fast way agrees with the reader', () => {
    fc.assert(
      fc.property(fc.oneof(stream, fc.uint8Array({ maxLength: 12 })), (bytes) => {
        const whole = wholeMessage(bytes, 30);
        if (whole) expect(read([bytes], 30)).toEqual([whole.join()]);
      }),
      { numRuns: 1_000 },
    );
    expect(wholeMessage(frameMessage(Uint8Array.of(5, 6)), 30)).toEqual(Uint8Array.of(5, 6));
  });
});
