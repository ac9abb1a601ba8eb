import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LockFile } from '../../test/lock-file.ts';
import { text, utf8 } from '../base/bytes.ts';
import { connect } from '../client.ts';
import type { Engine } from '../engine/contract.ts';
import { lastOwner } from '../engine/lmdb/opening.ts';
import { open } from './open.ts';
import { SharedEngine } from './shared-engine.ts';

let directory: string;
const opened: Engine[] = [];
const children: ChildProcess[] = [];
let lockFile: LockFile | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-shared-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  // The guests first: an owner that leaves waits for what they have under way.
  for (const engine of opened.splice(0).reverse()) await engine.close();
  lockFile?.close();
  lockFile = undefined;
  rmSync(directory, { recursive: true, force: true });
});

async function member(): Promise<SharedEngine> {
  const engine = await SharedEngine.open(directory);
  opened.push(engine);
  return engine;
}

const put = (engine: Engine, key: string, lease?: bigint): ReturnType<Engine['txn']> =>
  engine.txn({ success: [{ type: 'put', key: utf8(key), ...(lease ? { lease } : {}) }] });

const keys = async (engine: Engine): Promise<string[]> =>
  (await engine.range({ key: utf8('a'), end: utf8('{') })).kvs.map(({ key }) => text(key));

/** A process that owns the directory, puts `mine` and then stands there. */
async function ownerElsewhere(): Promise<ChildProcess> {
  const script = `
    import { openEngine } from ${JSON.stringify(new URL('../client.ts', import.meta.url).href)};
    const engine = await openEngine(${JSON.stringify(`lmdb:${directory}`)});
    const key = new TextEncoder().encode('mine');
    await engine.txn({ success: [{ type: 'put', key }] });
    console.log('there');
    setInterval(() => {}, 1_000);`;
  const child = spawn(
    process.execPath,
    ['--conditions=holdfast/source', '--import', 'tsx', '--input-type=module', '-e', script],
    { stdio: ['ignore', 'pipe', 'inherit'], cwd: new URL('../..', import.meta.url).pathname },
  );
  children.push(child);
  await once(child.stdout!, 'data');
  return child;
}

describe('two engines on one directory', () => {
  test('the first owns it, the second is its guest, and both see what either writes', async () => {
    const [first, second] = [await member(), await member()];
    expect([await first.role(), await second.role()]).toEqual(['owner', 'guest']);
    await put(first, 'a');
    await put(second, 'b');
    expect(await keys(first)).toEqual(['a', 'b']);
    expect(await keys(second)).toEqual(['a', 'b']);
  });

  test('the guest takes over when the owner leaves, with keys, leases and a higher epoch', async () => {
    const [first, second] = [await member(), await member()];
    const { id } = await second.grantLease({ ttlMs: 30_000 });
    await put(second, 'a', id);
    const before = lastOwner(directory)?.socket;
    await first.close();
    expect((await second.keepAlive(id)).ttlMs).toBe(30_000);
    expect(await second.role()).toBe('owner');
    expect(await keys(second)).toEqual(['a']);
    expect(lastOwner(directory)?.socket).not.toBe(before);
  });

  test('a watch of a guest goes on after the owner left, without a gap and without a repetition', async () => {
    const [first, second, third] = [await member(), await member(), await member()];
    const watch = second.watch({ key: utf8('k'), end: utf8('l') });
    await watch.created;
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { events } of watch) {
        seen.push(...events.map(({ kv }) => text(kv.key)));
        if (seen.length >= 20) return;
      }
    })();
    for (let at = 0; at < 20; at++) {
      await put(third, `k${String(at).padStart(2, '0')}`);
      if (at === 9) await first.close();
    }
    await reading;
    expect(seen).toEqual(Array.from({ length: 20 }, (_, at) => `k${String(at).padStart(2, '0')}`));
  });

  test.each([
    { what: 'goes on', mendable: true },
    { what: 'opens the store again where that cannot be mended', mendable: false },
  ])('an owner whose root LMDB passed over $what, and has everything', async ({ mendable }) => {
    const [first, second] = [await member(), await member()];
    await put(second, 'a');
    const before = lastOwner(directory)?.socket;
    lockFile = new LockFile(directory);
    lockFile.setBack();
    if (!mendable) lockFile.disguise();
    expect(await keys(first)).toEqual(['a']);
    expect(lastOwner(directory)?.socket === before).toBe(mendable);
    await put(second, 'b');
    expect(await keys(first)).toEqual(['a', 'b']);
  });

  test('of several guests exactly one becomes the owner', async () => {
    const engines = [await member(), await member(), await member(), await member()];
    await engines[0]!.close();
    const rest = engines.slice(1);
    await Promise.all(rest.map((engine) => put(engine, 'a')));
    const roles = await Promise.all(rest.map((engine) => engine.role()));
    expect(roles.sort()).toEqual(['guest', 'guest', 'owner']);
  });

  test('an engine that was closed refuses calls instead of opening the directory again', async () => {
    const [first, second] = [await member(), await member()];
    await second.close();
    await expect(put(second, 'a')).rejects.toMatchObject({ code: 'closed' });
    await first.close();
    await expect(first.range({ key: utf8('a') })).rejects.toMatchObject({ code: 'closed' });
  });

  test('the strict form refuses a directory that has an owner, and names it', async () => {
    await member();
    await expect(open(`lmdb:${directory}`, { exclusive: true })).rejects.toMatchObject({
      code: 'store-in-use',
      details: { owner: expect.stringContaining(String(process.pid)) },
    });
  });

  test('the operator’s verbs belong to the owner, and a guest is told so', async () => {
    const [first, second] = [await member(), await member()];
    expect(await first.operator.leases()).toEqual([]);
    await expect(second.operator.leases()).rejects.toMatchObject({ code: 'unsupported' });
  });

  test('nobody but the user can reach the socket beside the data', async () => {
    await member();
    expect(statSync(directory).mode & 0o077).toBe(0);
  });
});

