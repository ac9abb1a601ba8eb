/**
 * Fuzzers on what is read from a disk: a data file, a segment of the journal, a backup. A sound one
 * is altered, and what comes out must be what went in, or a refusal in our own words: never
 * something else, never a crash. Of a journal it is known exactly what must be read (`fuzz-journal.ts`).
 */
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Bytes, concatBytes, utf8 } from '../../src/base/bytes.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import { valueOfChange, visitChanges } from '../../src/engine/lmdb/changes.ts';
import { DATA_FILE } from '../../src/engine/lmdb/directory.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import type { Head } from '../../src/engine/lmdb/format.ts';
import { recover } from '../../src/engine/lmdb/journal.ts';
import * as journalFormat from '../../src/engine/lmdb/journal-format.ts';
import { JOURNAL_BEGIN, readSegment, segmentName } from '../../src/engine/lmdb/journal-format.ts';
import { PageFile } from '../../src/engine/lmdb/pages.ts';
import { inspect, scrubNow } from '../../src/engine/lmdb/scrub.ts';
import { PageMap, walkTree } from '../../src/engine/lmdb/walk.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { readBackup } from '../../src/mvcc/backup.ts';
import { heartbeat } from '../fuzz-judge.ts';
import { mutate } from '../http2/fuzz.ts';
import {
  alterSectors,
  alterSegment,
  meaningOf,
  meaningOfRead,
  mustRead,
  readSegmentWith,
  SEGMENT,
  type Sound,
  soundSegment,
} from './fuzz-journal.ts';

/** Something altered, and what must come of it. */
export interface Sample {
  readonly altered: Bytes;
  /** Undefined: it may not be read at all. */
  readonly meaning: string | undefined;
  readonly mayRefuse: boolean;
}

export interface RecordsTarget {
  readonly name: string;
  readonly sample: (random: Random) => Sample;
  readonly read: (bytes: Bytes) => Promise<string>;
  /** The same with its checks left out, as a control. */
  readonly careless: (bytes: Bytes) => Promise<string>;
}

// ─── journal ───────────────────────────────────────────────────────────────────────────────────

const ROOMS = [2 ** 16, 2 ** 16, 2 ** 18];

function sampleSegment(random: Random): Sample {
  const room = random.pick(ROOMS);
  const end = random.chance(0.3);
  const sound = soundSegment(random, { id: SEGMENT, room, from: JOURNAL_BEGIN, end });
  const altered = alterSegment(sound, random);
  const read = mustRead(sound, altered);
  return { altered, meaning: read && meaningOfRead(read), mayRefuse: !read };
}

/** Takes whatever looks like a head, and what stands behind it. */
async function readJournalCarelessly(bytes: Bytes): Promise<string> {
  const batches: Bytes[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 512 <= bytes.length && view.getUint32(at + 4) === 0x48464a31; ) {
    const length = view.getUint32(at + 52);
    batches.push(bytes.subarray(at + 512, at + 512 + length));
    at += 512 + Math.ceil(length / 512) * 512;
  }
  return meaningOfRead({ batches, ended: false });
}

// ─── several segments in their directory ───────────────────────────────────────────────────────

const SEGMENT_ROOM = 16_384;

function sampleSegments(random: Random): Sample {
  const count = random.integer(2, 4);
  const sounds: Sound[] = [];
  let from = JOURNAL_BEGIN;
  for (let segment = 1; segment <= count; segment++) {
    const id = { ...SEGMENT, segment };
    sounds.push(soundSegment(random, { id, room: SEGMENT_ROOM, from, end: segment < count }));
    from = sounds.at(-1)!.after;
  }
  const files = sounds.map(({ file }) => file);
  const which = random.integer(0, count);
  files[which] = alterSectors(sounds[which]!, random);
  const batches = mustRecover(sounds, files);
  return {
    altered: concatBytes(...files),
    meaning: batches && meaningOf(batches),
    mayRefuse: !batches,
  };
}

/** As `mustRead` says of each; and what the journal never came to is blank. */
function mustRecover(sounds: readonly Sound[], files: readonly Bytes[]): Bytes[] | undefined {
  const batches: Bytes[] = [];
  for (const [i, sound] of sounds.entries()) {
    const read = mustRead(sound, files[i]!);
    if (!read) return undefined;
    batches.push(...read.batches);
    if (read.ended) continue;
    return files[i + 1]?.some((byte) => byte !== 0) ? undefined : batches;
  }
  return undefined;
}

