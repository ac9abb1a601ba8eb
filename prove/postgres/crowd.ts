/**
 * The client processes of `postgres-faults` and `etcd-faults`, and the resource that they write to: a register that
 * keeps the highest token it has seen (compare-max, raised by reads too), and beside it, on the
 * same schedule, one that believes everybody: the control.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { FromWorker, ToWorker } from './messages.ts';

export interface Tally {
  /** Writes of the guarded register that were accepted, and refused as stale. */
  accepted: number;
  refused: number;
  /** Accepted although a newer token had been seen: must stay 0. */
  staleAccepted: number;
  openWrites: number;
  pauses: number;
  readonly acknowledged: string[];
  unknown: number;
  readonly trouble: string[];
}

export class Crowd {
  readonly tally: Tally = {
    ...{ accepted: 0, refused: 0, staleAccepted: 0, openWrites: 0, pauses: 0, unknown: 0 },
    ...{ acknowledged: [], trouble: [] },
  };
  readonly #workers: ChildProcess[] = [];
  #guarded = 0;
  #open = 0;
  #mark = 0n;
  /** The judge's own book, apart from what the register goes by. */
  #newest = 0n;
  /** The next holder that reads is stopped before it gets its answer. */
  #pauseNextMs = 0;

  /** Updates that the guarded register lost, and the one without a guard. */
  get lost(): { readonly guarded: number; readonly open: number } {
    const { accepted, openWrites } = this.tally;
    return { guarded: accepted - this.#guarded, open: openWrites - this.#open };
  }

  async start(label: string, count: number): Promise<void> {
    const path = new URL('./worker.ts', import.meta.url).pathname;
    const execArgv = ['--conditions=holdfast/source', '--import', 'tsx'];
    const ready: Promise<unknown>[] = [];
    for (let i = 0; i < count; i++) {
      const worker = fork(path, [`${label}-${i}`], { execArgv });
      this.#workers.push(worker);
      ready.push(once(worker, 'message'));
      worker.on('message', (message: FromWorker) => this.#heard(worker, message));
    }
    await Promise.all(ready);
  }

  /** All start on the URL; resolves when all run. */
  async phase(url: string, direct: boolean, ttlMs: number): Promise<void> {
    const running = this.#workers.map((worker) => told(worker, 'running'));
    for (const worker of this.#workers) send(worker, { type: 'phase', url, direct, ttlMs });
    await Promise.all(running);
  }

  async stop(): Promise<void> {
    const stopped = this.#workers.map((worker) => told(worker, 'stopped'));
    for (const worker of this.#workers) send(worker, { type: 'stop' });
    await Promise.all(stopped);
  }

  /** Stops whoever reads next, as holder, for this long: longer than its lease lives. */
  pauseHolder(ms: number): void {
    this.#pauseNextMs = ms;
  }

  end(): void {
    for (const worker of this.#workers) {
      worker.kill('SIGCONT');
      worker.kill('SIGKILL');
    }
  }

  #heard(worker: ChildProcess, message: FromWorker): void {
    switch (message.type) {
      case 'read':
        this.#read(worker, BigInt(message.token));
        return;
      case 'write':
        this.#write(worker, message);
        return;
      case 'outcome':
        if (message.acknowledged) this.tally.acknowledged.push(message.key);
        else this.tally.unknown++;
        return;
      case 'trouble':
        this.tally.trouble.push(message.message);
        return;
      default:
    }
  }

  #read(worker: ChildProcess, token: bigint): void {
    if (token > this.#mark) this.#mark = token;
    if (token > this.#newest) this.#newest = token;
    if (this.#pauseNextMs > 0) {
      const ms = this.#pauseNextMs;
      this.#pauseNextMs = 0;
      this.tally.pauses++;
      worker.kill('SIGSTOP');
      void pause(ms).then(() => worker.kill('SIGCONT'));
    }
    send(worker, { type: 'values', guarded: this.#guarded, open: this.#open });
  }

  #write(worker: ChildProcess, message: Extract<FromWorker, { type: 'write' }>): void {
    const token = BigInt(message.token);
    const accepted = token >= this.#mark;
    if (accepted) {
      this.#mark = token;
      this.#guarded = message.guarded;
      this.tally.accepted++;
      if (token < this.#newest) this.tally.staleAccepted++;
    } else this.tally.refused++;
    this.#open = message.open;
    this.tally.openWrites++;
    send(worker, { type: 'written', accepted });
  }
}

function send(worker: ChildProcess, message: ToWorker): void {
  if (worker.connected) worker.send(message);
}

function told(worker: ChildProcess, type: FromWorker['type']): Promise<void> {
  return new Promise((resolve) => {
    const onMessage = (message: FromWorker): void => {
      if (message.type !== type) return;
      worker.removeListener('message', onMessage);
      resolve();
    };
    worker.on('message', onMessage);
    worker.once('exit', () => resolve());
  });
}
