/**
 * Clients of others find our server to behave as a real etcd: Python's on gRPC (in C) and on the JSON
 * gateway. One script for each, in `clients/`, tells on every line what it saw; the lines must be equal.
 *
 * Control: a server that forgets former values must be noticed.
 */
import { spawn } from 'node:child_process';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import type { Engine } from '../src/engine/contract.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import { serve } from '../src/server/serve.ts';
import { startEtcd } from '../test/servers/etcd.ts';
import { forgetful } from './etcdctl/forgetful.ts';

/** Not the first on the path: Debian's packages are for Debian's. */
const PYTHON = '/usr/bin/python3';
const PACKAGES = '/usr/lib/python3/dist-packages';
const SCRIPTS = ['over_grpc', 'over_json'];
const SCRIPT_MS_MAX = 60_000;
const STOPPED = 'ended with';

export const experiment: Experiment = {
  about: 'Python clients on gRPC and on the JSON gateway see of our server what they see of etcd',
  needs: {
    etcd: 'etcd-server',
    [`${PACKAGES}/etcd3/__init__.py`]: 'python3-etcd3',
    [`${PACKAGES}/etcd3gw/__init__.py`]: 'python3-etcd3gw',
  },
  run,
};

async function run(context: Context): Promise<Report> {
  let equal = 0;
  let differ = 0;
  let noticed = 0;
  for (const script of SCRIPTS) {
    const etcd = await startEtcd();
    context.cleanup(() => etcd.stop());
    const theirs = await lines(context, script, etcd.port);
    const stopped = theirs.find((line) => line.startsWith(STOPPED));
    if (stopped !== undefined) throw new Error(`${script}.py against etcd ${stopped}`);
    const own = await lines(context, script, await ours(context, (engine) => engine));
    const bent = await lines(context, script, await ours(context, forgetful));
    for (const [i, line] of theirs.entries()) {
      if (line === own[i]) equal++;
      else {
        differ++;
        context.log(`${script}\n  etcd: ${line}\n  ours: ${own[i]}`);
      }
      if (line !== bent[i]) noticed++;
    }
    differ += Math.max(0, own.length - theirs.length);
  }
  return {
    ok: equal > 0 && differ === 0 && noticed > 0,
    figures: { 'lines equal': equal, 'lines that differ': differ },
    control: { 'lines that differ when former values are forgotten': noticed },
  };
}

async function ours(context: Context, bend: (engine: Engine) => Engine): Promise<number> {
  const engine = await openMemoryEngine({ retainRevisions: 0 });
  const server = await serve({ engine: bend(engine), listen: { port: 0 }, name: 'm0' });
  context.cleanup(async () => {
    await server.close();
    await engine.close();
  });
  return server.port;
}

/** What a script says, to its end or to what stopped it. */
async function lines(context: Context, script: string, port: number): Promise<string[]> {
  const path = new URL(`clients/${script}.py`, import.meta.url).pathname;
  // Debian's protobuf does not take what etcd3 brings, unless it is asked to in Python.
  const env = { ...process.env, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION: 'python' };
  const child = spawn(PYTHON, [path, String(port)], { env, timeout: SCRIPT_MS_MAX });
  context.cleanup(() => child.kill('SIGKILL'));
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const errors: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  const code = await new Promise((resolve) => child.once('close', resolve));
  const said = Buffer.concat(chunks).toString().trimEnd().split('\n');
  if (code === 0) return said;
  const last = Buffer.concat(errors).toString().trimEnd().split('\n').at(-1);
  return [...said, `${STOPPED} ${code}: ${last}`];
}
