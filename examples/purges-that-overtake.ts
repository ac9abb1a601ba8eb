/**
 * Purges that overtake each other. A page is changed twice; each change sends a purge to the cache
 * (a real Varnish), and the second one arrives first. Readers see the newest page. Then the first
 * purge arrives, late: the cache forgets the page, and fills itself from a replica of the origin
 * that lags behind. From now on everybody reads the old page, for as long as it may be cached.
 *
 * The agent beside the cache knows the token of the newest purge it has applied. The late purge is
 * refused; and should the cache lose the page by itself, no older one gets in.
 */
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { CacheAgent, LmdbMarks, varnishCache, varnishVcl } from '../src/guard/cache/index.ts';
import { connect } from '../src/index.ts';
import { startVarnish } from '../test/servers/cache.ts';
import { openAuthority, verdictOf } from './support/actor.ts';

const PAGE = '/page';
type Purge = (token: bigint) => Promise<void>;

export const story: Story = {
  about: 'two purges of a page overtake each other: the newest page, or the old one for an hour',
  needs: { varnishd: 'varnish' },
  async run(context) {
    const authority = await openAuthority(context);
    const figures = await tell(context, authority, true);
    const control = await tell(context, authority, false);
    const ok = figures['went back in time'] === false && figures['late purges refused'] === 1;
    return { ok: ok && control['went back in time'] === true, figures, control };
  },
};

async function tell(context: Context, authority: string, guarded: boolean): Promise<Figures> {
  context.log(guarded ? 'With the agent beside the cache:' : '\nThe same without:');
  await using hf = await connect(authority, { holder: 'editor' });
  const origin = await startOrigin(context);
  const { url, purge, forget } = await startCache(context, origin, guarded);

  /** Changes the page under the lock, as an editor does, and answers the token of the change. */
  const edit = (text: string): Promise<bigint> =>
    hf.lock(`edit${PAGE}`).run(async ({ token }) => {
      origin.publish({ token, text });
      return token;
    });
  await edit('first edition');
  const readers = [await read(url)];
  const [earlier, later] = [await edit('second edition'), await edit('third edition')];
  context.log(`  readers have the ${readers[0]}; two changes follow, tokens ${earlier}, ${later}`);

  const first = await verdictOf(() => purge(later));
  readers.push(await read(url));
  context.log(`  purge ${later} arrives first: ${first}; readers have the ${readers.at(-1)}`);

  origin.failOver();
  const late = await verdictOf(() => purge(earlier));
  readers.push(await read(url));
  context.log(`  the replica that lags behind answers for the origin from now on`);
  context.log(`  purge ${earlier} arrives late: ${late}; readers have the ${readers.at(-1)}`);

  await forget();
  readers.push(await read(url));
  context.log(`  the cache loses the page by itself; readers have: ${readers.at(-1)!.trim()}`);

  origin.catchUp();
  readers.push(await read(url));
  context.log(`  the replica has caught up; readers have the ${readers.at(-1)}`);
  return {
    'what readers have in the end': readers.at(-1)!,
    'went back in time': readers.at(-1) !== 'third edition',
    'late purges refused': late === 'done' ? 0 : 1,
  };
}

async function read(url: string): Promise<string> {
  return await (await fetch(url + PAGE)).text();
}

interface Version {
  readonly token: bigint;
  readonly text: string;
}

/** An origin, and its replica, which is one change behind. */
async function startOrigin(context: Context) {
  const versions: Version[] = [];
  let behind = 0;
  const { url } = await listen(context, (_request, response) => {
    const version = versions.at(-1 - behind);
    const headers = { 'holdfast-token': `${version?.token}`, 'cache-control': 'max-age=3600' };
    response.writeHead(version ? 200 : 404, version ? headers : {}).end(version?.text);
  });
  return {
    url,
    publish: (version: Version): unknown => versions.push(version),
    failOver: (): void => {
      behind = 1;
    },
    catchUp: (): void => {
      behind = 0;
    },
  };
}

/** Varnish; with the agent between it and the origin, or straight before the origin. */
async function startCache(
  context: Context,
  origin: { readonly url: string },
  guarded: boolean,
): Promise<{ readonly url: string; readonly purge: Purge; readonly forget: () => Promise<void> }> {
  const marks = LmdbMarks.open(`${context.scratch}/floors-${guarded}`);
  const caches: ReturnType<typeof varnishCache>[] = [];
  const agent = new CacheAgent(marks, { origin: origin.url, caches });
  const { port } = await listen(
    context,
    (request, response) => void agent.serve(request, response),
  );
  context.cleanup(async () => {
    agent.close();
    await marks.close();
  });
  const backend = guarded ? port : Number(new URL(origin.url).port);
  const varnish = await startVarnish(varnishVcl({ host: '127.0.0.1', port: backend }));
  context.cleanup(() => varnish.stop());
  const cache = varnishCache(varnish.url);
  caches.push(cache);
  const forget = (): Promise<void> => cache.purge(PAGE);
  const purge: Purge = guarded ? (token) => agent.purge(token, PAGE) : forget;
  return { url: varnish.url, purge, forget };
}

async function listen(context: Context, listener: RequestListener) {
  const server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.cleanup(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port };
}
