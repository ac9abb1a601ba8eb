/**
 * A real artifact registry (Verdaccio) behind the HTTP guard: two laptops release in turn under one
 * lock on a real etcd; the first one sleeps past its TTL and publishes late. The control publishes
 * straight to the registry, which takes whatever comes.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment } from '../scripts/experiment.ts';
import { connect } from '../src/client.ts';
import { createGuardProxy, HttpGuard, LmdbMarks } from '../src/guard/http/index.ts';
import { freePort } from '../test/servers/daemon.ts';
import { startEtcd } from '../test/servers/etcd.ts';

export const experiment: Experiment = {
  about: 'only the current release leader publishes to a real Verdaccio',
  needs: { etcd: 'etcd-server' },
  async run(context) {
    const etcd = await startEtcd();
    context.cleanup(() => etcd.stop());
    const registry = await startVerdaccio(context);
    const marks = LmdbMarks.open(join(context.scratch, 'marks'));
    context.cleanup(() => marks.close());
    const guard = new HttpGuard(marks, { resource: 'releases' });
    const gate = createGuardProxy(guard, { upstream: registry });
    gate.listen(0, '127.0.0.1');
    await once(gate, 'listening');
    context.cleanup(() => {
      gate.close();
      gate.closeAllConnections();
    });
    const gated = `http://127.0.0.1:${(gate.address() as AddressInfo).port}`;
    const authority = `etcd://127.0.0.1:${etcd.port}`;

    const guarded = await story(context, authority, gated, 'guarded-app');
    const control = await story(context, authority, registry, 'plain-app');
    const without = await publish(gated, 'no-token', '1.0.0', undefined);
    context.log(`without a token: ${without}`);
    return {
      ok:
        guarded['leader publishes'] === 201 &&
        guarded['sleeper publishes late'] === 409 &&
        guarded['newest release'] === '2.0.0' &&
        without === 428 &&
        control['newest release'] === '1.0.0',
      figures: { ...guarded, 'without a token': without },
      control: { broke: control['newest release'] === '1.0.0', ...control },
    };
  },
};

/** The sleeper acquires first and loses the lock in its sleep; the leader publishes 2.0.0. */
async function story(context: Context, authority: string, registry: string, name: string) {
  const sleeper = await connect(authority, { ttl: 2_000, holder: 'sleeper' });
  const leader = await connect(authority, { ttl: 2_000, holder: 'leader' });
  try {
    const first = await sleeper.lock(name).acquire();
    // What a laptop that is shut does: nothing is renewed. Its program believes on.
    await sleeper.engine.revokeLease(BigInt(`0x${first.session.leaseHex}`));
    const second = await leader.lock(name).acquire({ wait: 20_000 });
    const leads = await publish(registry, name, '2.0.0', second.token);
    const late = await publish(registry, name, '1.0.0', first.token);
    const response = await fetch(`${registry}/${name}`);
    const document = (await response.json()) as { 'dist-tags': Record<string, string> };
    const newest = document['dist-tags'].latest ?? 'none';
    context.log(
      `${name}: tokens ${first.token} and ${second.token}; ${leads}, late ${late}, ${newest}`,
    );
    await second.release();
    return { 'leader publishes': leads, 'sleeper publishes late': late, 'newest release': newest };
  } finally {
    await leader.close();
    await sleeper.close();
  }
}

/** What `npm publish` sends. */
async function publish(
  registry: string,
  name: string,
  version: string,
  token: bigint | undefined,
): Promise<number> {
  const tarball = Buffer.from(`${name} ${version}`);
  const file = `${name}-${version}.tgz`;
  const dist = {
    tarball: `${registry}/${name}/-/${file}`,
    shasum: createHash('sha1').update(tarball).digest('hex'),
  };
  const response = await fetch(`${registry}/${name}`, {
    method: 'PUT',
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { 'holdfast-token': String(token) }),
    },
    body: JSON.stringify({
      _id: name,
      name,
      'dist-tags': { latest: version },
      versions: { [version]: { name, version, dist } },
      _attachments: {
        [file]: {
          content_type: 'application/octet-stream',
          data: tarball.toString('base64'),
          length: tarball.length,
        },
      },
    }),
  });
  await response.arrayBuffer();
  return response.status;
}

async function startVerdaccio(context: Context): Promise<string> {
  const port = await freePort();
  const config = join(context.scratch, 'verdaccio.yaml');
  writeFileSync(
    config,
    [
      `storage: ${join(context.scratch, 'storage')}`,
      'packages:',
      "  '**':",
      '    access: $all',
      '    publish: $anonymous',
      'log: { type: stdout, format: pretty, level: error }',
      'web: { enable: false }',
      '',
    ].join('\n'),
  );
  const program = join(process.cwd(), 'node_modules/verdaccio/bin/verdaccio');
  const args = [program, '--config', config, '--listen', `127.0.0.1:${port}`];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  context.cleanup(() => end(child));
  const url = `http://127.0.0.1:${port}`;
  for (let waited = 0; waited < 30_000; waited += 100) {
    const response = await fetch(`${url}/-/ping`).catch(() => undefined);
    if (response?.ok) return url;
    if (child.exitCode !== null) break;
    await pause(100);
  }
  throw new Error('verdaccio did not start');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