function recoverFrom(directory: string, bytes: Bytes): string {
  for (const name of readdirSync(directory)) rmSync(join(directory, name));
  for (let at = 0, segment = 1; at < bytes.length; at += SEGMENT_ROOM, segment++) {
    const name = segmentName(SEGMENT.epoch, segment);
    writeFileSync(join(directory, name), bytes.subarray(at, at + SEGMENT_ROOM));
  }
  const { storeId, epoch } = SEGMENT;
  const journal = { epoch, segment: 1, ...JOURNAL_BEGIN };
  const head = { storeId, ownerEpoch: epoch, journal } as Head;
  return meaningOf(recover(directory, head).batches);
}

/** Each segment as if it were alone. */
async function recoverCarelessly(bytes: Bytes): Promise<string> {
  const batches: Bytes[] = [];
  let from = JOURNAL_BEGIN;
  for (let at = 0, segment = 1; at < bytes.length; at += SEGMENT_ROOM, segment++) {
    const file = bytes.subarray(at, at + SEGMENT_ROOM);
    const read = readSegment(file, { ...SEGMENT, segment }, from);
    batches.push(...read.batches);
    from = read.after;
    if (!read.ended) break;
  }
  return meaningOf(batches);
}

// ─── changes ───────────────────────────────────────────────────────────────────────────────────

/** Behind the checksums: whatever the bytes, they are read to their end or refused. */
async function readChanges(bytes: Bytes): Promise<string> {
  let seen = 0;
  visitChanges(bytes, {
    set: (key, at) => {
      seen += key.length + (valueOfChange(bytes, at)?.length ?? 0);
    },
    cut: (start, end) => {
      seen += start.length + end.length;
    },
  });
  if (seen > bytes.length) throw new Error('more was read than there is');
  return 'read';
}

// ─── backup ────────────────────────────────────────────────────────────────────────────────────

async function entriesOf(bytes: Bytes, careless: boolean): Promise<string> {
  const parts: Bytes[] = [];
  const chunks = [bytes.subarray(0, 700), bytes.subarray(700)];
  try {
    for await (const entries of readBackup(chunks)) {
      for (const { key, value } of entries) parts.push(key.slice(), value.slice());
    }
  } catch (error) {
    if (!careless) throw error;
  }
  return meaningOf(parts);
}

// ─── data file ─────────────────────────────────────────────────────────────────────────────────

function contentOf(path: string, careless: boolean): string {
  const fd = openSync(path, 'r');
  try {
    const seen = inspect(fd, fstatSync(fd).size);
    const file = new PageFile(fd, seen.bytes, seen.pageSize, true);
    if (!careless) scrubNow(file, seen, true);
    const parts: Bytes[] = [];
    const visit = (key: Bytes, value: Bytes): void => void parts.push(key.slice(), value.slice());
    for (const _ of walkTree(
      file,
      seen.meta,
      seen.meta.main,
      new PageMap(seen.meta.lastPage),
      visit,
    ));
    return meaningOf(parts);
  } finally {
    closeSync(fd);
  }
}

/** A small store with everything in it; its data file and a backup of it. */
async function makeStore(path: string): Promise<{ data: Bytes; backup: Bytes }> {
  const random = seededRandom(20_261);
  const engine = await openLmdbEngine(path, { journal: { firstBytes: 8_192, mostBytes: 8_192 } });
  for (let i = 0; i < 150; i++) {
    const key = utf8(`key/${random.integer(0, 40)}`);
    const value = random.bytes(random.chance(0.05) ? 9_000 : random.integer(0, 120));
    await engine.txn({ success: [{ type: 'put', key, value }] });
  }
  const chunks: Bytes[] = [];
  for await (const chunk of engine.operator.backup()) chunks.push(chunk.slice());
  await engine.close();
  if (readdirSync(path).some((name) => name.startsWith('journal'))) throw new Error('not closed');
  // Not a Buffer, whose `slice` is no copy.
  const data = new Uint8Array(readFileSync(join(path, DATA_FILE)));
  return { data, backup: concatBytes(...chunks) };
}

