/**
 * Segments of a journal, altered, and a dumb twin of their reader. The twin was there when they were
 * written: it knows every batch and where it stood, and says of an altered one exactly what must be
 * read, or that it must be refused. A reader that drops more than a crash can take is found, and so
 * is one that refuses what a crash has left.
 *
 * What the form itself cannot tell is said here, too: behind a head that is blank nobody knows where
 * the batch ends, so what follows it without a head of its own is taken for a part of it.
 */
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Bytes, binaryString, concatBytes, equalBytes, utf8 } from '../../src/base/bytes.ts';
import type { Random } from '../../src/base/random.ts';
import type * as journalFormat from '../../src/engine/lmdb/journal-format.ts';
import {
  encodeBatch,
  encodeEnd,
  JOURNAL_BEGIN,
  type Position,
  SECTOR,
  type SegmentId,
  type Written,
} from '../../src/engine/lmdb/journal-format.ts';
import { mutate } from '../http2/fuzz.ts';

export const SEGMENT: SegmentId = { storeId: utf8('sixteen bytes ab'), epoch: 2, segment: 1 };
/** A head and as many sectors as it has checksums for. */
const PART_SECTORS = 113;

interface Batch {
  /** Of each part the place of its head, and of what follows it. */
  readonly parts: readonly { readonly head: number; readonly end: number }[];
  readonly changes: Bytes;
  readonly isEnd: boolean;
  readonly begin: number;
  readonly end: number;
}

/** A segment as it was written, with all that is known of it. */
export interface Sound {
  readonly file: Bytes;
  readonly batches: readonly Batch[];
  readonly after: Position;
}

export function soundSegment(
  random: Random,
  options: { readonly id: SegmentId; readonly room: number; readonly from: Position; end: boolean },
): Sound {
  const { id, room } = options;
  const file = new Uint8Array(room);
  const batches: Batch[] = [];
  let after = options.from;
  let at = 0;
  const add = (written: Written, changes: Bytes, isEnd: boolean): void => {
    file.set(concatBytes(...written.buffers), at);
    batches.push({
      parts: partsOf(at, at + written.bytes),
      changes,
      isEnd,
      begin: at,
      end: at + written.bytes,
    });
    at += written.bytes;
    after = written.after;
  };
  for (let i = random.integer(1, 7); i > 0; i--) {
    const large = room > 2 ** 16 && random.chance(0.3);
    const length = large ? random.integer(57_000, 70_000) : random.integer(1, 4_000);
    const changes = random.chance(0.2) ? new Uint8Array(length) : random.bytes(length);
    const written = encodeBatch(id, room, after, changes);
    if (at + written.bytes + SECTOR <= room) add(written, changes, false);
  }
  if (options.end) add(encodeEnd(id, room, after), new Uint8Array(0), true);
  return { file, batches, after };
}

function partsOf(begin: number, end: number): { head: number; end: number }[] {
  const parts: { head: number; end: number }[] = [];
  for (let head = begin; head < end; head += PART_SECTORS * SECTOR) {
    parts.push({ head, end: Math.min(end, head + PART_SECTORS * SECTOR) });
  }
  return parts;
}

/** What is read: the changes of each batch, and whether the journal goes on in the next segment. */
export interface Read {
  readonly batches: readonly Bytes[];
  readonly ended: boolean;
}

