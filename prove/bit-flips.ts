/**
 * Flips one bit of the data file, anywhere, opens the store and reads everything by scan and by
 * key: the answer is right, or there is none. A wrong answer, or a process that LMDB's trust in the
 * file has ended, is a failure.
 *
 * The control reads the same flips through LMDB alone, and must be told something wrong.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { type Random, seededRandom } from '../src/base/random.ts';
import { DATA_FILE } from '../src/engine/lmdb/directory.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';

export const experiment: Experiment = {
  about: 'flip bits over the whole data file; no wrong answer',
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
  const store = join(context.scratch, 'store');
  const damaged = join(context.scratch, 'damaged');
  mkdirSync(damaged, { mode: 0o700 });
  await makeStore(store, random.fork());
  const original = readFileSync(join(store, DATA_FILE));
  const reader = new Reader();
  context.cleanup(() => reader.stop());
  copyFileSync(join(store, 'era'), join(damaged, 'era'));
  const flip = async (mode: 'checked' | 'bare', bit: number): Promise<string> => {
    const bytes = Buffer.from(original);
    bytes[bit >>> 3]! ^= 1 << (bit & 7);
    rmSync(join(damaged, 'lock.mdb'), { force: true });
    rmSync(join(damaged, DATA_FILE), { force: true });
    writeFileSync(join(damaged, DATA_FILE), bytes, { mode: 0o600 });
    return reader.ask(mode, damaged);
  };
  const expected = await reader.ask('checked', store);
  const bareExpected = await reader.ask('bare', store);
  const count = Number(context.options.flips ?? (context.long ? 4_000 : 400));
  const bits = pickBits(random, original.length, count);
  const tally: Tally = { flips: 0, right: 0, refused: 0, wrong: 0, crashed: 0 };
  for (const bit of bits) {
    const answer = await flip('checked', bit);
    note(tally, answer, expected);
    if (answer !== expected && !answer.startsWith('refused')) {
      context.log(`  bit ${bit}: ${answer}`);
    }
    if (tally.flips % 500 === 0) context.log(`  ${tally.flips} flips, ${tally.wrong} wrong`);
  }
  const control: Tally = { flips: 0, right: 0, refused: 0, wrong: 0, crashed: 0 };
  for (const bit of bits.slice(0, context.long ? 1_000 : 200)) {
    note(control, await flip('bare', bit), bareExpected);
  }
  return {
    ok: tally.wrong === 0 && tally.crashed === 0 && tally.refused > 0 && control.wrong > 0,
    figures: {
      'bytes of the data file': original.length,
      flips: tally.flips,
      'right answers': tally.right,
      refused: tally.refused,
      'wrong answers': tally.wrong,
      'processes ended': tally.crashed,
    },
    control: { what: 'LMDB alone', ...control, broke: control.wrong > 0 },
  };
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

/** A store with everything in it: history, leases, deletions, large values, several commits. */
async function makeStore(path: string, random: Random): Promise<void> {
  const engine = await openLmdbEngine(path);
  const lease = await engine.grantLease({ ttlMs: 3_600_000 });
  for (let i = 0; i < 300; i++) {
    const key = utf8(`key/${random.integer(0, 80)}`);
    const value = random.bytes(random.chance(0.03) ? 12_000 : random.integer(0, 200));
    if (random.chance(0.15)) await engine.txn({ success: [{ type: 'delete', key }] });
    else {
      const attached = random.chance(0.2) ? { lease: lease.id } : {};
      await engine.txn({ success: [{ type: 'put', key, value, ...attached }] });
    }
  }
  await engine.close();
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
