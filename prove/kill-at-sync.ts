/**
 * Kills the process at every single sync of a scripted workload, and at page writes between them,
 * opens the store again, and looks for everything that had been acknowledged.
 *
 * The control acknowledges before the sync; it must lose.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { openLmdbEngine } from '../src/engine/lmdb/engine.ts';
import type { Script } from './durability/child.ts';
import { judge, start, strace } from './durability/witness.ts';

interface Calls {
  readonly fdatasync: number;
  readonly pwrite64: number;
  readonly writev: number;
}

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
  const pageWrites = calls.pwrite64 + calls.writev;
  context.log(`${transactions} transactions make ${calls.fdatasync} syncs, ${pageWrites} writes`);
  const kills = fresh();
  for (let index = 1; index <= calls.fdatasync; index++) {
    await bench.kill('fdatasync', index, 'after', kills);
    if (index % 50 === 0) context.log(`  ${index} syncs, ${kills.lost} lost`);
  }
  // Between two syncs any write is like another: the long form takes a share of them.
  const writes = fresh();
  for (const call of ['pwrite64', 'writev'] as const) {
    const stride = Math.max(1, Math.floor(calls[call] / (context.long ? 150 : 4)));
    for (let index = 1; index <= calls[call]; index += stride) {
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
  const step = Math.max(1, Math.floor(calls.fdatasync / 4));
  for (let index = 2; index <= calls.fdatasync; index += step) {
    await bench.kill('fdatasync', index, 'early', control);
  }
  const all = [kills, writes, creation];
  const ok =
    all.every((one) => one.lost === 0 && one.reused === 0 && one.refused === 0) &&
    kills.kills === calls.fdatasync &&
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
      what: 'acknowledges before the sync',
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
  #runs = 0;

  constructor(context: Context, transactions: number) {
    this.#context = context;
    this.#transactions = transactions;
  }

  /** How many calls the undisturbed script makes in the thread that writes. */
  async count(): Promise<Calls> {
    const path = await this.#store();
    const log = join(this.#context.scratch, 'calls');
    const prefix = [
      'strace',
      '-f',
      '-qqq',
      '--seccomp-bpf',
      '-e',
      'trace=fdatasync,pwrite64,writev',
    ];
    const ran = await start(this.#script(path, 'after'), [...prefix, '-o', log]).finished;
    if (!ran.ended) throw new Error('the undisturbed script did not come to its end');
    const lines = readFileSync(log, 'utf8').split('\n');
    const writer = lines.find((line) => line.includes('fdatasync'))?.split(' ')[0];
    const calls = (name: string): number =>
      lines.filter((line) => line.startsWith(`${writer} `) && line.includes(`${name}(`)).length;
    rmSync(path, { recursive: true });
    return { fdatasync: calls('fdatasync'), pwrite64: calls('pwrite64'), writev: calls('writev') };
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
    return { path, from: 0, count: this.#transactions, outstanding, ack, valueBytes: 60 };
  }
}