export function meaningOf(parts: Iterable<Bytes>): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length} `).update(part);
  return hash.digest('hex');
}

export const meaningOfRead = ({ batches, ended }: Read): string =>
  `${meaningOf(batches)} ${ended ? 'and on' : 'to here'}`;

// ─── the dumb twin ─────────────────────────────────────────────────────────────────────────────

/** What must be read from a segment that was `sound`; undefined: it must be refused. */
export function mustRead(sound: Sound, altered: Bytes): Read | undefined {
  const { batches, file } = sound;
  const count = batches.findIndex(
    ({ begin, end }) => !equalBytes(altered.subarray(begin, end), file.subarray(begin, end)),
  );
  const whole = count < 0 ? batches : batches.slice(0, count);
  const ended = whole.at(-1)?.isEnd ?? false;
  const from = whole.at(-1)?.end ?? 0;
  const torn = ended
    ? { end: from, heads: 0 }
    : explain(sound, altered, { from, meant: batches[whole.length] });
  if (!torn || !isBlank(altered.subarray(torn.end))) return undefined;
  const told = whole.length + torn.heads > 0;
  if (told && altered.length < file.length) return undefined;
  return { batches: whole.filter((one) => !one.isEnd).map((one) => one.changes), ended };
}

/**
 * Whether a crash may have left what stands at `from`, where `meant` was to be written if anything:
 * then where it ends, as far as anybody can tell, and how many heads of it are there.
 */
function explain(
  sound: Sound,
  altered: Bytes,
  { from, meant }: { readonly from: number; readonly meant: Batch | undefined },
): { readonly end: number; readonly heads: number } | undefined {
  const heads = headsOf(sound);
  const at = (source: Bytes, place: number): Bytes => source.subarray(place, place + SECTOR);
  let place = from;
  let known = 0;
  for (let part = 0; place < altered.length; part++) {
    if (known > 0 && part === meant!.parts.length) break;
    const written = meant?.parts[part];
    const isHead = written && equalBytes(at(altered, place), at(sound.file, place));
    if (!isHead && !isBlank(at(altered, place))) return undefined;
    if (isHead) known++;
    const end = isHead ? written.end : place + PART_SECTORS * SECTOR;
    for (place += SECTOR; place < end; place += SECTOR) {
      const sector = at(altered, place);
      if (isBlank(sector)) continue;
      if (isHead && !equalBytes(sector, at(sound.file, place))) return undefined;
      if (!isHead && heads.has(binaryString(sector))) return undefined;
    }
  }
  return { end: place, heads: known };
}

function headsOf({ batches, file }: Sound): ReadonlySet<string> {
  const places = batches.flatMap(({ parts }) => parts.map(({ head }) => head));
  return new Set(places.map((head) => binaryString(file.subarray(head, head + SECTOR))));
}

const isBlank = (bytes: Bytes): boolean => bytes.every((byte) => byte === 0);

// ─── alterations ───────────────────────────────────────────────────────────────────────────────

/** What disks do: sectors that are blank, several of them, elsewhere, noise; a write gone elsewhere. */
export function alterSectors(sound: Sound, random: Random): Bytes {
  const out = sound.file.slice();
  const heads = sound.batches.flatMap(({ parts }) => parts.map(({ head }) => head / SECTOR));
  const used = sound.batches.at(-1)!.end / SECTOR;
  const all = out.length / SECTOR;
  const sector = (): number => {
    if (random.chance(0.3)) return random.pick(heads);
    if (random.chance(0.3))
      return Math.min(all - 1, random.pick(heads.slice(-2)) + random.integer(0, 6));
    return random.integer(0, random.chance(0.9) ? used : all);
  };
  for (let i = random.integer(1, 5); i > 0; i--) {
    const at = sector() * SECTOR;
    const kind = random.integer(0, 9);
    if (kind < 4) out.fill(0, at, at + SECTOR);
    else if (kind === 4) out.fill(0, at, at + random.integer(1, 12) * SECTOR);
    else if (kind === 5) out.copyWithin(sector() * SECTOR, at, at + SECTOR);
    else if (kind === 6) out.set(random.bytes(SECTOR), at);
    else if (kind === 7) {
      const { begin, end } = random.pick(sound.batches);
      out.copyWithin(random.pick(sound.batches).begin, begin, end);
    } else out[at + random.integer(0, SECTOR)]! ^= 1 << random.integer(0, 8);
  }
  return out;
}

export function alterSegment(sound: Sound, random: Random): Bytes {
  return random.chance(0.3) ? mutate(sound.file, random) : alterSectors(sound, random);
}

// ─── readers with one fault each ───────────────────────────────────────────────────────────────

export type JournalFormat = typeof journalFormat;

/** Of `journal-format.ts`: what is replaced by what. The twin must find every one. */
export const FAULTY_READERS: Readonly<Record<string, readonly [from: string, to: string]>> = {
  'takes a changed sector for a blank one': [
    'if (!isBlank(bytes)) throw',
    'if (bytes.length < 0) throw',
  ],
  'looks at no sector of a batch': ['if (this.#isWritten(bytes, sector)) continue;', 'continue;'],
  'takes a changed head for the end': [
    'if (!head) throw damaged',
    'if (!head) return undefined; if (!head) throw damaged',
  ],
  'looks for no later head': [
    'if (head && isOf(head, this.#id)) throw',
    'if (head && head.room < 0) throw',
  ],
  'looks at nothing behind a batch that is not whole': [
    'if (!isBlank(this.#file.subarray(this.#at))) throw',
    'if (this.#at < 0) throw',
  ],
  'takes a batch whose padding was changed': [
    'return bytes.length === SECTOR && crc32(bytes) === sum;',
    'return crc32(bytes) === sum || (!isBlank(bytes) && bytes[SECTOR - 1] === 0);',
  ],
  'takes batches in any order': [
    'if (head.sequence !== this.#sequence || head.part !== part || !follows) {',
    'if (head.part !== part) {',
  ],
  'refuses a batch that a crash tore': [
    'if (!last || pieces.length < parts) return undefined;',
    "if (last && pieces.length < parts) throw damaged(this.#id, 'torn'); if (!last) return undefined;",
  ],
  'takes the end of a file for the end of the journal': [
    'if (this.#file.length < head.room) throw',
    'if (head.room < 0) throw',
  ],
  'stops at the first blank sector': ['whole = false;', 'return undefined;'],
};

/** Throws when the text to change is not there any more: a fault that changes nothing shows nothing. */
export async function plantInReader(scratch: string, name: string): Promise<JournalFormat> {
  const [from, to] = FAULTY_READERS[name]!;
  const home = join(scratch, `reader-${name.replaceAll(' ', '-')}`);
  const room = join(home, 'engine/lmdb');
  await mkdir(room, { recursive: true });
  await writeFile(join(home, 'package.json'), '{"type":"module"}');
  for (const one of ['base', 'model']) {
    await cp(resolve('src', one), join(home, one), { recursive: true });
  }
  const source = await readFile(resolve('src/engine/lmdb/journal-format.ts'), 'utf8');
  const at = source.indexOf(from);
  if (at < 0) throw new Error(`the fault does not fit any more: ${from}`);
  const path = join(room, 'journal-format.ts');
  await writeFile(path, source.slice(0, at) + to + source.slice(at + from.length));
  return (await import(pathToFileURL(path).href)) as JournalFormat;
}

/** One segment, altered; `format` is what reads it. */
export function readSegmentWith(format: JournalFormat, bytes: Bytes): string {
  return meaningOfRead(format.readSegment(bytes, SEGMENT, JOURNAL_BEGIN));
}
