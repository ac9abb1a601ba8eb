/**
 * Kills the process at every single sync of a scripted workload, and at the writes between them: of
 * the journal, of the pages and roots of the tree, of the removal of what was folded. Then opens the
 * store again and looks for everything that had been acknowledged. Once with a pool that syncs, and
 * once with a main thread that does.
 *
 * The control acknowledges before the write; it must lose.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import type { SyncPlace } from '../src/engine/lmdb/pace.ts';
import type { Script } from './durability/child.ts';
import { judge, start, strace } from './durability/witness.ts';

/** The journal's batches; roots and blank segments; pages of the tree; segments done with. */
const WRITES = ['pwritev', 'pwrite64', 'writev', 'unlink', 'rename'] as const;
const PLACES: readonly SyncPlace[] = ['elsewhere', 'here'];
type Call = 'fdatasync' | (typeof WRITES)[number];

/** How often the busiest thread makes each call. */
type Calls = Readonly<Record<Call, number>>;

/** So small that a journal of a few hundred transactions is folded many times. */
const SEGMENT_BYTES = 16_384;

interface Tally {
  kills: number;
  survived: number;
  acknowledged: number;
  lost: number;
  reused: number;
  refused: number;
}

function fresh(): Tally {
  return { kills: 0, survived: 0, acknowledged: 0, lost: 0, reused: 0, refused: 0 };
}

export const experiment: Experiment = {
  about: 'kill the process at every sync, and at page writes; nothing acknowledged is lost',
  needs: { strace: 'strace' },
  run,
};

async function run(context: Context): Promise<Report> {
  const transactions = Number(context.options.transactions ?? (context.long ? 500 : 8));
  const bench = new Bench(context, transactions);
  const calls = await bench.count();
  const made = WRITES.map((call) => `${calls[call]} ${call}`).join(', ');
  context.log(`${transactions} transactions make ${calls.fdatasync} syncs, ${made}`);
  const kills = fresh();
  for (const place of PLACES) {
    bench.syncs = place;
    const { survived } = kills;
    // Until there is no such sync any more, and the script comes to its end.
    for (let index = 1; kills.survived === survived; index++) {
      await bench.kill('fdatasync', index, 'after', kills);
      if (index % 50 === 0) context.log(`  ${index} syncs ${place}, ${kills.lost} lost`);
    }
  }
  // Between two syncs any write is like another: the long form takes a share of them.
  const writes = fresh();
  for (const call of WRITES) {
    const stride = Math.max(1, Math.floor(calls[call] / (context.long ? 150 : 4)));
    for (let index = 1; index <= calls[call]; index += stride) {
      bench.syncs = PLACES[index % 2]!;
      await bench.kill(call, index, 'after', writes);
      if (context.long && index % 10 === 1)
        context.log(`  ${index} of ${call}, ${writes.lost} lost`);
    }
  }
  const creation = fresh();
  for (const call of ['pwrite64', 'fdatasync', 'fsync', 'rename'] as const) {
    for (let index = 1; index <= (context.long ? 5 : 1); index++)
      await bench.create(call, index, creation);
  }
  const control = fresh();
  const step = Math.max(1, Math.floor(calls.pwritev / 4));
  for (let index = 1; index <= calls.pwritev; index += step) {
    await bench.kill('pwritev', index, 'early', control);
  }
  const all = [kills, writes, creation];
  const ok =
    all.every((one) => one.lost === 0 && one.reused === 0 && one.refused === 0) &&
    kills.kills >= PLACES.length * transactions &&
    writes.kills > 0 &&
    control.lost > 0;
  return {
    ok,
    figures: {
      transactions,
      'kills at a sync': kills.kills,
      'kills at a write': writes.kills,
      'kills while a store is made': creation.kills,
      'acknowledged writes looked for': kills.acknowledged + writes.acknowledged,
      'acknowledged writes lost': kills.lost + writes.lost + creation.lost,
      'revisions reused': kills.reused + writes.reused + creation.reused,
      'stores refused': kills.refused + writes.refused + creation.refused,
    },
    control: {
      what: 'acknowledges before the write',
      kills: control.kills,
      acknowledged: control.acknowledged,
      lost: control.lost,
      broke: control.lost > 0,
    },
  };
}

