import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HoldfastError } from '../../model/errors.ts';
import {
  binaryValue,
  decodeBinary,
  encodeBinary,
  metadataFields,
  receivedMetadata,
} from './metadata.ts';
import { clientHeaders, isGrpcContentType, readRequest } from './request.ts';
import { readResponse, readTrailers } from './response.ts';
import { decodeMessage, encodeMessage, receivedStatus, statusFields } from './status.ts';
import { formatTimeout, parseTimeout } from './timeout.ts';

describe('a timeout', () => {
  test.each([
    ['1H', 3_600_000],
    ['2M', 120_000],
    ['3S', 3_000],
    ['4m', 4],
    ['5u', 0.005],
    ['6n', 0.000006],
    ['99999999S', 99_999_999_000],
    ['0m', 0],
  ])('%s is %d ms', (value, ms) => {
    expect(parseTimeout(value)).toBeCloseTo(ms, 9);
  });

  test.each(['', '1', 'S', '1s', '-1S', '1.5S', ' 1S', '123456789S', '1SS'])(
    '%j is none',
    (value) => {
      expect(parseTimeout(value)).toBeUndefined();
    },
  );

  test('is written in at most nine characters and never shorter than asked', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 3e14, noNaN: true }), (ms) => {
        const value = formatTimeout(ms);
        expect(value).toMatch(/^[0-9]{1,8}[HMSm]$/);
        expect(parseTimeout(value)!).toBeGreaterThanOrEqual(ms);
      }),
    );
    expect([5_000, 0.2, -1, 1_500].map(formatTimeout)).toEqual(['5S', '1m', '0m', '1500m']);
  });
});

describe('a status message', () => {
  test('comes back as it was, whatever is in it, and goes out as printable ASCII', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 100 }), (message) => {
        const encoded = encodeMessage(message);
        expect(encoded).toMatch(/^[\x20-\x7e]*$/);
        expect(decodeMessage(encoded)).toBe(message.trim());
      }),
    );
    expect(encodeMessage('100% \u20ac\n!')).toBe('100%25 %E2%82%AC%0A!');
  });

  test('that is not well encoded is read as far as it goes', () => {
    expect(decodeMessage('a%zz%4')).toBe('a%zz%4');
    expect(decodeMessage('%ff')).toBe('\ufffd');
  });

  test('that is very long is cut', () => {
    expect(encodeMessage('x'.repeat(100_000))).toHaveLength(4_096);
  });
});

describe('trailers', () => {
  test('carry code, text and details', () => {
    const fields = statusFields({ code: 9, message: 'n\u00f6' }, Uint8Array.of(1, 2));
    expect(receivedStatus(fields)).toEqual({
      code: 9,
      message: 'n\u00f6',
      details: Uint8Array.of(1, 2),
    });
    expect(receivedStatus([['x', 'y']])).toBeUndefined();
    expect(receivedStatus([['grpc-status', 'x']])?.code).toBe(2);
  });

  test('without a status, or an answer that is not gRPC, end a call with an error', () => {
    expect(readTrailers([]).code).toBe(2);
    const status = (headers: [string, string][], end = true) => {
      const head = readResponse(headers, end);
      return head.type === 'ended' ? head.status.code : head.type;
    };
    const html: [string, string][] = [
      [':status', '502'],
      ['content-type', 'text/html'],
    ];
    expect(status(html)).toBe(14);
    expect(status(html, false)).toBe(14);
    expect(status([[':status', '404']])).toBe(12);
    expect(
      status(
        [
          [':status', '200'],
          ['content-type', 'application/grpc'],
        ],
        false,
      ),
    ).toBe('open');
    const snappy: [string, string][] = [
      [':status', '200'],
      ['content-type', 'application/grpc'],
      ['grpc-encoding', 'snappy'],
    ];
    expect(status(snappy, false)).toBe(12);
    expect(
      status([
        [':status', '200'],
        ['grpc-status', '7'],
      ]),
    ).toBe(7);
  });
});

describe('metadata', () => {
  test('of bytes goes as base64 without padding and is read with or without', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const encoded = encodeBinary(bytes);
        expect(encoded).not.toContain('=');
        expect(decodeBinary(encoded)).toEqual(bytes);
        expect(decodeBinary(btoa(String.fromCharCode(...bytes)))).toEqual(bytes);
      }),
    );
    expect(decodeBinary('a b')).toBeUndefined();
    expect(binaryValue([['x-bin', 'AQ, Ag']], 'x-bin')).toEqual(Uint8Array.of(1));
  });

  test('comes back; what belongs to the transport is not part of it', () => {
    const fields = metadataFields([
      ['token', 'abc'],
      ['x-bin', Uint8Array.of(1, 2)],
    ]);
    const all = [[':path', '/a/b'] as const, ['te', 'trailers'] as const, ...fields];
    expect(receivedMetadata([...all, ['y-bin', 'AQ,??,Ag']])).toEqual([
      ['token', 'abc'],
      ['x-bin', Uint8Array.of(1, 2)],
      ['y-bin', Uint8Array.of(1)],
      ['y-bin', Uint8Array.of(2)],
    ]);
  });

  test.each([
    [[['grpc-x', 'a']]],
    [[[':path', 'a']]],
    [[['Upper', 'a']]],
    [[['x', '\u20ac']]],
    [[['x', 'a\nb']]],
    [[['x-bin', 'text']]],
    [[['x', Uint8Array.of(1)]]],
  ] as const)('that cannot be sent is refused: %j', (metadata) => {
    expect(() => metadataFields(metadata)).toThrow(HoldfastError);
  });
});

describe('a request', () => {
  test('of our client is one our server reads', () => {
    const headers = clientHeaders({
      path: '/etcdserverpb.KV/Range',
      scheme: 'http',
      authority: 'h:1',
      userAgent: 'holdfast',
      timeout: '5S',
      metadata: [['token', 't']],
    });
    expect(readRequest(headers)).toMatchObject({
      type: 'call',
      path: '/etcdserverpb.KV/Range',
      timeoutMs: 5_000,
      encoding: 'identity',
      acceptsGzip: true,
    });
  });

  test('must have the media type of gRPC', () => {
    const types = ['application/grpc', 'application/grpc+proto', 'application/grpc;x=1'];
    expect(types.every(isGrpcContentType)).toBe(true);
    const others = ['application/grpc-web', 'application/grpc+json', 'application/json', undefined];
    expect(others.some(isGrpcContentType)).toBe(false);
  });
});
