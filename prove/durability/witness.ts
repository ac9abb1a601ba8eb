/**
 * Runs the process under test, keeps what it was told outside of it, and compares with what the
 * store says afterwards.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { text, utf8 } from '../../src/base/bytes.ts';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { Script } from './child.ts';

const CHILD = join(import.meta.dirname, 'child.ts');

export interface Ran {
  /** index → revision, 0 where the process did not know it. */
  readonly acknowledged: ReadonlyMap<number, number>;
  readonly errors: readonly string[];
  /** An acknowledgement came after an error. */
  readonly afterError: boolean;
  /** The script came to its end. */
  readonly ended: boolean;
  readonly signal: NodeJS.Signals | null;
  readonly code: number | null;
  /** The beginning of what it wrote to its standard error. */
  readonly complaint: string;
}

const COMPLAINT_MAX = 2_000;

export interface Running {
  readonly child: ChildProcess;
  /** Sends a signal to the process and, where strace stands before it, to that too. */
  signal(name: NodeJS.Signals): void;
  /** What has been told so far; grows. */
  readonly acknowledged: ReadonlyMap<number, number>;
  readonly finished: Promise<Ran>;
}

/** Starts the process under test, behind `prefix` (strace, for one). */
export function start(script: Script, prefix: readonly string[] = []): Running {
  const command = [
    ...prefix,
    process.execPath,
    '--conditions=holdfast/source',
    '--import',
    'tsx',
    CHILD,
    JSON.stringify(script),
  ];
  const child = spawn(command[0]!, command.slice(1), {
    detached: true,
    // One thread of the pool, so that the N-th call of the process is the N-th call of a thread; but
    // for those of the main thread, which come in its own count.
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const acknowledged = new Map<number, number>();
  const errors: string[] = [];
  let afterError = false;
  let ended = false;
  const hear = (line: string): void => {
    const [kind, first, second] = line.split(' ');
    if (kind === 'a') {
      acknowledged.set(Number(first), Number(second));
      if (errors.length > 0) afterError = true;
    } else if (kind === 'e') errors.push(first!);
    else if (kind === 'end') ended = true;
  };
  let rest = '';
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    lines.forEach(hear);
  });
  let complaint = '';
  child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
    complaint = (complaint + chunk).slice(0, COMPLAINT_MAX);
  });
  const finished = new Promise<Ran>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) =>
      resolve({ acknowledged, errors, afterError, ended, signal, code, complaint }),
    );
  });
  const signal = (name: NodeJS.Signals): void => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      process.kill(-child.pid, name);
    }
  };
  return { child, signal, acknowledged, finished };
}

export interface Verdict {
  /** Acknowledged, and not there as it was acknowledged. */
  readonly lost: number;
  /** Acknowledged with a revision that another change has. */
  readonly reused: number;
  /** The store could not be opened; all that was acknowledged counts as lost. */
  readonly refused: string | undefined;
}

/** Opens the store and compares its whole history with what was acknowledged. */
export async function judge(
  path: string,
  acknowledged: ReadonlyMap<number, number>,
): Promise<Verdict> {
  try {
    const { history, next } = await readHistory(path);
    let lost = 0;
    let reused = 0;
    for (const [index, revision] of acknowledged) {
      const found = history.get(index);
      if (found === undefined || (revision !== 0 && found !== revision)) lost++;
      if (revision >= next) reused++;
    }
    const revisions = [...acknowledged.values()].filter((revision) => revision !== 0);
    reused += revisions.length - new Set(revisions).size;
    return { lost, reused, refused: undefined };
  } catch (error) {
    const refused = HoldfastError.from(error);
    return { lost: acknowledged.size, reused: 0, refused: `${refused.code}: ${refused.message}` };
  }
}

/** index → revision of every put in the store, and the revision that the next change gets. */
async function readHistory(path: string): Promise<{ history: Map<number, number>; next: number }> {
  const engine = await openLmdbEngine(path, { create: false, retainRevisions: 0, quotaBytes: 0 });
  const history = new Map<number, number>();
  try {
    const { header } = await engine.status();
    const everything = { key: utf8('key/'), end: utf8('key0'), startRevision: 1 };
    if (header.revision > 1) {
      for await (const batch of engine.watch(everything)) {
        for (const { kv } of batch.events) {
          history.set(Number.parseInt(text(kv.value), 10), kv.modRevision);
        }
        if (batch.header.revision >= header.revision) break;
      }
    }
    // A disk that had no room leaves an alarm, which stays until somebody has looked.
    await engine.operator.disarm('no-space');
    const put = await engine.txn({
      success: [{ type: 'put', key: utf8('after'), value: utf8('') }],
    });
    return { history, next: put.header.revision };
  } finally {
    await engine.close();
  }
}

/**
 * How strace is told to disturb one system call. Without its seccomp mode, which is faster but
 * injects a signal only once.
 */
export function strace(call: string, action: string): string[] {
  const inject = `inject=${call}:${action}`;
  return ['strace', '-f', '-qqq', '-e', `trace=${call}`, '-e', inject, '-o', '/dev/null'];
}
