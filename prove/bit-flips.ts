/**
 * Flips one bit of the data file or of the journal beside it, anywhere, opens the store and reads
 * everything by scan and by key: the answer is right, or there is none. A wrong answer, or a process
 * that LMDB's trust in the file has ended, is a failure. The files are those of a store in use, as
 * a crash leaves them: part of what was acknowledged stands in the journal alone.
 *
 * The control reads flips of the data file through LMDB alone, and must be told something wrong.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { LOCK_FILE } from '../src/base/lmdb-note.ts';
import { type Random, seededRandom } from '../src/base/random.ts';
import { DATA_FILE } from '../src/engine/lmdb/directory.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import { segmentOfName } from '../src/engine/lmdb/journal-format.ts';

export const experiment: Experiment = {
  about: 'flip bits over the whole data file and the journal; no wrong answer',
  run,
};

interface Tally {
  flips: number;
  right: number;
  refused: number;
  wrong: number;
  crashed: number;
}

async function run(context: Context): Promise<Report> {
  const random = seededRandom(context.seed);
  const files = await makeStore(join(context.scratch, 'store'), random.fork());
  const damaged = join(context.scratch, 'damaged');
  const data = files.get(DATA_FILE)!;
  const journal = [...files.keys()].filter((name) => segmentOfName(name));
  const reader = new Reader();
  context.cleanup(() => reader.stop());
  /** Asks about a fresh copy, because opening changes it; with one bit flipped, if one is named. */
  const ask = async (mode: Mode, flipped?: { name: string; bit: number }): Promise<string> => {
    rmSync(damaged, { recursive: true, force: true });
    mkdirSync(damaged, { mode: 0o700 });
    for (const [name, bytes] of files) {
      const copy = Buffer.from(bytes);
      if (name === flipped?.name) copy[flipped.bit >>> 3]! ^= 1 << (flipped.bit & 7);
      writeFileSync(join(damaged, name), copy, { mode: 0o600 });
    }
    return reader.ask(mode, damaged);
  };
  const expected = await ask('checked');
  const bareExpected = await ask('bare');
  const count = Number(context.options.flips ?? (context.long ? 4_000 : 400));
  const bits = pickBits(random, data.length, count);
  const tally = fresh();
  const inJournal = fresh();
  for (const bit of bits) {
    const answer = await ask('checked', { name: DATA_FILE, bit });
    note(tally, answer, expected);
    if (answer !== expected && !answer.startsWith('refused'))
      context.log(`  bit ${bit}: ${answer}`);
    if (tally.flips % 500 === 0) context.log(`  ${tally.flips} flips, ${tally.wrong} wrong`);
  }
  for (let i = 0; i < count / 2; i++) {
    const name = random.pick(journal);
    const bit = pickJournalBit(random, files.get(name)!);
    const answer = await ask('checked', { name, bit });
    note(inJournal, answer, expected);
    if (answer !== expected && !answer.startsWith('refused'))
      context.log(`  ${name} ${bit}: ${answer}`);
  }
  const control = fresh();
  for (const bit of bits.slice(0, context.long ? 1_000 : 200)) {
    note(control, await ask('bare', { name: DATA_FILE, bit }), bareExpected);
  }
  const wrong = tally.wrong + inJournal.wrong;
  const crashed = tally.crashed + inJournal.crashed;
  return {
    ok:
      wrong + crashed === 0 &&
      expected.startsWith('read') &&
      expected !== bareExpected &&
      tally.refused > 0 &&
      inJournal.refused > 0 &&
      control.wrong > 0,
    figures: {
      'bytes of the data file': data.length,
      flips: tally.flips,
      'right answers': tally.right,
      refused: tally.refused,
      'flips in the journal': inJournal.flips,
      'flips in the journal: right answers': inJournal.right,
      'flips in the journal: refused': inJournal.refused,
      'wrong answers': wrong,
      'processes ended': crashed,
    },
    control: { what: 'LMDB alone', ...control, broke: control.wrong > 0 },
  };
}

