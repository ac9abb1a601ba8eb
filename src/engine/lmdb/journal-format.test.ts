import { describe, expect, it } from 'vitest';
import { type Bytes, concatBytes } from '../../base/bytes.ts';
import { type Random, seededRandom } from '../../base/random.ts';
import {
  encodeBatch,
  encodeEnd,
  JOURNAL_BEGIN,
  type Position,
  readSegment,
  SECTOR,
  type SegmentId,
} from './journal-format.ts';

const ROOM = 2 ** 18;
const ID: SegmentId = { storeId: new Uint8Array(16).fill(9), epoch: 3, segment: 2 };

interface Sample {
  /** As it would stand on the disk, with blank room behind. */
  readonly file: Bytes;
  readonly batches: readonly Bytes[];
  /** Where each batch begins, and the end of the last. */
  readonly begins: readonly number[];
  readonly after: Position;
}

function sample(random: Random, count: number): Sample {
  const file = new Uint8Array(ROOM);
  const batches: Bytes[] = [];
  const begins = [0];
  let position = JOURNAL_BEGIN;
  let at = 0;
  for (let i = 0; i < count; i++) {
    // Some of several parts, some with whole sectors of zeros.
    const length = random.chance(0.1) ? random.integer(57_000, 70_000) : random.integer(1, 1_500);
    const batch = random.chance(0.2) ? new Uint8Array(length) : random.bytes(length);
    const written = encodeBatch(ID, ROOM, position, batch);
    const bytes = concatBytes(...written.buffers);
    expect(bytes.length).toBe(written.bytes);
    if (at + bytes.length > ROOM) break;
    file.set(bytes, at);
    at += bytes.length;
    begins.push(at);
    batches.push(batch);
    position = written.after;
  }
  return { file, batches, begins, after: position };
}

/** Batches of several sectors each, and of one part. */
function smallBatches(): Sample {
  for (let seed = 0; ; seed++) {
    const found = sample(seededRandom(seed), 5);
    const sizes = found.begins.slice(1).map((end, i) => end - found.begins[i]!);
    if (sizes.every((bytes) => bytes > 2 * SECTOR && bytes < 10 * SECTOR)) return found;
  }
}

function expectSame(found: readonly Bytes[], batches: readonly Bytes[]): void {
  expect(found.length).toBe(batches.length);
  expect(found.every((batch, i) => Buffer.from(batch).equals(batches[i]!))).toBe(true);
}

