/**
 * The ghost, in a minute: a process is stopped while it holds a lock, the lock goes on to another,
 * and then the first one wakes up and writes, as if nothing had happened.
 *
 * Two processes deposit money on one account, a file, each under the same lock. Anna is stopped
 * between her last look at the lock and her write; no check of hers can close that gap. Her write
 * comes after Ben's and was computed before it. Told twice: with a guard at the file and without.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context, Figures, Report, Story } from '../scripts/experiment.ts';
import { FencedDirectory } from '../src/guard/file.ts';
import { connect, type Engine, HoldfastError, openEngine } from '../src/index.ts';
import { pipedEngine, serveEngine } from './support/piped-engine.ts';

const TTL_MS = 1_000;
const START = 100;
/** A file that says that the pause is over. */
const AWAKE = 'awake';
const DEPOSITS = { anna: 30, ben: 50 } as const;
type Name = keyof typeof DEPOSITS;

/** What a worker tells; the story waits for these words. */
type Word = 'ready' | 'about to write' | 'wrote' | 'refused' | 'done';
interface Said {
  readonly word: Word;
  readonly token?: string;
  readonly detail?: string;
}

export const story: Story = {
  about: 'a stopped holder wakes up and writes: refused by a guard, a lost deposit without',
  async run(context) {
    context.log('Anna deposits 30 and Ben 50, each under the lock "account", which lasts 1 s');
    context.log('without renewal. The account starts at 100, so 180 is right.\n');
    const guarded = await tell(context, true);
    const unguarded = await tell(context, false);
    const ok = guarded.lost === 0 && guarded.refused === 1 && unguarded.lost > 0;
    const figures = ({ balance, lost, refused }: Ending): Figures => ({
      'balance at the end': balance,
      'deposits lost': lost,
      'stale writes refused': refused,
    });
    return { ok, figures: figures(guarded), control: figures(unguarded) } satisfies Report;
  },
};

interface Ending {
  readonly balance: number;
  readonly lost: number;
  readonly refused: number;
}

async function tell(context: Context, guarded: boolean): Promise<Ending> {
  const folder = join(context.scratch, guarded ? 'guarded' : 'unguarded');
  mkdirSync(join(folder, 'account'), { recursive: true });
  writeFileSync(join(folder, 'account', 'balance'), String(START));
  const say = (line: string): void => context.log(`  ${line}`);
  context.log(guarded ? 'With a guard at the file:' : '\nThe same without:');
  await using engine = await openEngine(`lmdb:${join(folder, 'locks')}`);
  const anna = new Actor('anna', engine, folder, guarded, context);
  const ben = new Actor('ben', engine, folder, guarded, context);
  await Promise.all([anna.hear('ready'), ben.hear('ready')]);

  anna.tell('deposit');
  const { token } = await anna.hear('about to write');
  anna.stop();
  say(`anna gets the lock with token ${token}, reads ${START}, and is stopped before she writes`);
  ben.tell('deposit');
  const after = await ben.hear('wrote');
  say(`her lease runs out; ben gets token ${after.token}, reads ${START}, writes ${after.detail}`);
  await ben.hear('done');
  writeFileSync(join(folder, AWAKE), '');
  anna.wake();
  const late = await anna.hear('wrote', 'refused');
  say(`anna wakes up and writes ${START + DEPOSITS.anna}: ${verdict(late)}`);
  if (late.word === 'refused') {
    const again = await anna.hear('wrote');
    say(`anna asks again, gets token ${again.token}, reads anew and writes ${again.detail}`);
  }
  await anna.hear('done');
  const balance = read(folder);
  const wanted = START + DEPOSITS.anna + DEPOSITS.ben;
  return { balance, lost: balance === wanted ? 0 : 1, refused: late.word === 'refused' ? 1 : 0 };
}

function verdict(late: Said): string {
  return late.word === 'refused' ? `refused, ${late.detail}` : "done, and ben's deposit is gone";
}

function read(folder: string): number {
  return Number(readFileSync(join(folder, 'account', 'balance'), 'utf8'));
}

/** One worker process, as the story sees it. */
class Actor {
  readonly #child: ChildProcess;
  readonly #said: Said[] = [];
  #listener = (): void => {};

  constructor(name: Name, engine: Engine, folder: string, guarded: boolean, context: Context) {
    const env = { ...process.env, FOLDER: folder, NAME: name, GUARDED: guarded ? 'yes' : '' };
    this.#child = fork(fileURLToPath(import.meta.url), ['worker'], {
      env,
      serialization: 'advanced',
    });
    this.#child.on('message', (message: Partial<Said>) => {
      if (!message.word) return;
      this.#said.push(message as Said);
      this.#listener();
    });
    this.#child.once('exit', () => {
      this.#said.push({ word: 'done', detail: 'it ended' });
      this.#listener();
    });
    context.cleanup(() => this.#child.kill('SIGKILL'));
    serveEngine(engine, this.#child);
  }

  /** The next thing it says must be one of these words. */
  async hear(...words: readonly Word[]): Promise<Said> {
    while (this.#said.length === 0) {
      await new Promise<void>((resolve) => {
        this.#listener = resolve;
      });
    }
    const said = this.#said.shift()!;
    if (words.includes(said.word)) return said;
    throw new Error(`expected ${words.join(' or ')}, heard ${said.word}: ${said.detail ?? ''}`);
  }

  tell(order: string): void {
    this.#child.send({ order });
  }

  stop(): void {
    this.#child.kill('SIGSTOP');
  }

  wake(): void {
    this.#child.kill('SIGCONT');
  }
}

/** What a worker does; this is the part that an application would write. */
async function work(folder: string, name: Name, guarded: boolean): Promise<void> {
  const hf = await connect(await pipedEngine(), { ttl: TTL_MS, holder: name });
  const account = guarded ? await FencedDirectory.open(join(folder, 'account')) : undefined;
  const say = (word: Word, detail?: string, token?: bigint): void => {
    process.send?.({ word, detail, token: token?.toString() } satisfies Said | object);
  };
  const deposit = (pause: boolean): Promise<void> =>
    hf.lock('account').run(async (grant) => {
      const balance = String(read(folder) + DEPOSITS[name]);
      grant.ensureHeld();
      if (pause) {
        say('about to write', undefined, grant.token);
        gap(folder);
      }
      if (account) await account.write({ token: grant.token, holder: name }, 'balance', balance);
      else writeFileSync(join(folder, 'account', 'balance'), balance);
      say('wrote', balance, grant.token);
    });
  say('ready');
  await ordered();
  try {
    await deposit(name === 'anna');
  } catch (error) {
    // Her session ended while she was away; what she wrote without a guard stands all the same.
    if (!HoldfastError.is(error)) throw error;
    if (error.code === 'stale') {
      say('refused', error.message);
      await deposit(false);
    }
  }
  say('done');
  await account?.close();
  await hf.close();
}

/**
 * The pause. She has just looked at the lock, and nothing lies between that look and her write but
 * time. She is stopped somewhere in here, and goes on once the story has woken her.
 */
function gap(folder: string): void {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(join(folder, AWAKE))) Atomics.wait(clock, 0, 0, 5);
}

function ordered(): Promise<void> {
  return new Promise((resolve) => {
    process.on('message', (message: { readonly order?: string }) => message.order && resolve());
  });
}

if (process.argv[2] === 'worker') {
  const { FOLDER = '', NAME = 'anna', GUARDED } = process.env;
  await work(FOLDER, NAME as Name, GUARDED === 'yes');
}
