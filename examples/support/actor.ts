/**
 * The people of a story: processes of their own, which can be stopped right before an effect.
 *
 * The story and its actors are one file: the runner imports it and reads `story`; each actor runs
 * it with the word `actor` and plays its deeds. All share one authority, an embedded store that
 * the story's process owns. An actor that is stopped renews nothing and its lease runs out.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from '../../scripts/experiment.ts';
import { type Deferred, deferred } from '../../src/base/deferred.ts';
import { type Client, connect, HoldfastError, openEngine } from '../../src/index.ts';

export const TTL_MS = 2_000;

/** What actors are told and tell: plain values. */
export type Details = Readonly<Record<string, string | number | boolean>>;

/** What an actor has around it while it acts. */
export interface Stage {
  readonly hf: Client;
  readonly name: string;
  /** Stands still, as between two instructions: nothing runs in this process until it is woken. */
  freeze(details?: Details): void;
}

export type Deed = (stage: Stage, details: Details) => Promise<Details>;

interface Order {
  readonly id: number;
  readonly deed: string;
  readonly details: Details;
}

interface Told {
  readonly id: number;
  readonly type: 'ready' | 'frozen' | 'done' | 'failed';
  readonly details: Details;
}

/** A deed under way, as the story sees it. */
export interface Scene {
  readonly frozen: Promise<Details>;
  readonly done: Promise<Details>;
}

/** The store that grants the locks, as a URL for everybody. */
export async function openAuthority(context: Context): Promise<string> {
  const url = `lmdb:${join(context.scratch, 'authority')}`;
  const engine = await openEngine(url);
  context.cleanup(() => engine.close());
  return url;
}

export class Actor {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #awake: string;
  readonly #scenes = new Map<number, { frozen: Deferred<Details>; done: Deferred<Details> }>();
  readonly #ready = deferred<void>();
  #lastId = 0;

  private constructor(context: Context, file: string, name: string, authority: string) {
    this.name = name;
    this.#awake = join(context.scratch, `${name}-is-awake`);
    this.#ready.promise.catch(() => {});
    const env = { ...process.env, NAME: name, AUTHORITY: authority, AWAKE: this.#awake };
    this.#child = fork(fileURLToPath(file), ['actor'], { env });
    this.#child.on('message', (told: Told) => this.#hear(told));
    this.#child.once('exit', () => this.#gone());
    context.cleanup(() => this.#end());
  }

  /** Resolves when all of them are there. `file` is the story's `import.meta.url`. */
  static async cast<N extends string>(
    context: Context,
    file: string,
    authority: string,
    ...names: readonly N[]
  ): Promise<Readonly<Record<N, Actor>>> {
    const actors = names.map((name) => new Actor(context, file, name, authority));
    await Promise.all(actors.map((actor) => actor.#ready.promise));
    return Object.fromEntries(actors.map((actor) => [actor.name, actor])) as Record<N, Actor>;
  }

  begin(deed: string, details: Details): Scene {
    rmSync(this.#awake, { force: true });
    const id = ++this.#lastId;
    const scene = { frozen: deferred<Details>(), done: deferred<Details>() };
    for (const { promise } of [scene.frozen, scene.done]) promise.catch(() => {});
    this.#scenes.set(id, scene);
    this.#child.send({ id, deed, details } satisfies Order);
    return { frozen: scene.frozen.promise, done: scene.done.promise };
  }

  /** From the start to the end, without a stop. */
  async play(deed: string, details: Details): Promise<Details> {
    const scene = this.begin(deed, details);
    // Should it come to its place, it goes on at once.
    void scene.frozen.then(
      () => this.wake(),
      () => {},
    );
    return await scene.done;
  }

  stop(): void {
    this.#child.kill('SIGSTOP');
  }

  wake(): void {
    writeFileSync(this.#awake, '');
    this.#child.kill('SIGCONT');
  }

  #hear({ id, type, details }: Told): void {
    const scene = this.#scenes.get(id);
    if (type === 'ready') this.#ready.resolve();
    else if (type === 'frozen') scene?.frozen.resolve(details);
    else if (type === 'done') scene?.done.resolve(details);
    else {
      const error = new Error(`${this.name}: ${details.message}`);
      scene?.frozen.reject(error);
      scene?.done.reject(error);
    }
  }

  #gone(): void {
    const error = new Error(`${this.name} has ended`);
    this.#ready.reject(error);
    for (const { frozen, done } of this.#scenes.values()) {
      frozen.reject(error);
      done.reject(error);
    }
  }

  async #end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

/**
 * The plot of most stories: `early` is stopped right before its effect; its lease runs out, `later`
 * does the same deed from start to end; then `early` wakes up and goes on where it stood. A deed
 * answers with its token and what became of the effect; told is whether the late one was refused.
 */
export async function overtake(
  context: Context,
  early: Actor,
  later: Actor,
  deed: string,
  details: Details,
): Promise<{ readonly refused: boolean }> {
  const scene = early.begin(deed, { ...details, freeze: true });
  const { token } = await scene.frozen;
  early.stop();
  context.log(`  ${early.name} has token ${token} and is stopped right before the effect`);
  const after = await later.play(deed, details);
  context.log(`  ${later.name} has token ${after.token}: ${after.verdict}`);
  early.wake();
  const late = await scene.done;
  context.log(`  ${early.name} wakes up and goes on: ${late.verdict}`);
  return { refused: String(late.verdict).startsWith('refused') };
}

/** What became of an effect: `done`, or what the guard said. */
export async function verdictOf(effect: () => unknown): Promise<string> {
  try {
    await effect();
    return 'done';
  } catch (error) {
    if (!HoldfastError.is(error, 'stale')) throw error;
    return `refused, ${error.message.replace(/ \(raised.*/, '')}`;
  }
}

/** The actor's side: plays what it is told, until the story ends it. */
export async function playAs(deeds: Readonly<Record<string, Deed>>): Promise<void> {
  const { NAME: name = '', AUTHORITY: authority = '', AWAKE: awake = '' } = process.env;
  const say = (told: Told): void => void process.send?.(told);
  const hf = await connect(authority, { ttl: TTL_MS, holder: name });
  const parent = process.ppid;
  process.on('message', (order: Order) => {
    const { id, deed, details } = order;
    const freeze = (shown: Details = {}): void => {
      say({ id, type: 'frozen', details: shown });
      const clock = new Int32Array(new SharedArrayBuffer(4));
      while (!existsSync(awake)) {
        // Nobody is left to wake it.
        if (process.ppid !== parent) process.exit();
        Atomics.wait(clock, 0, 0, 5);
      }
    };
    Promise.resolve({ hf, name, freeze })
      .then((stage) => deeds[deed]!(stage, details))
      .then(
        (answer) => say({ id, type: 'done', details: answer }),
        (error: Error) => say({ id, type: 'failed', details: { message: String(error.stack) } }),
      );
  });
  // Without its story an actor has nothing to do.
  process.once('disconnect', () => process.exit());
  say({ id: 0, type: 'ready', details: {} });
}

/** Whether this process is an actor, and not the runner that reads the story. */
export const isActor: boolean = process.argv[2] === 'actor';
