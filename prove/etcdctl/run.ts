/** Runs one `etcdctl` against one server and takes out of its answer what differs between any two. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { locate } from '../../scripts/packages.mjs';
import type { Step } from './steps.ts';

/** For a command that runs on to be in place, and to tell what it saw. */
const SETTLE_MS = 500;
const COMMAND_MS_MAX = 20_000;
/** `check` measures for a minute. */
const LONG_COMMAND_MS_MAX = 200_000;

export class Side {
  readonly #values = new Map<string, string>();
  readonly #endpoint: string;

  constructor(endpoint: string, scratch: string, name: string) {
    this.#endpoint = endpoint;
    this.#values.set('FILE', join(scratch, `${name}.snapshot`));
    this.#values.set('HOST', endpoint.replace('http://', ''));
  }

  async answer(step: Step): Promise<string> {
    const limitMs = step.long ? LONG_COMMAND_MS_MAX : COMMAND_MS_MAX;
    const running = this.#start(step.args, step.input, step.during !== undefined, limitMs);
    if (step.during) {
      await pause(SETTLE_MS);
      for (const args of step.during) await this.#start(args, undefined, false, limitMs).done;
      await pause(SETTLE_MS);
      running.interrupt();
    }
    const said = await running.done;
    const learnt = step.learn?.from.exec(said);
    if (step.learn && learnt?.[1]) this.#values.set(step.learn.name, learnt[1]);
    return this.#normalised(said);
  }

  #start(
    args: readonly string[],
    input: string | undefined,
    keepOpen: boolean,
    limitMs: number,
  ): { done: Promise<string>; interrupt(): void } {
    const filled = args.map((arg) =>
      arg.replace(/\$([A-Z]+)/, (whole, name: string) => this.#values.get(name) ?? whole),
    );
    const child = spawn(
      locate('etcdctl') ?? 'etcdctl',
      [`--endpoints=${this.#endpoint}`, ...filled],
      {
        env: { ...process.env, ETCDCTL_API: '3' },
        timeout: limitMs,
      },
    );
    let out = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    let wrong = '';
    child.stderr.on('data', (chunk: Buffer) => {
      wrong += chunk.toString();
    });
    child.stdin.on('error', () => {});
    if (input !== undefined) child.stdin.write(input);
    if (!keepOpen) child.stdin.end();
    const done = once(child, 'close').then(([code, signal]) => {
      const end = keepOpen ? '' : `exit ${signal ?? code}`;
      return [out.trimEnd(), wrong.trimEnd(), end].filter((part) => part !== '').join('\n');
    });
    return { done, interrupt: () => child.kill('SIGINT') };
  }

  /** Ids, addresses, sizes, times and releases differ between any two servers. */
  #normalised(said: string): string {
    return said
      .replaceAll(this.#endpoint, 'ENDPOINT')
      .replaceAll(this.#values.get('HOST')!, 'HOST')
      .replaceAll(this.#values.get('FILE')!, 'FILE')
      .split('\n')
      .filter((line) => !/^\{"level":"(info|debug)"/.test(line))
      .join('\n')
      .replace(/^\{"level":"warn".*?"error":(".*?[^\\]").*$/gm, 'warning $1')
      .replace(
        /"(cluster_id|member_id|raft_term|ID|leader|raftIndex|raftTerm|raftAppliedIndex|dbSize|dbSizeInUse)":\d+/g,
        '"$1":0',
      )
      .replace(/"(ClusterID|MemberID|RaftTerm|Lease)" ?: ?\d+/g, '"$1" : 0')
      .replace(/\b[0-9a-f]{12,16}\b/g, 'ID')
      .replace(/\b3\.\d+\.\d+\b/g, 'RELEASE')
      .replace(/\b\d+(\.\d+)?(µs|ms|s)\b/g, 'TIME')
      .replace(/\b\d+(\.\d+)? ([kM]?B)\b/g, 'SIZE')
      .replace(/"ttl":\d+/g, '"ttl":SOME')
      .replace(/"id":\d{12,}/g, '"id":0')
      .replace(/(true|false), (\d+), (\d+), (\d+),/g, '$1, TERM, INDEX, INDEX,')
      .replace(/^(ENDPOINT, )\d+$/gm, '$1HASH')
      .split('\n')
      .map(tableLine)
      .join('\n');
  }
}

/** The columns of a table are as wide as what stands in them, and its numbers are the server's own. */
function tableLine(line: string): string {
  if (line.startsWith('+--')) return '+--';
  if (!line.startsWith('|')) return line;
  const cells = line.split('|').map((cell) => cell.trim());
  return cells.map((cell) => (/^\d+$/.test(cell) ? 'N' : cell)).join(' | ');
}
