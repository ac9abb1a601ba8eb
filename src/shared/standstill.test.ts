/** Owners that stand still: real processes, stopped and continued by signals. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { standStill, stands } from '../../test/servers/daemon.ts';
import { text, utf8 } from '../base/bytes.ts';
import type { Engine } from '../engine/contract.ts';
import { verifyStore } from '../engine/lmdb/opening.ts';
import { open } from './open.ts';
import { SharedEngine, type SharedOptions } from './shared-engine.ts';

/** From a stop to the next write, with a process to start from sources on a busy machine. */
const TAKEOVER_MS_MAX = 15_000;
const TEST_MS_MAX = 90_000;

let directory: string;
const opened: Engine[] = [];
const children: Peer[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-standstill-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const engine of opened.splice(0).reverse()) await engine.close();
  rmSync(directory, { recursive: true, force: true });
});

async function member(options: SharedOptions = {}): Promise<SharedEngine> {
  const engine = await SharedEngine.open(directory, options);
  opened.push(engine);
  return engine;
}

const put = (engine: Engine, key: string): ReturnType<Engine['txn']> =>
  engine.txn({ success: [{ type: 'put', key: utf8(key) }] });

/** Again and again, as long as it fails in a way that the contract allows. */
async function putAtLast(engine: Engine, key: string): Promise<number> {
  const beganMs = performance.now();
  for (;;) {
    try {
      await put(engine, key);
      return performance.now() - beganMs;
    } catch (error) {
      if (performance.now() - beganMs > TAKEOVER_MS_MAX) throw error;
    }
  }
}

const keys = async (engine: Engine): Promise<Map<string, number>> => {
  const { kvs } = await engine.range({ key: utf8('a'), end: utf8('{') });
  return new Map(kvs.map((kv) => [text(kv.key), kv.modRevision]));
};

/** A program in a process of its own; it is asked in lines and answers each with a line. */
class Peer {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(program: string) {
    const options = ['--conditions=holdfast/source', '--import', 'tsx', '--input-type=module'];
    this.#child = spawn(process.execPath, [...options, '--eval', program], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: join(import.meta.dirname, '../..'),
    });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
    children.push(this);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async answer(): Promise<string> {
    const { value } = await this.#lines.next();
    return String(value);
  }

  ask(question: string): Promise<string> {
    this.#child.stdin!.write(`${question}\n`);
    return this.answer();
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when the process surely stands still. */
  stop(): Promise<void> {
    return standStill(this.pid);
  }

  get stands(): boolean {
    return stands(this.pid);
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      await once(this.#child, 'exit');
    }
  }
}

const module = (path: string): string =>
  JSON.stringify(pathToFileURL(join(import.meta.dirname, path)).href);

/** A client on the directory that holds a lock and writes when asked to. */
const CLIENT = `
import { createInterface } from 'node:readline';
const { connect } = await import(${module('../client.ts')});
const client = await connect('lmdb:' + process.env.DIRECTORY, { ttl: 60_000 });
const grant = await client.lock('thing').acquire();
const key = (name) => new TextEncoder().encode(name);
const put = async (name) => {
  try {
    const { header } = await client.engine.txn({ success: [{ type: 'put', key: key(name) }] });
    return 'acknowledged ' + header.revision;
  } catch (error) {
    return error.outcome + ' ' + error.code;
  }
};
let flooding = true;
const flood = async (line) => {
  const outcomes = [];
  for (let at = 0; flooding; at++) {
    const name = 'flood-' + line + '-' + at;
    outcomes.push([name, await put(name)]);
  }
  return outcomes;
};
let floods = [];
const verbs = {
  role: () => client.engine.role(),
  put,
  held: async () => {
    try {
      grant.ensureHeld();
      const { succeeded } = await client.engine.txn({ compare: [grant.ownership()] });
      return succeeded ? 'held ' + grant.token : 'gone';
    } catch (error) {
      return 'lost ' + error.code;
    }
  },
  flood: () => {
    floods = Array.from({ length: 20 }, (_, line) => flood(line));
    return 'flooding';
  },
  outcomes: async () => {
    flooding = false;
    return JSON.stringify((await Promise.all(floods)).flat());
  },
};
console.log('there');
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, argument] = line.split(' ');
  console.log(await verbs[verb](argument));
}
`;

/** Holds the write lock of the tree, and stands still. */
const HOLDER = `
const { openNative } = await import(${module('../engine/lmdb/native.ts')});
const native = openNative(process.env.DIRECTORY);
try {
  native.transactionSync(() => {
    process.kill(process.pid, 'SIGSTOP');
    throw new Error('nothing is written');
  });
} catch {}
await native.close();
`;

async function peer(program: string): Promise<Peer> {
  process.env.DIRECTORY = directory;
  const child = new Peer(program);
  if (program === CLIENT) expect(await child.answer()).toBe('there');
  return child;
}