class Bench {
  readonly #context: Context;
  readonly #transactions: number;
  /** Who waits for syncs in the runs that follow. */
  syncs: SyncPlace = 'elsewhere';
  #runs = 0;

  constructor(context: Context, transactions: number) {
    this.#context = context;
    this.#transactions = transactions;
  }

  /** How many calls the undisturbed script makes. */
  async count(): Promise<Calls> {
    const path = await this.#store();
    const log = join(this.#context.scratch, 'calls');
    const prefix = [
      'strace',
      '-f',
      '-qqq',
      '--seccomp-bpf',
      '-e',
      `trace=fdatasync,${WRITES.join(',')}`,
    ];
    const ran = await start(this.#script(path, 'after'), [...prefix, '-o', log]).finished;
    if (!ran.ended) throw new Error('the undisturbed script did not come to its end');
    rmSync(path, { recursive: true });
    return countCalls(readFileSync(log, 'utf8').split('\n'));
  }

  /** One run on a fresh store, killed at the call with this index, and the verdict on it. */
  async kill(call: string, index: number, ack: Script['ack'], tally: Tally): Promise<void> {
    const path = await this.#store();
    await this.#killed(path, call, index, ack, tally);
  }

  /** The same while the store is being made. */
  async create(call: string, index: number, tally: Tally): Promise<void> {
    const path = join(this.#context.scratch, `new-${this.#runs++}`);
    mkdirSync(path, { mode: 0o700 });
    await this.#killed(path, call, index, 'after', tally);
  }

  async #killed(
    path: string,
    call: string,
    index: number,
    ack: Script['ack'],
    tally: Tally,
  ): Promise<void> {
    const script = this.#script(path, ack);
    const ran = await start(script, strace(call, `signal=KILL:when=${index}`)).finished;
    if (ran.ended) tally.survived++;
    else tally.kills++;
    if (!ran.ended && ran.acknowledged.size === 0)
      await openLmdbEngine(path).then((e) => e.close());
    const verdict = await judge(path, ran.acknowledged);
    tally.acknowledged += ran.acknowledged.size;
    tally.lost += verdict.lost;
    tally.reused += verdict.reused;
    if (verdict.refused !== undefined) {
      tally.refused++;
      this.#context.log(`  ${call} ${index}: ${verdict.refused}`);
    }
    if (verdict.lost > 0 && ack === 'after') {
      this.#context.log(`  ${call} ${index}: ${verdict.lost} of ${ran.acknowledged.size} lost`);
    }
    rmSync(path, { recursive: true, force: true });
  }

  async #store(): Promise<string> {
    const path = join(this.#context.scratch, `store-${this.#runs++}`);
    await openLmdbEngine(path).then((engine) => engine.close());
    return path;
  }

  #script(path: string, ack: Script['ack']): Script {
    // Several at a time in the control, so that something is on its way at every sync.
    const outstanding = ack === 'early' ? 4 : 1;
    const count = this.#transactions;
    const segmentBytes = SEGMENT_BYTES;
    const { syncs } = this;
    return { path, from: 0, count, outstanding, ack, valueBytes: 60, segmentBytes, syncs };
  }
}

/** Of each call the number in the thread that makes it most: strace counts in each by itself. */
function countCalls(lines: readonly string[]): Calls {
  const most: Record<Call, number> = {
    fdatasync: 0,
    pwritev: 0,
    pwrite64: 0,
    writev: 0,
    unlink: 0,
    rename: 0,
  };
  const seen = new Map<string, number>();
  for (const line of lines) {
    const [, thread, call] = /^([0-9]+) +([a-z0-9]+)\(/.exec(line) ?? [];
    if (call === undefined || !(call in most)) continue;
    const count = (seen.get(`${thread} ${call}`) ?? 0) + 1;
    seen.set(`${thread} ${call}`, count);
    most[call as Call] = Math.max(most[call as Call], count);
  }
  return most;
}
