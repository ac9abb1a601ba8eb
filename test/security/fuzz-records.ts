/**
 * Fuzzers on what is read from a disk: a data file, a segment of the journal, a backup. A sound one
 * is altered, and what comes out must be what went in, or a refusal in our own words: never
 * something else, never a crash.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Bytes, concatBytes, utf8 } from '../../src/base/bytes.ts';
import { type Random, seededRandom } from '../../src/base/random.ts';
import { visitChanges } from '../../src/engine/lmdb/changes.ts';
import { DATA_FILE } from '../../src/engine/lmdb/directory.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import {
  encodeBatch,
  JOURNAL_BEGIN,
  readSegment,
  type SegmentId,
} from '../../src/engine/lmdb/journal-format.ts';
import { PageFile } from '../../src/engine/lmdb/pages.ts';
import { inspect, scrubNow } from '../../src/engine/lmdb/scrub.ts';
import { PageMap, walkTree } from '../../src/engine/lmdb/walk.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { readBackup } from '../../src/mvcc/backup.ts';
import { mutate } from '../http2/fuzz.ts';

export interface RecordsTarget {
  readonly name: string;
  /** What was made with this seed, and the meanings that it may have. */
  readonly sample: (random: Random) => Promise<{ bytes: Bytes; meanings: readonly string[] }>;
  readonly read: (bytes: Bytes) => Promise<string>;
  /** The same with its checks left out, as a control. */
  readonly careless: (bytes: Bytes) => Promise<string>;
}

function meaningOf(parts: Iterable<Bytes>): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length} `).update(part);
  return hash.digest('hex');
}

// ─── journal ───────────────────────────────────────────────────────────────────────────────────

const ROOM = 65_536;
const ID: SegmentId = { storeId: utf8('sixteen bytes ab'), epoch: 2, segment: 1 };

async function sampleSegment(random: Random) {
  const file = new Uint8Array(ROOM);
  const batches: Bytes[] = [];
  let position = JOURNAL_BEGIN;
  let at = 0;
  for (let i = random.integer(1, 6); i > 0; i--) {
    const batch = random.bytes(random.integer(1, 4_000));
    const written = encodeBatch(ID, ROOM, position, batch);
    const bytes = concatBytes(...written.buffers);
    file.set(bytes, at);
    at += bytes.length;
    batches.push(batch);
    position = written.after;
  }
  // Of the last batch nobody can say whether it was acknowledged, if its sectors are blank.
  return { bytes: file, meanings: [meaningOf(batches), meaningOf(batches.slice(0, -1))] };
}

async function readJournal(bytes: Bytes): Promise<string> {
  return meaningOf(readSegment(bytes, ID, JOURNAL_BEGIN).batches);
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
  return meaningOf(batches);
}

// ─── changes ───────────────────────────────────────────────────────────────────────────────────

/** Behind the checksums: whatever the bytes, they are read to their end or refused. */
async function readChanges(bytes: Bytes): Promise<string> {
  let seen = 0;
  visitChanges(bytes, {
    set: (key, value) => {
      seen += key.length + (value?.length ?? 0);
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
  return [
    {
      name: 'data file',
      sample: async () => ({ bytes: data, meanings: [dataMeaning] }),
      read: (bytes) => readData(bytes, false),
      careless: (bytes) => readData(bytes, true),
    },
    {
      name: 'journal',
      sample: sampleSegment,
      read: readJournal,
      careless: readJournalCarelessly,
    },
    {
      name: 'changes',
      sample: async (random) => ({
        bytes: random.bytes(random.integer(0, 200)),
        meanings: ['read'],
      }),
      read: readChanges,
      careless: async (bytes) => (bytes.length > 100 ? 'too much' : 'read'),
    },
    {
      name: 'backup',
      sample: async () => ({ bytes: backup, meanings: [backupMeaning] }),
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
    const random = seededRandom(seed + inputs);
    const { bytes, meanings } = await target.sample(random);
    const altered = alter(bytes, random);
    const begun = performance.now();
    const what = await judge(read, altered, meanings);
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

/** Undefined: refused in our own words. */
async function judge(
  read: RecordsTarget['read'],
  bytes: Bytes,
  meanings: readonly string[],
): Promise<string | undefined> {
  try {
    return meanings.includes(await read(bytes)) ? 'accepted' : 'something else was read';
  } catch (error) {
    return HoldfastError.is(error) ? undefined : `an error that is not ours: ${String(error)}`;
  }
}
