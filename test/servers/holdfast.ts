/** `holdfast serve` as a process of its own, for tests of what only a process can show. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const ROOT = new URL('../..', import.meta.url).pathname;
export const MAIN: string = join(ROOT, 'src/cli/main.ts');
export const FROM_SOURCE: readonly string[] = ['--conditions=holdfast/source', '--import', 'tsx'];

export interface Run {
  readonly child: ChildProcess;
  /** What it wrote to standard error, unless that went elsewhere. */
  said(): string;
  /** Its exit code; null when a signal ended it. */
  readonly ended: Promise<number | null>;
}

/** Runs a command; `log` is a file descriptor to take instead of a pipe to us. */
export function holdfast(
  args: readonly string[],
  log: number | 'pipe' = 'pipe',
  nodeArgs: readonly string[] = [],
): Run {
  const child = spawn(process.execPath, [...FROM_SOURCE, ...nodeArgs, MAIN, ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', log],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return { child, said: () => said, ended };
}

/** Resolves when it has said something that matches. */
export async function saying(run: Run, pattern: RegExp): Promise<RegExpExecArray> {
  for (;;) {
    const match = pattern.exec(run.said());
    if (match) return match;
    if (run.child.exitCode !== null) throw new Error(run.said());
    await Promise.race([once(run.child.stderr!, 'data'), run.ended]);
  }
}

export interface Serving extends Run {
  readonly port: number;
}

/** A server that serves, and its port. */
export async function serving(
  args: readonly string[],
  nodeArgs: readonly string[] = [],
): Promise<Serving> {
  const run = holdfast(['serve', '--listen', '0', ...args], 'pipe', nodeArgs);
  const [, port] = await saying(run, /"url":"https?:\/\/127\.0\.0\.1:(\d+)"/);
  return { ...run, port: Number(port) };
}
