import { describe, expect, it } from 'vitest';
import { type Bytes, text, utf8 } from '../../base/bytes.ts';
import { ChangeMemory } from './change-memory.ts';
import { CHANGE_HEAD, putChange } from './changes.ts';

function batchOf(key: string, value: Bytes, file?: Bytes, at = 0): Bytes {
  const bytes = CHANGE_HEAD + key.length + value.length;
  const target = file ?? new Uint8Array(bytes);
  putChange(target, at, utf8(key), value);
  return target.subarray(at, at + bytes);
}

describe('the memory of changes', () => {
  it('takes batches from a file and from elsewhere in turns, without running out of addresses', () => {
    const file = new Uint8Array(2 ** 23);
    const memory = new ChangeMemory();
    const begins: number[] = [];
    let bytes = 0;
    let at = 0;
    for (let i = 0; i < 3_000; i++) {
      const small = batchOf(`small/${i}`, utf8('s'), file, at);
      at += small.length;
      const large = batchOf(`large/${i}`, utf8('l'.repeat(50)));
      begins.push(memory.adopt(small), memory.adopt(large));
      bytes += small.length + large.length;
    }
    // Between two batches of the file there is nothing else here.
    expect(memory.bytes).toBe(bytes);
    for (const i of [0, 1, 1_500, 2_999]) {
      expect(text(memory.key(begins[2 * i]!))).toBe(`small/${i}`);
      expect(text(memory.key(begins[2 * i + 1]!))).toBe(`large/${i}`);
      expect(text(memory.value(begins[2 * i + 1]!)!)).toBe('l'.repeat(50));
    }
  });
});
