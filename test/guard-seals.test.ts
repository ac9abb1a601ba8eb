/**
 * Every verb of every guard gets the key of a seal before it judges it: one that forgot to would
 * refuse real holders after each rotation. (Redis and PostgreSQL: in the tests of their guards.)
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CacheAgent } from '../src/guard/cache/agent.ts';
import { FencedDirectory } from '../src/guard/file.ts';
import type { SealRule } from '../src/guard/gate.ts';
import { Turnstile } from '../src/guard/http/turnstile.ts';
import { JobSink, MemoryJobs } from '../src/guard/job.ts';
import { MemoryMarks } from '../src/guard/marks.ts';
import { ObjectGuard } from '../src/guard/object.ts';
import { generateSealKey, sealKeySet, sealToken } from '../src/guard/seal.ts';
import { StreamGuard } from '../src/guard/stream.ts';
import { ObjectServer } from '../src/testing/object-server.ts';
import { lateKeys } from './late-keys.ts';

const signing = sealKeySet([generateSealKey('k')]);
const closing: (() => unknown)[] = [];
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-late-'));
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  rmSync(directory, { recursive: true, force: true });
});

/** A seal for a resource, and a rule whose keys come late. */
function prepared(resource: string): { seal: SealRule; as: string; asked: () => number } {
  const { keys, asked } = lateKeys(signing);
  const claims = { token: 3n, tenant: '', holder: 'h', expiresAtMs: Date.now() + 60_000 };
  const as = sealToken(signing, { ...claims, resource });
  return { seal: { keys, required: true }, as, asked };
}

async function filled(): Promise<string> {
  await using plain = await FencedDirectory.open(directory, { resource: 'r' });
  await plain.write(1n, 'f', 'x');
  return directory;
}

async function objects(seal: SealRule): Promise<ObjectGuard> {
  const server = await ObjectServer.start();
  closing.push(() => server.close());
  return await ObjectGuard.open({ store: { url: server.url }, seal });
}

async function greeted(seal: SealRule, as: string): Promise<string> {
  const guard = new StreamGuard(new PassThrough(), new MemoryMarks(), { resource: 'r', seal });
  closing.push(() => guard.close());
  guard.server.listen(0, '127.0.0.1');
  await once(guard.server, 'listening');
  const { port } = guard.server.address() as AddressInfo;
  const socket = createConnection({ port, host: '127.0.0.1' });
  socket.write(`holdfast ${as}\n`);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return answer.toString();
}

const VERBS: Readonly<Record<string, (seal: SealRule, as: string) => Promise<unknown>>> = {
  'write of a directory': async (seal, as) => {
    await using guard = await FencedDirectory.open(directory, { resource: 'r', seal });
    await guard.write(as, 'f', 'x');
  },
  'read of a directory': async (seal, as) => {
    await using guard = await FencedDirectory.open(await filled(), { resource: 'r', seal });
    return await guard.read('f', as);
  },
  'write of an object': async (seal, as) => (await objects(seal)).write(as, 'r', 'x'),
  'deletion of an object': async (seal, as) => (await objects(seal)).delete(as, 'r'),
  'entry of a request': async (seal, as) => {
    const turnstile = new Turnstile('test', new MemoryMarks(), { seal });
    (await turnstile.enter(as, 'r')).leave();
  },
  'start of a job': (seal, as) => new JobSink(new MemoryJobs(), { seal }).start(as, 'r'),
  'end of a job': async (seal, as) => {
    const jobs = new MemoryJobs();
    await new JobSink(jobs).start(3n, 'r');
    await new JobSink(jobs, { seal }).finish(as, 'r');
  },
  'purge of a cache': async (seal, as) => {
    const options = { origin: 'http://127.0.0.1:1', caches: [], seal };
    const agent = new CacheAgent(new MemoryMarks(), options);
    closing.push(() => agent.close());
    await agent.purge(as, '/r');
  },
  'connection to a device': async (seal, as) => expect(await greeted(seal, as)).toBe('ok 3\n'),
};

describe('the key of a seal is there in time for the', () => {
  test.each(Object.entries(VERBS))('%s', async (name, verb) => {
    const { seal, as, asked } = prepared(name.startsWith('purge') ? '/r' : 'r');
    await verb(seal, as);
    expect(asked()).toBe(1);
  });
});
