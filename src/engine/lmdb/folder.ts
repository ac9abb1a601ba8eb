/**
 * Who folds the journal into the tree while the store serves: a thread of its own, so that writing
 * pages and waiting for the disk keep nobody from his work.
 *
 * A thread that is ended in the middle of a transaction of LMDB leaves its lock behind, and the end
 * of the process waits for that lock for ever. So `process.exit` waits for a fold under way.
 */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';
import { type ErrorCode, HoldfastError, type Outcome } from '../../model/errors.ts';
import type { JournalMark } from './format.ts';

/** What the thread is told at its start. */
export interface FolderTask {
  readonly path: string;
  readonly ownerEpoch: number;
  /** Two numbers, as below. */
  readonly busy: SharedArrayBuffer;
}

/** 1 from before a fold is asked for until the thread is done with it. */
export const BUSY = 0;
/** 1 while pages of the tree go to the disk. */
export const WRITING = 1;

const folds = new Set<Int32Array>();
/** More than any fold takes; a thread that has died in spite of all must not keep the process. */
const LAST_FOLD_MS_MAX = 30_000;

function awaitFolds(): void {
  for (const busy of folds) Atomics.wait(busy, BUSY, 1, LAST_FOLD_MS_MAX);
}

/** What the thread answers to each mark. */
export type FolderAnswer = { readonly sequence: number } | { readonly failed: Failure };

interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly outcome: Outcome | undefined;
  readonly noSpace: boolean;
}

export class Folder {
  readonly #task: FolderTask;
  readonly #busy: Int32Array;
  #thread: Worker | undefined;
  #waiting: ((answer: FolderAnswer) => void) | undefined;

  constructor(task: Omit<FolderTask, 'busy'>) {
    const busy = new SharedArrayBuffer(8);
    this.#task = { ...task, busy };
    this.#busy = new Int32Array(busy);
  }

  /** A thread costs time to start; once it runs it is the better place for any fold. */
  get isRunning(): boolean {
    return this.#thread !== undefined;
  }

  /** Pages of the tree are on their way to the disk: everything else that it does takes longer. */
  get isWriting(): boolean {
    return Atomics.load(this.#busy, WRITING) === 1;
  }

  /** Folds up to the segment of `next`; one call at a time. Answers the number of the commit. */
  async fold(next: JournalMark): Promise<number> {
    const thread = this.#running();
    const answer = await new Promise<FolderAnswer>((resolve) => {
      this.#waiting = resolve;
      Atomics.store(this.#busy, BUSY, 1);
      thread.ref();
      thread.postMessage(next);
    });
    this.#thread?.unref();
    if ('sequence' in answer) return answer.sequence;
    const { code, message, outcome, noSpace } = answer.failed;
    const cause = noSpace ? Object.assign(new Error(message), { code: 'ENOSPC' }) : undefined;
    throw new HoldfastError(code, message, { cause, ...(outcome ? { outcome } : {}) });
  }

  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    this.#forget();
    if (!thread) return;
    const exited = new Promise<void>((resolve) => thread.once('exit', () => resolve()));
    thread.ref();
    thread.postMessage('close');
    await exited;
  }

  #running(): Worker {
    if (this.#thread) return this.#thread;
    const thread = startThread(this.#task);
    thread.on('message', (answer: FolderAnswer) => this.#answered(answer));
    thread.on('error', (error) => this.#broken(error));
    thread.on('exit', () => this.#broken(new Error('the folding thread has ended')));
    thread.unref();
    this.#thread = thread;
    if (folds.size === 0) process.on('exit', awaitFolds);
    folds.add(this.#busy);
    return thread;
  }

  #forget(): void {
    folds.delete(this.#busy);
    if (folds.size === 0) process.off('exit', awaitFolds);
  }

  #answered(answer: FolderAnswer): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.(answer);
  }

  #broken(error: Error): void {
    this.#thread = undefined;
    this.#forget();
    const message = `the journal could not be folded: ${error.message}`;
    this.#answered({
      failed: { code: 'storage-failed', message, outcome: undefined, noSpace: false },
    });
  }
}

function startThread(task: FolderTask): Worker {
  // What it has opened of the lock file stays open when it ends: see `base/lmdb-note.ts`.
  const options: WorkerOptions = { workerData: task, execArgv: [], trackUnmanagedFds: false };
  if (!import.meta.url.endsWith('.ts')) {
    const entry = new URL('./fold-thread.js', import.meta.url);
    return new Worker(entry, options);
  }
  // From sources a thread first needs what turns TypeScript into JavaScript.
  const entry = new URL('./fold-thread.ts', import.meta.url).href;
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx/package.json'));
  const loader = new URL('./dist/esm/api/index.mjs', tsx).href;
  const bootstrap = `import(${JSON.stringify(loader)}).then(({ register }) => {
    register();
    return import(${JSON.stringify(entry)});
  })`;
  return new Worker(bootstrap, { ...options, eval: true });
}