type Mode = 'checked' | 'bare';

function fresh(): Tally {
  return { flips: 0, right: 0, refused: 0, wrong: 0, crashed: 0 };
}

function note(tally: Tally, answer: string, expected: string): void {
  tally.flips++;
  if (answer === expected) tally.right++;
  else if (answer.startsWith('read')) tally.wrong++;
  else if (answer === 'ended') tally.crashed++;
  else tally.refused++;
}

/** Half of them anywhere, half in the roots and page headers, where one bit does most. */
function pickBits(random: Random, bytes: number, count: number): number[] {
  const pages = Math.floor(bytes / 4_096);
  return Array.from({ length: count }, (_, i) => {
    if (i % 2 === 0) return random.integer(0, bytes * 8);
    const page = random.chance(0.3) ? random.integer(0, 2) : random.integer(2, pages);
    return (page * 4_096 + random.integer(0, page < 2 ? 176 : 64)) * 8 + random.integer(0, 8);
  });
}

/** Mostly where something is written: a segment is blank behind its last batch. */
function pickJournalBit(random: Random, segment: Buffer): number {
  let written = segment.length;
  while (written > 0 && segment[written - 1] === 0) written--;
  const end = random.chance(0.9) ? written : segment.length;
  return random.integer(0, Math.max(1, end) * 8);
}

/**
 * The files of a store in use with everything in it: history, leases, deletions, large values, much
 * of it folded into the tree, the rest in the journal.
 */
async function makeStore(path: string, random: Random): Promise<Map<string, Buffer>> {
  const engine = await openLmdbEngine(path, { journal: { firstBytes: 32_768, mostBytes: 65_536 } });
  const lease = await engine.grantLease({ ttlMs: 3_600_000 });
  const change = async (): Promise<void> => {
    const key = utf8(`key/${random.integer(0, 80)}`);
    const value = random.bytes(random.chance(0.03) ? 12_000 : random.integer(0, 200));
    if (random.chance(0.15)) await engine.txn({ success: [{ type: 'delete', key }] });
    else {
      const attached = random.chance(0.2) ? { lease: lease.id } : {};
      await engine.txn({ success: [{ type: 'put', key, value, ...attached }] });
    }
  };
  for (let i = 0; i < 600; i++) await change();
  // The first segment goes when it has been folded; then write a little more, and look.
  for (let i = 0; i < 5_000 && namesIn(path).includes('journal-1-1'); i++) await change();
  for (let i = 0; i < 20; i++) await change();
  const files = new Map(namesIn(path).map((name) => [name, readFileSync(join(path, name))]));
  await engine.close();
  return files;
}

function namesIn(path: string): string[] {
  return readdirSync(path).filter((name) => !name.endsWith('.sock') && name !== LOCK_FILE);
}

/** One reading process at a time; a new one when it was ended. */
class Reader {
  #child: ChildProcess | undefined;
  #lines: Interface | undefined;

  ask(mode: string, path: string): Promise<string> {
    const child = this.#alive();
    return new Promise((resolve) => {
      const answer = (line: string): void => {
        child.off('exit', ended);
        this.#lines?.off('line', answer);
        resolve(line);
      };
      const ended = (): void => {
        this.#child = undefined;
        answer('ended');
      };
      child.once('exit', ended);
      this.#lines!.once('line', answer);
      child.stdin!.write(`${mode} ${path}\n`);
    });
  }

  stop(): void {
    this.#child?.kill('SIGKILL');
  }

  #alive(): ChildProcess {
    if (this.#child) return this.#child;
    const program = join(import.meta.dirname, 'durability', 'reader.ts');
    const flags = ['--conditions=holdfast/source', '--import', 'tsx', program];
    const child = spawn(process.execPath, flags, { stdio: ['pipe', 'pipe', 'ignore'] });
    child.stdin!.on('error', () => {});
    this.#lines = createInterface({ input: child.stdout! });
    this.#child = child;
    return child;
  }
}
