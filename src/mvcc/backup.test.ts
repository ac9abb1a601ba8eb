import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Bytes, concatBytes, utf8 } from '../base/bytes.ts';
import { MemoryTable } from '../engine/memory/store.ts';
import { HoldfastError } from '../model/errors.ts';
import { type BackupEntry, dump, readBackup } from './backup.ts';
import { encodeState, FRESH_STATE, STATE_KEY } from './layout.ts';

const STATE = { ...FRESH_STATE, revision: 42, era: 3 };

function table(entries: number, valueBytes = 10): MemoryTable {
  const filled = new MemoryTable();
  filled.put(STATE_KEY, encodeState(STATE));
  for (let i = 0; i < entries; i++) {
    filled.put(utf8(`k${i}`), new Uint8Array(valueBytes).fill(i));
  }
  return filled;
}

async function read(chunks: Iterable<Bytes>): Promise<{ entries: BackupEntry[]; era: number }> {
  const entries: BackupEntry[] = [];
  const reading = readBackup(chunks);
  for (;;) {
    const step = await reading.next();
    if (step.done) return { entries, era: step.value.era };
    entries.push(...step.value);
  }
}

function cut(bytes: Bytes, at: readonly number[]): Bytes[] {
  const bounds = [0, ...at.map((n) => n % bytes.length).sort((a, b) => a - b), bytes.length];
  return bounds.slice(1).map((end, i) => bytes.subarray(bounds[i], end));
}

test('a backup reads back whole, however its bytes are cut', async () => {
  const original = table(50);
  const bytes = concatBytes(...dump(original));
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(), { maxLength: 20 }), async (at) => {
      const { entries, era } = await read(cut(bytes, at));
      expect(era).toBe(3);
      expect(entries.length).toBe(51);
      for (const { key, value } of entries) expect(original.get(key)).toEqual(value);
    }),
    { numRuns: 50 },
  );
});

test('a record of any size is read: what a lease took along when it ended is one', async () => {
  const original = table(1, 80 * 2 ** 20);
  const { entries } = await read(dump(original));
  expect(entries.map(({ value }) => value.length)).toContain(80 * 2 ** 20);
});

test('chunks stay within 32 KiB, also for values that are larger', () => {
  for (const chunk of dump(table(5, 100_000))) expect(chunk.length).toBeLessThanOrEqual(32_768);
});

test('a flipped bit anywhere in a backup is refused', async () => {
  const bytes = concatBytes(...dump(table(6)));
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1 << (at % 8);
    await expect(read([damaged])).rejects.toThrow(HoldfastError);
  }
});

test('a backup that ends early, anywhere, is refused as truncated', async () => {
  const bytes = concatBytes(...dump(table(6)));
  for (let length = 0; length < bytes.length; length++) {
    await expect(read([bytes.subarray(0, length)])).rejects.toMatchObject({
      code: 'store-truncated',
    });
  }
});

test('a backup fills whole sectors, and 32 bytes of digest may stand behind it but no more', async () => {
  const bytes = concatBytes(...dump(table(3)));
  expect(bytes.length % 512).toBe(0);
  const digest = new Uint8Array(32).fill(7);
  expect((await read([bytes, digest])).entries.length).toBe(4);
  await expect(read([bytes, digest, Uint8Array.of(0)])).rejects.toMatchObject({ code: 'corrupt' });
});