async function becomes(child: Peer, role: string): Promise<void> {
  const untilMs = performance.now() + TAKEOVER_MS_MAX;
  while ((await child.ask('role')) !== role) {
    if (performance.now() > untilMs) throw new Error(`it did not become ${role}`);
    await pause(50);
  }
}

describe('an owner that stands still', () => {
  test(
    'is replaced while it stands, goes on as a guest, and holds what it held',
    async () => {
      const owner = await peer(CLIENT);
      const guest = await member();
      expect(await guest.role()).toBe('guest');
      const held = await owner.ask('held');
      await owner.stop();
      expect(await putAtLast(guest, 'while-it-stands')).toBeLessThan(TAKEOVER_MS_MAX);
      expect(owner.stands).toBe(true);
      expect(await guest.role()).toBe('owner');

      owner.kill('SIGCONT');
      await becomes(owner, 'guest');
      expect(await owner.ask('held')).toBe(held);
      expect(await owner.ask('put afterwards')).toMatch(/^acknowledged /);
      const there = await keys(guest);
      expect(there.has('afterwards') && there.has('while-it-stands')).toBe(true);
    },
    TEST_MS_MAX,
  );

  test(
    'loses nothing that it acknowledged, whatever it was doing when it was stopped',
    async () => {
      const owner = await peer(CLIENT);
      const guest = await member();
      await owner.ask('flood');
      await putAtLast(guest, 'before');
      await owner.stop();
      await putAtLast(guest, 'taken');
      owner.kill('SIGCONT');
      await becomes(owner, 'guest');
      const outcomes = JSON.parse(await owner.ask('outcomes')) as [string, string][];
      const there = await keys(guest);
      for (const [name, outcome] of outcomes) {
        const [what, revision] = outcome.split(' ');
        if (what === 'acknowledged')
          expect([name, there.get(name)]).toEqual([name, Number(revision)]);
        else if (what === 'rejected') expect([name, there.get(name)]).toEqual([name, undefined]);
      }
      expect(outcomes.some(([, outcome]) => outcome.startsWith('acknowledged'))).toBe(true);
    },
    TEST_MS_MAX,
  );

  test(
    'is replaced by a newcomer, too, that never was its guest',
    async () => {
      const owner = await peer(CLIENT);
      expect(await owner.ask('put before')).toMatch(/^acknowledged /);
      await owner.stop();
      const beganMs = performance.now();
      const newcomer = await member();
      expect(performance.now() - beganMs).toBeLessThan(TAKEOVER_MS_MAX);
      expect(await newcomer.role()).toBe('owner');
      expect((await keys(newcomer)).has('before')).toBe(true);
      owner.kill('SIGCONT');
      await becomes(owner, 'guest');
      expect(await owner.ask('held')).toMatch(/^held /);
    },
    TEST_MS_MAX,
  );

  test(
    'keeps the directory from whoever asks for the strict form',
    async () => {
      const owner = await peer(CLIENT);
      await owner.stop();
      await expect(open(`lmdb:${directory}`, { exclusive: true })).rejects.toMatchObject({
        code: 'store-in-use',
      });
      await expect(verifyStore(directory)).rejects.toMatchObject({ code: 'store-in-use' });
    },
    TEST_MS_MAX,
  );

  test(
    'in the middle of a write of the tree holds up the others, and hangs nobody',
    async () => {
      const owner = await peer(CLIENT);
      const guest = await member({ takeoverMs: 2_000 });
      const holder = await peer(HOLDER);
      while (!holder.stands) await pause(10);
      await owner.stop();
      let longestMs = 0;
      let lastMs = performance.now();
      const ticking = setInterval(() => {
        longestMs = Math.max(longestMs, performance.now() - lastMs);
        lastMs = performance.now();
      }, 10);
      // The first finds the owner silent, the second finds the lock held.
      for (let call = 0; call < 2; call++) {
        await expect(put(guest, `held-${call}`)).rejects.toMatchObject({ code: 'unavailable' });
      }
      clearInterval(ticking);
      expect(longestMs).toBeLessThan(1_000);

      holder.kill('SIGCONT');
      await holder.ended();
      expect(owner.stands).toBe(true);
      await putAtLast(guest, 'free');
      expect(await guest.role()).toBe('owner');
      owner.kill('SIGCONT');
      await becomes(owner, 'guest');
      owner.kill('SIGKILL');
      await owner.ended();
      await guest.close();
      expect((await verifyStore(directory)).unfinished).toBe(false);
    },
    TEST_MS_MAX,
  );
});

test('a patience that no process could keep is refused', async () => {
  for (const standstillMs of [0, -1, 99, Number.NaN, Number.POSITIVE_INFINITY]) {
    await expect(SharedEngine.open(directory, { standstillMs })).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  }
});