describe('an owner in another process', () => {
  test('that is killed is replaced at once, and what it acknowledged is there', async () => {
    const child = await ownerElsewhere();
    const guest = await member();
    expect(await guest.role()).toBe('guest');
    expect(await keys(guest)).toEqual(['mine']);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const began = performance.now();
    expect(await keys(guest)).toEqual(['mine']);
    expect(performance.now() - began).toBeLessThan(3_000);
    expect(await guest.role()).toBe('owner');
  });

  test('whose directory cannot be taken over for a while: one takeover for all who asked', async () => {
    const child = await ownerElsewhere();
    const guest = await member();
    const era = join(directory, 'era');
    const sound = readFileSync(era);
    writeFileSync(era, 'damaged');
    child.kill('SIGKILL');
    await once(child, 'exit');
    const calls = await Promise.allSettled(Array.from({ length: 5 }, () => keys(guest)));
    for (const call of calls) expect(call).toMatchObject({ reason: { code: 'corrupt' } });
    writeFileSync(era, sound);
    // What was found then is not the answer to whoever asks now.
    expect(await keys(guest)).toEqual(['mine']);
    expect(await guest.role()).toBe('owner');
    await guest.close();
    await (await open(`lmdb:${directory}`, { exclusive: true })).close();
  });

  test('whose takeover failed while nobody asked: who asks then is not told of it', async () => {
    const child = await ownerElsewhere();
    const guest = await member();
    const before = lastOwner(directory)?.socket;
    // In the way of the next owner's journal: the claim stands, and then it goes no further.
    const obstacle = join(directory, 'journal-2-1');
    mkdirSync(obstacle);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const isTried = (): boolean => {
      const claimed = lastOwner(directory)?.socket;
      return claimed !== before && !existsSync(join(directory, claimed!));
    };
    await expect.poll(isTried, { timeout: 10_000 }).toBe(true);
    rmSync(obstacle, { recursive: true });
    expect(await keys(guest)).toEqual(['mine']);
  });

  test('that is killed while a lock is held here leaves the lock held, under the same token', async () => {
    const child = await ownerElsewhere();
    await using client = await connect(`lmdb:${directory}`, { ttl: 5_000 });
    const grant = await client.lock('thing').acquire();
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await client.lock('thing').tryAcquire()).toBeUndefined();
    grant.ensureHeld();
    const { succeeded } = await client.engine.txn({ compare: [grant.ownership()] });
    expect(succeeded).toBe(true);
    await grant.release();
    const next = await client.lock('thing').acquire();
    expect(next.token).toBeGreaterThan(grant.token);
  });
});
