/**
 * The classic: a storage service, and two clients that change one file under a lock. Client 1 gets
 * token 33 and is paused with its request half made. Its lease runs out, client 2 gets token 34
 * and writes. Then client 1 goes on, and its request reaches the storage.
 *
 * The lock cannot help: nothing lies between client 1's last look at it and the request but time.
 * The storage can: with each write it is shown the token, and it keeps the greatest it has seen.
 */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Context, Figures, Story } from '../scripts/experiment.ts';
import { FencedDirectory } from '../src/guard/file.ts';
import { problemOf, refusalOf } from '../src/guard/http/index.ts';
import { connect } from '../src/index.ts';
import { Actor, isActor, openAuthority, overtake, playAs, verdictOf } from './support/actor.ts';

const FILE = 'shopping-list';

export const story: Story = {
  about: 'storage and the paused client, tokens 33 and 34: an update refused, or another one lost',
  async run(context) {
    const authority = await openAuthority(context);
    const clients = await Actor.cast(context, import.meta.url, authority, 'client-1', 'client-2');
    await countTo(authority, 32);
    const figures = await tell(context, clients, true);
    const control = await tell(context, clients, false);
    const ok = figures['updates lost'] === 0 && figures['late writes refused'] === 1;
    return { ok: ok && control['updates lost'] === 1, figures, control };
  },
};

type Clients = Readonly<Record<'client-1' | 'client-2', Actor>>;

async function tell(context: Context, clients: Clients, guarded: boolean): Promise<Figures> {
  context.log(guarded ? 'The storage checks the token:' : 'The storage takes what comes:');
  const storage = await startStorage(context, guarded);
  const { 'client-1': one, 'client-2': two } = clients;
  const details = { storage: storage.url, lock: guarded ? 'list' : 'list of the control' };
  const { refused } = await overtake(context, one, two, 'update', details);
  // What any client does with a refusal: it asks for the lock again, and reads anew.
  if (refused) {
    const again = await one.play('update', details);
    context.log(`  client-1 tries again with token ${again.token}: ${again.verdict}`);
  }
  const list = storage.content();
  context.log(`  in the end the list is: ${list}\n`);
  return {
    'updates lost': ['client-1', 'client-2'].filter((name) => !list.includes(name)).length,
    'late writes refused': refused ? 1 : 0,
  };
}

/** The storage service. What makes it safe are the two lines that know of a token. */
async function startStorage(context: Context, guarded: boolean) {
  const folder = join(context.scratch, guarded ? 'guarded' : 'plain');
  const directory = await FencedDirectory.open(folder);
  context.cleanup(() => directory.close());
  const file = join(folder, FILE);
  writeFileSync(file, 'milk');
  const server = createServer(async (request, response) => {
    if (request.method === 'GET') return void response.end(readFileSync(file));
    let body = '';
    for await (const chunk of request) body += chunk;
    try {
      const token = String(request.headers['holdfast-token']);
      if (guarded) await directory.write(token, FILE, body);
      else writeFileSync(file, body);
      response.end();
    } catch (error) {
      const { status, body: problem } = problemOf(error);
      response.writeHead(status).end(problem);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.cleanup(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/`, content: () => readFileSync(file, 'utf8') };
}

/** A token is a revision of the authority, so other people's work decides where the story starts. */
async function countTo(authority: string, revision: number): Promise<void> {
  await using hf = await connect(authority);
  const busy = new TextEncoder().encode('somebody else');
  for (let at = 0n; at < BigInt(revision); ) {
    const { header } = await hf.engine.txn({ success: [{ type: 'put', key: busy, value: busy }] });
    at = BigInt(header.revision);
  }
}

if (isActor) {
  await playAs({
    update: async ({ hf, name, freeze }, { storage, lock, freeze: stopped }) => {
      const grant = await hf.lock(String(lock)).acquire();
      const token = String(grant.token);
      const list = await (await fetch(String(storage))).text();
      grant.ensureHeld();
      if (stopped) freeze({ token });
      const verdict = await verdictOf(async () => {
        const headers = { 'holdfast-token': token, connection: 'close' };
        const body = `${list}, what ${name} needs`;
        const response = await fetch(String(storage), { method: 'PUT', headers, body });
        const refusal = refusalOf(response.status, await response.text());
        if (refusal) throw refusal;
      });
      await grant.release();
      return { token, verdict };
    },
  });
}
