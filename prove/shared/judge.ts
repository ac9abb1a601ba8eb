/**
 * The processes on the shared directory, and the witness outside: the register that they all write,
 * once behind a compare-max mark and once, on the same schedule, behind nothing (the control); and
 * the book of all writes that the store acknowledged.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { admit, NO_MARK } from '../../src/guard/fence.ts';
import type { FromWorker, ToWorker } from './messages.ts';

export interface Acknowledged {
  readonly key: string;
  readonly revision: number;
}

export class Judge {
  readonly acknowledged: Acknowledged[] = [];
  readonly trouble: string[] = [];
  unknown = 0;
  grants = 0;
  accepted = 0;
  refused = 0;
  openWrites = 0;
  /** Accepted although a greater token had been seen. */
  twoHolders = 0;
  /** Grants whose token is not above one that was told before they were asked for. */
  fallen = 0;
  readonly #directory: string;
  readonly #ttlMs: number;
  readonly #workers = new Map<string, ChildProcess>();
  readonly #told: { readonly token: bigint; readonly atMs: number }[] = [];
  #mark = NO_MARK;
  /** The judge's own, apart from what the register goes by. */
  #greatest = 0n;
  #guarded = 0;
  #open = 0;
  #started = 0;
  #stopHolder: ((pid: number) => void) | undefined;
  #onOutcome: ((startedAtMs: number) => void) | undefined;

  constructor(directory: string, ttlMs: number) {
    this.#directory = directory;
    this.#ttlMs = ttlMs;
  }

  get lost(): { readonly guarded: number; readonly open: number } {
    return { guarded: this.accepted - this.#guarded, open: this.openWrites - this.#open };
  }

  async start(): Promise<void> {
    const name = `p${this.#started++}`;
    const worker = fork(
      new URL('./worker.ts', import.meta.url).pathname,
      [this.#directory, name, String(this.#ttlMs)],
      { execArgv: ['--conditions=holdfast/source', '--import', 'tsx'] },
    );
    this.#workers.set(name, worker);
    worker.on('exit', () => this.#workers.delete(name));
    worker.on('error', () => {});
    const running = new Promise<void>((resolve, reject) => {
      worker.on('message', (message: FromWorker) => {
        if (message.type === 'running') resolve();
        else this.#heard(worker, message);
      });
      worker.once('exit', () => reject(new Error(`${name} ended before it ran`)));
    });
    await running;
  }

  /** Lets every process finish its turn and leave. */
  async finish(): Promise<void> {
    const ends = [...this.#workers.values()].map(async (worker) => {
      const ended = once(worker, 'exit');
      worker.kill('SIGCONT');
      send(worker, { type: 'stop' });
      await ended;
    });
    await Promise.all(ends);
  }

  killAll(): void {
    for (const worker of this.#workers.values()) worker.kill('SIGKILL');
  }

  /** The process of the next lock holder that has read and not yet written. */
  nextHolder(): Promise<number> {
    return new Promise((resolve) => {
      this.#stopHolder = resolve;
    });
  }

  /** Resolves, with the time, when the store acknowledges a write begun after `sinceMs`. */
  acknowledgedSince(sinceMs: number): Promise<number> {
    return new Promise((resolve) => {
      this.#onOutcome = (startedAtMs) => {
        if (startedAtMs >= sinceMs) resolve(nowMs());
      };
    });
  }

  #heard(worker: ChildProcess, message: FromWorker): void {
    switch (message.type) {
      case 'read':
        this.#read(worker, BigInt(message.token), message.askedAtMs);
        return;
      case 'write':
        this.#write(BigInt(message.token), message.guarded, message.open);
        send(worker, { type: 'written' });
        return;
      case 'outcome':
        if (message.revision === undefined) this.unknown++;
        else {
          this.acknowledged.push({ key: message.key, revision: message.revision });
          this.#onOutcome?.(message.startedAtMs);
        }
        return;
      case 'trouble':
        this.trouble.push(message.message);
        return;
      default:
    }
  }

  /** A holder's first act raises the mark: whoever held before it is late from now on. */
  #read(worker: ChildProcess, token: bigint, askedAtMs: number): void {
    this.grants++;
    const earlier = this.#told.filter(({ atMs }) => atMs < askedAtMs).at(-1);
    if (earlier && token <= earlier.token) this.fallen++;
    this.#greatest = token > this.#greatest ? token : this.#greatest;
    this.#told.push({ token: this.#greatest, atMs: nowMs() });
    this.#mark = admit(this.#mark, token, 'reign').mark;
    const holder = this.#stopHolder;
    this.#stopHolder = undefined;
    if (holder && worker.pid) holder(worker.pid);
    send(worker, { type: 'values', guarded: this.#guarded, open: this.#open });
  }

  #write(token: bigint, guarded: number, open: number): void {
    this.#open = open;
    this.openWrites++;
    const { admitted, mark } = admit(this.#mark, token, 'reign');
    if (!admitted) {
      this.refused++;
      return;
    }
    if (token < this.#greatest) this.twoHolders++;
    this.#mark = mark;
    this.#guarded = guarded;
    this.accepted++;
  }
}

export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function send(worker: ChildProcess, message: ToWorker): void {
  if (worker.connected) worker.send(message, () => {});
}
