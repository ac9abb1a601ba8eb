import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Bytes, toHex } from '../../../base/bytes.ts';
import type { Header } from '../headers.ts';
import { BufferPool, OutputBuffer } from '../output.ts';
import { HpackDecoder } from './decode.ts';
import { HpackEncoder } from './encode.ts';
import { decodeHuffman, encodeHuffman, huffmanLength } from './huffman.ts';

const LIMITS = { headerListBytes: 65_536, headers: 1_000 };

function hex(text: string): Bytes {
  const digits = text.replace(/\s/g, '');
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) =>
    Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16),
  );
}

function decode(decoder: HpackDecoder, block: Bytes): readonly Header[] | string {
  return decoder.decode(block, 0, block.length)?.list ?? decoder.fault;
}

function encode(encoder: HpackEncoder, list: readonly Header[]): Bytes {
  const out = new OutputBuffer(new BufferPool());
  encoder.encode(list, out);
  return out.copy(0);
}

const GET: Header[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/'],
  [':authority', 'www.example.com'],
];
const REQUESTS: readonly Header[][] = [
  GET,
  [...GET, ['cache-control', 'no-cache']],
  [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ],
];
const RESPONSES: readonly Header[][] = [
  [
    [':status', '302'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ],
  [
    [':status', '307'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ],
  [
    [':status', '200'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
    ['location', 'https://www.example.com'],
    ['content-encoding', 'gzip'],
    ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
  ],
];

/** Section, table size, blocks, lists, and the table's size after each block. */
const VECTORS: readonly [string, number, readonly string[], readonly Header[][], number[]][] = [
  [
    'C.2.1 literal with indexing',
    4_096,
    ['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572'],
    [[['custom-key', 'custom-header']]],
    [55],
  ],
  [
    'C.2.2 literal without indexing',
    4_096,
    ['040c 2f73 616d 706c 652f 7061 7468'],
    [[[':path', '/sample/path']]],
    [0],
  ],
  [
    'C.2.3 literal never indexed',
    4_096,
    ['1008 7061 7373 776f 7264 0673 6563 7265 74'],
    [[['password', 'secret']]],
    [0],
  ],
  ['C.2.4 indexed', 4_096, ['82'], [[[':method', 'GET']]], [0]],
  [
    'C.3 requests without Huffman',
    4_096,
    [
      '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      '8286 84be 5808 6e6f 2d63 6163 6865',
      '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
    ],
    REQUESTS as Header[][],
    [57, 110, 164],
  ],
  [
    'C.4 requests with Huffman',
    4_096,
    [
      '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
      '8286 84be 5886 a8eb 1064 9cbf',
      '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
    ],
    REQUESTS as Header[][],
    [57, 110, 164],
  ],
  [
    'C.5 responses without Huffman, with eviction',
    256,
    [
      '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      '4803 3330 37c1 c0bf',
      '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31',
    ],
    RESPONSES as Header[][],
    [222, 222, 215],
  ],
  [
    'C.6 responses with Huffman, with eviction',
    256,
    [
      '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
      '4883 640e ffc1 c0bf',
      '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
    ],
    RESPONSES as Header[][],
    [222, 222, 215],
  ],
];

describe('decoding header blocks', () => {
  it.each(VECTORS)('gives what RFC 7541, %s, says', (_title, table, blocks, lists, sizes) => {
    const decoder = new HpackDecoder(LIMITS, table);
    blocks.forEach((block, i) => {
      expect(decode(decoder, hex(block))).toEqual(lists[i]);
      expect(decoder.tableSize).toBe(sizes[i]);
    });
  });

  it.each([
    ['an index of zero', '80'],
    ['an index behind the table', 'be'],
    ['a name behind the table', '7f 00 01 61'],
    ['a string that is cut off', '0005 6162'],
    ['a literal without a value', '0001 61'],
    ['an integer without its end', '1f ff ff'],
    ['an integer beyond any sense', 'ff ff ff ff ff ff 0f'],
    ['Huffman padding of zeros', '0001 6181 00'],
    ['Huffman padding of a whole byte', '0001 6182 1fff'],
    ['the end symbol inside a Huffman string', '0001 6184 ffff ffff'],
    ['a table larger than allowed', '3fe2 1f'],
    ['a change of the table behind a field', '82 20'],
  ])('refuses %s', (_title, block) => {
    const decoder = new HpackDecoder(LIMITS);
    expect(decode(decoder, hex(block))).toMatch(/an? |the /);
  });

  it('reads an integer of the prefix, of one more octet, and of three', () => {
    for (const length of [0, 126, 127, 128, 254, 255, 1_337, 20_000]) {
      const list: Header[] = [['a', 'b'.repeat(length)]];
      expect(decode(new HpackDecoder(LIMITS), encode(new HpackEncoder(), list))).toEqual(list);
    }
  });

  it('demands that the peer makes its table smaller after our settings say so', () => {
    const decoder = new HpackDecoder(LIMITS);
    decode(decoder, hex('400161 0162'));
    decoder.allowTable(0);
    expect(decode(decoder, hex('82'))).toMatch(/smaller/);
    const obedient = new HpackDecoder(LIMITS);
    decode(obedient, hex('400161 0162'));
    obedient.allowTable(0);
    expect(decode(obedient, hex('20 82'))).toEqual([[':method', 'GET']]);
    expect(obedient.tableSize).toBe(0);
  });

  it('does not take a remembered block for an answer when the table has changed', () => {
    const decoder = new HpackDecoder(LIMITS);
    decode(decoder, hex('400161 0162'));
    const newest = hex('be');
    expect(decode(decoder, newest)).toEqual([['a', 'b']]);
    expect(decode(decoder, newest)).toBe(decode(decoder, newest));
    decode(decoder, hex('400163 0164'));
    expect(decode(decoder, newest)).toEqual([['c', 'd']]);
  });

  it('keeps nothing of a list beyond its limit, yet keeps the table in step', () => {
    const decoder = new HpackDecoder({ headerListBytes: 100, headers: 10 });
    const encoder = new HpackEncoder();
    const big: Header[] = [
      ['x-a', '1'.repeat(100)],
      ['x-b', '2'],
    ];
    const first = encode(encoder, big);
    expect(decoder.decode(first, 0, first.length)).toMatchObject({ tooLarge: true, list: [] });
    expect(decode(decoder, encode(encoder, [['x-b', '2']]))).toEqual([['x-b', '2']]);
  });

  it.each([
    [100, false],
    [99, true],
  ])('with a limit of %i bytes, a list of 100 is too large: %s', (headerListBytes, tooLarge) => {
    const block = encode(new HpackEncoder(), [['a', 'b'.repeat(67)]]);
    const decoder = new HpackDecoder({ headerListBytes, headers: 10 });
    expect(decoder.decode(block, 0, block.length)?.tooLarge).toBe(tooLarge);
  });

  it.each([
    [3, false],
    [2, true],
  ])('with a limit of %i fields, three are too many: %s', (headers, tooLarge) => {
    const block = encode(new HpackEncoder(), [
      ['a', '1'],
      ['b', '2'],
      ['c', '3'],
    ]);
    const decoder = new HpackDecoder({ headerListBytes: 1_000, headers });
    expect(decoder.decode(block, 0, block.length)?.tooLarge).toBe(tooLarge);
  });
});

const latin = fc.string({
  unit: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)),
});
const header = fc.oneof(
  fc.tuple(latin, latin),
  fc.constantFrom<Header>([':status', '200'], ['grpc-status', '0'], ['te', 'trailers']),
  fc.tuple(fc.constantFrom('authorization', 'grpc-timeout', 'x-long', ':path'), latin),
  fc.tuple(fc.constantFrom('k1', 'k2', 'k3'), fc.constantFrom('v1', 'v2', 'x'.repeat(300))),
);

describe('encoding header blocks', () => {
  it('is undone by decoding, whatever the lists and whenever the table changes its size', () => {
    const step = fc.record({
      list: fc.array(header, { maxLength: 12 }),
      resize: fc.option(fc.constantFrom(0, 32, 64, 100, 256, 4_096), { nil: undefined }),
      frozen: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const encoder = new HpackEncoder();
        const decoder = new HpackDecoder(LIMITS);
        for (const { list, resize, frozen } of steps) {
          if (resize !== undefined) encoder.limitTable(resize);
          const sent = frozen ? Object.freeze(list) : list;
          for (let i = 0; i < 2; i++) expect(decode(decoder, encode(encoder, sent))).toEqual(list);
          expect(decoder.tableSize).toBe(encoder.tableSize);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('announces the smallest size in between when the table shrank and grew again', () => {
    const encoder = new HpackEncoder();
    encode(encoder, [['a', 'b']]);
    encoder.limitTable(0);
    encoder.limitTable(4_096);
    expect(toHex(encode(encoder, [[':method', 'GET']]))).toBe('203fe11f82');
  });

  it('puts no secret into a table and marks it as never to be indexed', () => {
    const encoder = new HpackEncoder();
    const block = encode(encoder, [['authorization', 'x']]);
    expect(block[0]! & 0xf0).toBe(0x10);
    expect(encoder.tableSize).toBe(0);
  });

  it('sends a constant list as a few indices after the first time', () => {
    const encoder = new HpackEncoder();
    const list: readonly Header[] = Object.freeze([
      [':status', '200'],
      ['content-type', 'application/grpc'],
    ] as Header[]);
    expect(encode(encoder, list).length).toBeGreaterThan(10);
    expect(toHex(encode(encoder, list))).toBe('88be');
    expect(toHex(encode(encoder, list))).toBe('88be');
  });
});

describe('the Huffman code', () => {
  it('comes back for every string of bytes, in the length foretold', () => {
    fc.assert(
      fc.property(latin, (text) => {
        const packed = new Uint8Array(huffmanLength(text));
        expect(encodeHuffman(text, packed, 0)).toBe(packed.length);
        const unpacked = new Uint8Array(text.length + 8);
        expect(decodeHuffman(packed, 0, packed.length, unpacked)).toBe(text.length);
        for (let i = 0; i < text.length; i++) expect(unpacked[i]).toBe(text.charCodeAt(i));
      }),
    );
  });
});
