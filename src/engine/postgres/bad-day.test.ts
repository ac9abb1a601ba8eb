/** The fault kit, the linearizability checker and the watch validators on a real PostgreSQL. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import { type Postgres, postgresCommands, startPostgres } from '../../../test/servers/postgres.ts';
import { text, utf8 } from '../../base/bytes.ts';
import { type Random, seededRandom } from '../../base/random.ts';
import { systemClock } from '../../base/system.ts';
import { HoldfastError } from '../../model/errors.ts';
import { prefixRange } from '../../model/range.ts';
import type { Operation as StoreOperation, TxnRequest } from '../../model/transaction.ts';
import {
  checkLinearizable,
  dropAnswer,
  dropRequest,
  duplicate,
  Follower,
  faultyEngine,
  type Operation,
  type RegisterInput,
  type RegisterOutput,
  registerModel,
  replayOf,
  sometimes,
  validateWatch,
} from '../../testing/index.ts';
import type { Engine } from '../contract.ts';
import { openPostgresEngine } from './open.ts';

type Done = Operation<RegisterInput, RegisterOutput>;

const KEYS = ['r/a', 'r/b'];

function draw(random: Random, known: ReadonlyMap<string, number>, name: string): RegisterInput {
  const key = random.pick(KEYS);
  const value = `${name}${random.integer(0, 1_000_000)}`;
  return random.pick<RegisterInput>([
    { kind: 'read', key },
    { kind: 'read', key },
    { kind: 'write', key, value },
    { kind: 'delete', key },
    { kind: 'write-if', key, value, expected: known.get(key) ?? 0 },
  ]);
}

function requestOf(input: RegisterInput): TxnRequest {
  const key = utf8(input.key);
  const write = (value: string): StoreOperation => ({ type: 'put', key, value: utf8(value) });
  switch (input.kind) {
    case 'read':
      return { success: [{ type: 'range', key }] };
    case 'delete':
      return { success: [{ type: 'delete', key }] };
    case 'write':
      return { success: [write(input.value)] };
    case 'write-if':
      return {
        compare: [{ key, target: 'mod', result: '=', value: input.expected }],
        success: [write(input.value)],
      };
  }
}

/** One client's calls, one after the other, with what it saw. */
async function play(engine: Engine, name: string, seed: number, count: number): Promise<Done[]> {
  const random = seededRandom(seed);
  const known = new Map<string, number>();
  const history: Done[] = [];
  for (let i = 0; i < count; i++) {
    const input = draw(random, known, name);
    const callMs = systemClock.now();
    try {
      const { header, succeeded, results } = await engine.txn(requestOf(input));
      const [first] = results;
      const kv = first?.type === 'range' ? first.kvs[0] : undefined;
      if (input.kind === 'read') known.set(input.key, kv?.modRevision ?? 0);
      const output: RegisterOutput = {
        revision: header.revision,
        ...(kv && { value: text(kv.value), modRevision: kv.modRevision }),
        ...(input.kind === 'write-if' && { succeeded }),
      };
      history.push({ input, output, callMs, returnMs: systemClock.now() });
    } catch (error) {
      if (!HoldfastError.is(error)) throw error;
      const returnMs = Number.POSITIVE_INFINITY;
      if (error.outcome === 'unknown') history.push({ input, callMs, returnMs });
    }
  }
  return history;
}

describe.skipIf(!installed(...postgresCommands))('PostgreSQL on a bad day', () => {
  let server: Postgres;
  let pool: pg.Pool;

  beforeAll(async () => {
    server = await startPostgres();
    pool = new pg.Pool({ connectionString: server.url, max: 16 });
  });

  afterAll(async () => {
    await pool?.end();
    await server?.stop();
  });

  test('watches keep every rule while calls of several engines are lost and doubled', async () => {
    const engines = await Promise.all([1, 2, 3].map(() => openPostgresEngine({ pool })));
    const request = { ...prefixRange(utf8('r/')), startRevision: 2, prevKv: true };
    const followers = engines.map((engine) => new Follower(engine.watch(request), request));
    await Promise.all(followers.map((follower) => follower.created()));
    const faulty = engines.map((engine, i) =>
      faultyEngine(engine, {
        random: seededRandom(i + 1),
        rules: [
          sometimes(0.1, dropAnswer()),
          sometimes(0.1, dropRequest()),
          sometimes(0.1, duplicate()),
        ],
      }),
    );
    const histories = await Promise.all(
      faulty.flatMap((engine, i) =>
        [1, 2].map((client) => play(engine, `e${i}c${client}-`, 10 * i + client, 40)),
      ),
    );
    const history = histories.flat();
    const unknown = history.filter(({ output }) => output === undefined);
    expect(unknown.length).toBeGreaterThan(10);

    const { header } = await engines[0]!.range({ key: utf8('r/a') });
    for (const follower of followers) follower.requestProgress();
    for (const follower of followers) {
      const caughtUp = (): boolean =>
        follower.batches.some((batch) => batch.header.revision >= header.revision);
      await follower.until(caughtUp, 'the newest revision');
    }
    const replay = replayOf(followers[0]!.events);
    for (const { batches } of followers) {
      expect(validateWatch({ request, batches }, replay)).toEqual([]);
    }

    expect(replay.length).toBeGreaterThan(40);
    await Promise.all(followers.map((follower) => follower.close()));
    await Promise.all(engines.map((engine) => engine.close()));
  });

  test('lost calls leave every history linearizable, and one changed answer is caught', async () => {
    const engines = await Promise.all(
      [1, 2, 3].map(() => openPostgresEngine({ pool, schema: 'order_of_calls' })),
    );
    const faulty = engines.map((engine, i) =>
      faultyEngine(engine, {
        random: seededRandom(i + 1),
        rules: [sometimes(0.15, dropAnswer()), sometimes(0.1, dropRequest())],
      }),
    );
    const histories = await Promise.all(
      faulty.flatMap((engine, i) =>
        [1, 2].map((client) => play(engine, `e${i}c${client}-`, 20 * i + client, 60)),
      ),
    );
    const history = histories.flat();
    expect(checkLinearizable(history, registerModel).linearizable).toBe(true);

    const at = history.findIndex(({ input, output }) => input.kind === 'read' && output?.value);
    const broken = history.map((done, i) =>
      i === at && done.output ? { ...done, output: { ...done.output, value: 'other' } } : done,
    );
    expect(at).toBeGreaterThanOrEqual(0);
    expect(checkLinearizable(broken, registerModel).linearizable).toBe(false);
    await Promise.all(engines.map((engine) => engine.close()));
  });
});
