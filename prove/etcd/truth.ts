/** The history as another client tells it: `etcdctl watch` from a revision to another. */
import { spawn } from 'node:child_process';
import { locate } from '../../scripts/packages.mjs';

interface Told {
  readonly Events: readonly {
    readonly type?: number | string;
    readonly kv: { readonly key: string; readonly mod_revision: number };
  }[];
}

const PATIENCE_MS = 30_000;
const DELETE: ReadonlySet<unknown> = new Set([1, 'DELETE']);

/** `REVISION put|delete KEY`, one line for each event. */
export async function history(url: string, from: number, to: number): Promise<readonly string[]> {
  const path = locate('etcdctl') ?? 'etcdctl';
  const args = ['--endpoints', url, 'watch', '--prefix', '', '--rev', String(from), '-w', 'json'];
  const child = spawn(path, args, {
    env: { ...process.env, ETCDCTL_API: '3' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  const lines: string[] = [];
  let rest = '';
  try {
    for await (const chunk of child.stdout) {
      const parts = (rest + String(chunk)).split('\n');
      rest = parts.pop() ?? '';
      for (const part of parts)
        if (part && append(lines, JSON.parse(part) as Told) >= to) return lines;
    }
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
  }
  throw new Error(`etcdctl did not tell the history up to ${to}`);
}

function append(lines: string[], { Events: events }: Told): number {
  let last = 0;
  for (const { type, kv } of events) {
    last = kv.mod_revision;
    const key = Buffer.from(kv.key, 'base64').toString();
    lines.push(`${last} ${DELETE.has(type) ? 'delete' : 'put'} ${key}`);
  }
  return last;
}
