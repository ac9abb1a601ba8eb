/**
 * Every command of `etcdctl` that has a meaning on one node, given in the same order to a real etcd and
 * to our server; the outputs must be equal once ids, sizes, times and releases are taken out.
 * What differs must stand, with the reason, in the table of docs/server.md.
 *
 * Control: a server that forgets former values must be noticed.
 */
import { readFileSync } from 'node:fs';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import type { Engine } from '../src/engine/contract.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import { serve } from '../src/server/serve.ts';
import { startEtcd } from '../test/servers/etcd.ts';
import { forgetful } from './etcdctl/forgetful.ts';
import { Side } from './etcdctl/run.ts';
import { STEPS, type Step } from './etcdctl/steps.ts';

export const experiment: Experiment = {
  about: 'etcdctl finds our server to behave as a real etcd, or the difference is explained',
  needs: { etcd: 'etcd-server', etcdctl: 'etcd-client' },
  run,
};

interface Difference {
  readonly command: string;
  readonly etcd: string;
  readonly ours: string;
}

async function run(context: Context): Promise<Report> {
  const steps = STEPS.filter((step) => context.long || !step.long);
  const differences = await compare(context, steps, (engine) => engine);
  const explained = explanations();
  const unexplained = differences.filter(({ command }) => !explained.has(command));
  for (const { command, etcd, ours } of differences) {
    const known = explained.has(command) ? ' (explained)' : '';
    context.log(`etcdctl ${command}${known}\n  etcd: ${indent(etcd)}\n  ours: ${indent(ours)}`);
  }
  const bent = await compare(context, steps.slice(0, 12), forgetful);
  return {
    ok: unexplained.length === 0 && bent.length > 0,
    figures: {
      commands: steps.length,
      'answers equal': steps.length - differences.length,
      'answers that differ, explained': differences.length - unexplained.length,
      'answers that differ, unexplained': unexplained.length,
    },
    control: { 'answers that differ when former values are forgotten': bent.length },
  };
}

async function compare(
  context: Context,
  steps: readonly Step[],
  bend: (engine: Engine) => Engine,
): Promise<Difference[]> {
  const etcd = await startEtcd();
  context.cleanup(() => etcd.stop());
  const engine = await openMemoryEngine({ retainRevisions: 0 });
  const server = await serve({ engine: bend(engine), listen: { port: 0 }, name: 'm0' });
  context.cleanup(async () => {
    await server.close();
    await engine.close();
  });
  const theirs = new Side(etcd.url, context.scratch, 'etcd');
  const own = new Side(server.url, context.scratch, 'own');
  const differences: Difference[] = [];
  for (const step of steps) {
    const [a, b] = await Promise.all([theirs.answer(step), own.answer(step)]);
    if (a !== b) differences.push({ command: step.args.join(' '), etcd: a, ours: b });
  }
  return differences;
}

/** The commands in the first column of the table of differences. */
function explanations(): Set<string> {
  const path = new URL('../docs/server.md', import.meta.url);
  const rows = readFileSync(path, 'utf8').matchAll(/^\| `etcdctl ([^`]+)` \|/gm);
  return new Set([...rows].map(([, command]) => command!));
}

function indent(text: string): string {
  return text.slice(0, 600).replaceAll('\n', '\n        ');
}