/** `scratch` holds the store, and the altered data file that is being read. */
export async function recordsTargets(scratch: string): Promise<readonly RecordsTarget[]> {
  const { data, backup } = await makeStore(join(scratch, 'sample'));
  const altered = join(scratch, 'altered.mdb');
  const readData = async (bytes: Bytes, careless: boolean): Promise<string> => {
    writeFileSync(altered, bytes);
    return contentOf(altered, careless);
  };
  const dataMeaning = await readData(data, false);
  const backupMeaning = await entriesOf(backup, false);
  const segments = join(scratch, 'segments');
  mkdirSync(segments);
  /** It is what it was, or is refused. */
  const altering =
    (bytes: Bytes, meaning: string) =>
    (random: Random): Sample => ({ altered: alter(bytes, random), meaning, mayRefuse: true });
  return [
    {
      name: 'data file',
      sample: altering(data, dataMeaning),
      read: (bytes) => readData(bytes, false),
      careless: (bytes) => readData(bytes, true),
    },
    {
      name: 'journal',
      sample: sampleSegment,
      read: async (bytes) => readSegmentWith(journalFormat, bytes),
      careless: readJournalCarelessly,
    },
    {
      name: 'segments',
      sample: sampleSegments,
      read: async (bytes) => recoverFrom(segments, bytes),
      careless: recoverCarelessly,
    },
    {
      name: 'changes',
      sample: (random) => altering(random.bytes(random.integer(0, 200)), 'read')(random),
      read: readChanges,
      careless: async (bytes) => (bytes.length > 100 ? 'too much' : 'read'),
    },
    {
      name: 'backup',
      sample: altering(backup, backupMeaning),
      read: (bytes) => entriesOf(bytes, false),
      careless: (bytes) => entriesOf(bytes, true),
    },
  ];
}

export interface RecordsResult {
  readonly inputs: number;
  /** How many were read as what they were, in spite of the alteration. */
  readonly accepted: number;
  readonly slowestMs: number;
  readonly finding: { readonly seed: number; readonly what: string } | undefined;
}

/** Runs on seeds from `seed` on, until the time or the number is used up or it finds something. */
export async function fuzzRecords(
  target: RecordsTarget,
  seed: number,
  until: { readonly inputs?: number; readonly forMs?: number },
  read: RecordsTarget['read'] = target.read,
): Promise<RecordsResult> {
  const { inputs: inputsMax = Number.POSITIVE_INFINITY, forMs = Number.POSITIVE_INFINITY } = until;
  const start = performance.now();
  let slowestMs = 0;
  let accepted = 0;
  let inputs = 0;
  for (; inputs < inputsMax && performance.now() - start < forMs; inputs++) {
    heartbeat(seed + inputs);
    const random = seededRandom(seed + inputs);
    const sample = target.sample(random);
    const begun = performance.now();
    const what = await judge(read, sample);
    slowestMs = Math.max(slowestMs, performance.now() - begun);
    if (what === 'accepted') accepted++;
    else if (what !== undefined) {
      return { inputs, accepted, slowestMs, finding: { seed: seed + inputs, what } };
    }
  }
  return { inputs, accepted, slowestMs, finding: undefined };
}

/** Mostly a few bytes, sometimes whole sectors, as disks do. */
function alter(bytes: Bytes, random: Random): Bytes {
  if (random.chance(0.7)) return mutate(bytes, random);
  const out = bytes.slice();
  const sectors = Math.max(1, Math.floor(out.length / 512));
  for (let i = random.integer(1, 4); i > 0; i--) {
    const from = random.integer(0, sectors) * 512;
    const to = random.integer(0, sectors) * 512;
    const kind = random.integer(0, 3);
    if (kind === 0) out.fill(0, from, from + 512);
    else if (kind === 1) out.copyWithin(to, from, from + 512);
    else out.set(random.bytes(Math.min(512, out.length - from)), from);
  }
  return out;
}

/** Undefined: refused in our own words, as it may be. */
async function judge(
  read: RecordsTarget['read'],
  { altered, meaning, mayRefuse }: Sample,
): Promise<string | undefined> {
  try {
    return (await read(altered)) === meaning ? 'accepted' : 'something else was read';
  } catch (error) {
    if (!HoldfastError.is(error)) return `an error that is not ours: ${String(error)}`;
    return mayRefuse ? undefined : `what a crash may leave was refused: ${error.message}`;
  }
}
