/**
 * Laptops publish a release. A release is three packages that belong together; whoever publishes
 * holds the lock "release" for as long as it takes. One laptop is shut after its first package. A
 * colleague gets the lock and publishes the next release, whole. On the way home the first laptop
 * is opened, and its program goes on with the second package.
 *
 * The registry knows nothing of locks and cannot be changed. The guard is a proxy before it, and
 * publishing goes through the proxy only.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { createGuardProxy, HttpGuard, LmdbMarks, refusalOf } from '../src/guard/http/index.ts';
import { Actor, isActor, openAuthority, overtake, playAs, verdictOf } from './support/actor.ts';

const PACKAGES = ['server', 'client', 'docs'] as const;

export const story: Story = {
  about: 'laptops that sleep in the middle of a release: one release, or a mixture of two',
  async run(context) {
    const authority = await openAuthority(context);
    const laptops = await Actor.cast(context, import.meta.url, authority, 'laptop-1', 'laptop-2');
    const figures = await tell(context, laptops, true);
    const control = await tell(context, laptops, false);
    const ok = figures['releases mixed'] === 1 && figures['late uploads refused'] === 1;
    return { ok: ok && control['releases mixed'] === 2, figures, control };
  },
};

type Laptops = Readonly<Record<'laptop-1' | 'laptop-2', Actor>>;

async function tell(context: Context, laptops: Laptops, guarded: boolean): Promise<Figures> {
  context.log(guarded ? 'Uploads go through the guard:' : '\nUploads go to the registry:');
  const registry = await startRegistry(context);
  const to = guarded ? await startGuard(context, registry.url) : registry.url;
  const { 'laptop-1': sleeper, 'laptop-2': colleague } = laptops;
  const details = { to, lock: guarded ? 'release' : 'release of the control' };
  const { refused } = await overtake(context, sleeper, colleague, 'publish', details);
  const latest = PACKAGES.map((name) => registry.latest.get(name) ?? 'nothing');
  context.log(`  latest: ${PACKAGES.map((name, i) => `${name} of ${latest[i]}`).join(', ')}`);
  const withoutToken = await fetch(`${to}/docs`, { method: 'PUT', body: 'somebody' });
  return {
    'releases mixed': new Set(latest).size,
    'late uploads refused': refused ? 1 : 0,
    'an upload without a token': withoutToken.ok ? 'taken' : `refused (${withoutToken.status})`,
  };
}

/** Keeps the newest upload of each package, whoever sends it. */
async function startRegistry(context: Context) {
  const latest = new Map<string, string>();
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    if (request.method === 'PUT') latest.set(request.url!.slice(1), body);
    response.writeHead(request.method === 'PUT' ? 201 : 405).end();
  });
  return { url: await listen(context, server), latest };
}

async function startGuard(context: Context, upstream: string): Promise<string> {
  const marks = LmdbMarks.open(join(context.scratch, 'marks'));
  context.cleanup(() => marks.close());
  // Whatever may change the registry is one resource: a release is all of it.
  const guard = new HttpGuard(marks, { resource: 'release' });
  return await listen(context, createGuardProxy(guard, { upstream }));
}

async function listen(context: Context, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.cleanup(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

if (isActor) {
  await playAs({
    publish: async ({ hf, name, freeze }, { to, lock, freeze: stopped }) => {
      const grant = await hf.lock(String(lock)).acquire();
      const token = String(grant.token);
      const upload = async (artifact: string): Promise<void> => {
        const headers = { 'holdfast-token': token, 'holdfast-holder': name, connection: 'close' };
        const body = name;
        const response = await fetch(`${to}/${artifact}`, { method: 'PUT', headers, body });
        const refusal = refusalOf(response.status, await response.text());
        if (refusal) throw refusal;
        if (!response.ok) throw new Error(`the registry answered ${response.status}`);
      };
      const verdict = await verdictOf(async () => {
        for (const [at, artifact] of PACKAGES.entries()) {
          if (at === 1 && stopped) freeze({ token });
          await upload(artifact);
        }
      });
      await grant.release();
      return { token, verdict };
    },
  });
}