describe('a segment of the journal', () => {
  it('reads as it was written, and tells where it goes on', () => {
    for (let seed = 0; seed < 40; seed++) {
      const { file, batches, after, begins } = sample(seededRandom(seed), 12);
      const read = readSegment(file, ID, JOURNAL_BEGIN);
      expectSame(read.batches, batches);
      expect(read).toMatchObject({ after, ended: false, unfinished: false });
      const end = encodeEnd(ID, ROOM, after);
      file.set(concatBytes(...end.buffers), begins.at(-1));
      expect(readSegment(file, ID, JOURNAL_BEGIN)).toMatchObject({ after: end.after, ended: true });
    }
  });

  it('leaves out the last batch when any of its sectors never reached the disk', () => {
    let torn = 0;
    for (let seed = 0; seed < 200; seed++) {
      const random = seededRandom(seed);
      const { file, batches, begins } = sample(random, 6);
      const [begin, end] = begins.slice(-2) as [number, number];
      for (let at = begin; at < end; at += SECTOR) {
        if (random.chance(0.4)) file.fill(0, at, at + SECTOR);
      }
      const read = readSegment(file, ID, JOURNAL_BEGIN);
      const whole = read.batches.length === batches.length;
      if (!whole) torn++;
      const kept = whole ? batches : batches.slice(0, -1);
      expectSame(read.batches, kept);
    }
    expect(torn).toBeGreaterThan(100);
  });

  it('never takes a changed bit for anything: damage, or nothing was there', () => {
    let damaged = 0;
    for (let seed = 0; seed < 600; seed++) {
      const random = seededRandom(seed);
      const { file, batches, begins } = sample(random, 5);
      const bit = random.integer(0, begins.at(-1)! * 8);
      file[bit >>> 3]! ^= 1 << (bit & 7);
      try {
        const read = readSegment(file, ID, JOURNAL_BEGIN);
        expectSame(read.batches, batches);
      } catch (error) {
        expect(error).toMatchObject({ code: 'corrupt' });
        damaged++;
      }
    }
    // Every bit that was written counts: the padding has its checksum, too.
    expect(damaged).toBe(600);
  });

  it('notices an acknowledged batch that has gone without a trace', () => {
    const { file, begins } = sample(seededRandom(4), 5);
    file.fill(0, begins[1], begins[2]);
    expect(() => readSegment(file, ID, JOURNAL_BEGIN)).toThrow('has gone');
    const begin = sample(seededRandom(4), 5);
    begin.file.fill(0, 0, begin.begins[1]);
    expect(() => readSegment(begin.file, ID, JOURNAL_BEGIN)).toThrow('has gone');
  });

  it('notices that a batch which is not whole was followed by another', () => {
    const { file, begins, batches } = smallBatches();
    const last = begins.at(-2)!;
    // Its head tells where it ends. So it was acknowledged, for something stands behind it.
    file.fill(0, last - SECTOR, last);
    for (const harm of [
      (): unknown => file.fill(0, last, last + SECTOR),
      (): unknown => file.fill(7, last, last + SECTOR),
    ]) {
      harm();
      expect(() => readSegment(file, ID, JOURNAL_BEGIN)).toThrow('has gone');
    }
    file.fill(0, last);
    expect(readSegment(file, ID, JOURNAL_BEGIN).batches).toHaveLength(batches.length - 2);
  });

  it('notices that something stands behind its end', () => {
    const { file, begins, after } = sample(seededRandom(4), 5);
    file.set(concatBytes(...encodeEnd(ID, ROOM, after).buffers), begins.at(-1));
    file[ROOM - 1] = 1;
    expect(() => readSegment(file, ID, JOURNAL_BEGIN)).toThrow('something follows its end');
  });

  it('cannot tell batches at the end whose heads are blank from one that was torn', () => {
    const { file, begins, batches } = smallBatches();
    for (const begin of begins.slice(-3, -1)) file.fill(0, begin, begin + SECTOR);
    const read = readSegment(file, ID, JOURNAL_BEGIN);
    expectSame(read.batches, batches.slice(0, -2));
    expect(read.unfinished).toBe(true);
  });

  it('notices a file that was cut, and one that belongs elsewhere', () => {
    const { file } = sample(seededRandom(5), 3);
    expect(() => readSegment(file.subarray(0, ROOM - SECTOR), ID, JOURNAL_BEGIN)).toThrow(
      'shorter',
    );
    const others = [
      { ...ID, epoch: 4 },
      { ...ID, segment: 1 },
      { ...ID, storeId: new Uint8Array(16) },
    ];
    for (const id of others) {
      expect(() => readSegment(file, id, JOURNAL_BEGIN)).toThrow('another journal');
    }
    const later = { sequence: 2, previous: JOURNAL_BEGIN.previous };
    expect(() => readSegment(file, ID, later)).toThrow('missing');
  });

  it('is nothing but blank room, or anything else a file may hold, without a crash', () => {
    expect(readSegment(new Uint8Array(ROOM), ID, JOURNAL_BEGIN).batches).toEqual([]);
    expect(readSegment(new Uint8Array(0), ID, JOURNAL_BEGIN).batches).toEqual([]);
    for (let seed = 0; seed < 200; seed++) {
      const random = seededRandom(seed);
      const noise = random.bytes(random.integer(1, 5_000));
      expect(() => readSegment(noise, ID, JOURNAL_BEGIN)).toThrow(
        expect.objectContaining({ code: 'corrupt' }),
      );
    }
  });
});
