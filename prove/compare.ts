/**
 * The same random requests, one after another, to a real etcd and to our server: every answer, every
 * error with its code and text, and every watch event must be equal once ids are taken out.
 *
 * Control: our server with one rule bent (a version that is not reset by a delete) must be noticed.
 */

import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { utf8 } from '../src/base/bytes.ts';
import { type Random, seededRandom } from '../src/base/random.ts';
import type { Engine } from '../src/engine/contract.ts';
import { openMemoryEngine } from '../src/engine/memory/engine.ts';
import type { OperationResult } from '../src/model/transaction.ts';
import { serve } from '../src/server/serve.ts';
import type { Method } from '../src/wire/messages/descriptor.ts';
import { toJson } from '../src/wire/messages/json.ts';
import { KVService, LeaseService, WatchService } from '../src/wire/messages/services.ts';
import { attachedStatus } from '../src/wire/messages/status.ts';
import { GrpcClient } from '../src/wire/net/grpc-client.ts';
import { startEtcd } from '../test/servers/etcd.ts';

interface Step {
  readonly method: Method;
  readonly request: object;
}

interface Difference {
  readonly step: string;
  readonly etcd: string;
  readonly ours: string;
}

const KEYS = ['a', 'aa', 'ab', 'b', 'ba', 'c', 'd'];
const ENDS = ['b', 'c', 'a', 'e', '\0', 'ab'];
const LEASES = [11n, 12n, 13n, 14n];
/**
 * etcd lets two kinds of transactions through that change a key twice in one revision: a nested one
 * that puts a key beside a later one that deletes it, and a put beside a delete "to the very end".
 * Here both are duplicate keys like any other. A request refused by one side only makes the stores
 * differ from then on, so the generator draws neither, and what still differs so is counted apart.
 */
const DUPLICATE = 'duplicate key given in txn request';
const WATCH_QUIET_MS = 400;

export const experiment: Experiment = {
  about: 'random requests answered by our server as by a real etcd',
  needs: { etcd: 'etcd-server' },
  run,
};

async function run(context: Context): Promise<Report> {
  const requests = context.long ? 20_000 : 5_000;
  const steps = generate(seededRandom(context.seed), requests);
  const honest = await compare(context, steps, (engine) => engine);
  for (const difference of honest.differences.slice(0, 10)) {
    context.log(`${difference.step}\n  etcd: ${difference.etcd}\n  ours: ${difference.ours}`);
  }
  const bent = await compare(context, steps.slice(0, 2_000), forgetful);
  return {
    ok: honest.differences.length === 0 && bent.differences.length > 0,
    figures: {
      requests,
      'answers that differ': honest.differences.length,
      'refused by us alone (explained)': honest.stricter,
      'watch events compared': honest.events,
      'errors compared': honest.errors,
    },
    control: { 'answers that differ with one rule bent': bent.differences.length },
  };
}

async function compare(
  context: Context,
  steps: readonly Step[],
  bend: (engine: Engine) => Engine,
): Promise<{ differences: Difference[]; stricter: number; events: number; errors: number }> {
  const etcd = await startEtcd();
  context.cleanup(() => etcd.stop());
  const engine = bend(await openMemoryEngine({ retainRevisions: 0 }));
  // The entries of the audit log take revisions, which are compared here.
  const server = await serve({ engine, listen: { port: 0 }, audit: false });
  context.cleanup(() => server.close());
  const [theirs, ours] = [Number(new URL(etcd.url).port), server.port].map(
    (port) => new GrpcClient({ port, deadlineMs: 10_000 }),
  ) as [GrpcClient, GrpcClient];
  const [a, b] = [await answers(theirs, steps), await answers(ours, steps)];
  const differences: Difference[] = [];
  let stricter = 0;
  for (const [index, step] of steps.entries()) {
    const [etcdSaid, weSaid] = [a.said[index]!, b.said[index]!];
    if (etcdSaid === weSaid) continue;
    if (weSaid.endsWith(DUPLICATE)) {
      stricter++;
      continue;
    }
    const what = `${index} ${step.method.name} ${toJson(step.method.request, step.request)}`;
    differences.push({ step: what, etcd: etcdSaid, ours: weSaid });
  }
  if (a.events.join('\n') !== b.events.join('\n')) {
    const at = a.events.findIndex((event, index) => event !== b.events[index]);
    differences.push({
      step: `watch event ${at}`,
      etcd: a.events[at] ?? 'none',
      ours: b.events[at] ?? 'none',
    });
  }
  for (const client of [theirs, ours]) client.destroy();
  const errors = a.said.filter((said) => said.startsWith('error')).length;
  return { differences, stricter, events: a.events.length, errors };
}

async function answers(
  client: GrpcClient,
  steps: readonly Step[],
): Promise<{ said: string[]; events: string[] }> {
  const events: string[] = [];
  const watch = client.stream(WatchService.Watch);
  let stands = (): void => {};
  const created = new Promise<void>((resolve) => {
    stands = resolve;
  });
  const reading = (async () => {
    for await (const response of watch.responses()) {
      if (response.created) stands();
      for (const event of response.events) {
        events.push(toJson(WatchService.Watch.response, { events: [event] }));
      }
    }
  })().catch(() => {});
  watch.send({ createRequest: { key: utf8('a'), rangeEnd: utf8('c'), prevKv: true } });
  await created;
  const said: string[] = [];
  for (const step of steps) said.push(await answer(client, step));
  await quiet(events);
  watch.cancel();
  await reading;
  return { said, events };
}

async function answer(client: GrpcClient, { method, request }: Step): Promise<string> {
  try {
    const response = await client.unary(method, request as never);
    return normalised(toJson(method.response, response as object));
  } catch (error) {
    const status = attachedStatus(error);
    return `error ${status?.code} ${status?.message}`;
  }
}

/** Ids and terms differ between any two clusters; the time left of a lease is measured, not ruled. */
function normalised(json: string): string {
  return json
    .replace(/"(cluster_id|member_id|raft_term)":"\d+",?/g, '')
    .replace(/"TTL":"\d+"/g, '"TTL":"some"')
    .replaceAll(',}', '}');
}

async function quiet(events: readonly string[]): Promise<void> {
  for (let seen = -1; seen !== events.length; ) {
    seen = events.length;
    await new Promise((resolve) => setTimeout(resolve, WATCH_QUIET_MS));
  }
}

// ─── requests ──────────────────────────────────────────────────────────────────────────────────

function generate(random: Random, count: number): Step[] {
  const steps: Step[] = [];
  for (let at = 0; at < count; at++) steps.push(one(random, at));
  return steps;
}

function one(random: Random, at: number): Step {
  const draw = random.next();
  if (draw < 0.3) return { method: KVService.Range, request: range(random, at) };
  if (draw < 0.55) return { method: KVService.Put, request: put(random) };
  if (draw < 0.65) return { method: KVService.DeleteRange, request: remove(random) };
  if (draw < 0.85) return { method: KVService.Txn, request: txn(random, at, 0) };
  if (draw < 0.88)
    return {
      method: KVService.Compact,
      request: { revision: Math.max(1, Math.floor(at / 3) - random.integer(0, 60)) },
    };
  const ID = random.pick(LEASES);
  if (draw < 0.93)
    return {
      method: LeaseService.LeaseGrant,
      request: { ID, TTL: random.pick([60, 600, 9_000_000_001]) },
    };
  if (draw < 0.96) return { method: LeaseService.LeaseRevoke, request: { ID } };
  return { method: LeaseService.LeaseTimeToLive, request: { ID } };
}

const key = (random: Random): Uint8Array => utf8(random.chance(0.03) ? '' : random.pick(KEYS));
const maybeEnd = (random: Random): object =>
  random.chance(0.5) ? { rangeEnd: utf8(random.pick(ENDS)) } : {};

function range(random: Random, at: number): object {
  const past = Math.floor(at / 3);
  // With a limit but no order etcd sorts only the first keys it happens to read; here all are.
  const limited = random.chance(0.2);
  return {
    key: key(random),
    ...maybeEnd(random),
    ...(limited ? { limit: random.integer(0, 4) } : {}),
    ...(random.chance(0.25) ? { revision: random.integer(-1, past + 10) } : {}),
    ...(random.chance(0.3)
      ? { sortTarget: random.integer(0, 5), sortOrder: random.integer(limited ? 1 : 0, 3) }
      : {}),
    ...(random.chance(0.1) ? { keysOnly: true } : {}),
    ...(random.chance(0.1) ? { countOnly: true } : {}),
    ...(random.chance(0.1) ? { minModRevision: random.integer(0, past + 2) } : {}),
    ...(random.chance(0.1) ? { maxCreateRevision: random.integer(0, past + 2) } : {}),
  };
}

function put(random: Random): object {
  return {
    key: key(random),
    // Distinct values, so that no order of equal values is left to chance.
    value: utf8(random.chance(0.1) ? '' : String(random.integer(0, 1_000_000))),
    ...(random.chance(0.2) ? { lease: random.pick(LEASES) } : {}),
    ...(random.chance(0.3) ? { prevKv: true } : {}),
    ...(random.chance(0.05) ? { ignoreValue: true } : {}),
    ...(random.chance(0.05) ? { ignoreLease: true } : {}),
  };
}

function remove(random: Random): object {
  return { key: key(random), ...maybeEnd(random), ...(random.chance(0.4) ? { prevKv: true } : {}) };
}

/** A delete to the very end, which etcd's own check for duplicate keys takes for an empty range. */
function bounded(request: { rangeEnd?: Uint8Array }): object {
  return request.rangeEnd?.[0] === 0 ? { ...request, rangeEnd: utf8('e') } : request;
}

function txn(random: Random, at: number, depth: number): object {
  const list = <T>(most: number, make: () => T): T[] =>
    Array.from({ length: random.integer(0, most + 1) }, make);
  /** One nested transaction per list: see `DUPLICATE`. */
  let nested = false;
  const operation = (): object => {
    const draw = random.next();
    if (draw < 0.4) return { requestRange: range(random, at) };
    if (draw < 0.75) return { requestPut: put(random) };
    if (draw < 0.9 || depth > 1 || nested) return { requestDeleteRange: bounded(remove(random)) };
    nested = true;
    return { requestTxn: txn(random, at, depth + 1) };
  };
  const branch = (): object[] => {
    nested = false;
    return list(3, operation);
  };
  return {
    compare: list(2, () => compareOf(random, at)),
    success: branch(),
    failure: branch(),
  };
}

function compareOf(random: Random, at: number): object {
  const target = random.integer(0, 5);
  const number = random.pick([0, 1, 2, Math.floor(at / 3)]);
  const union = [
    { version: number },
    { createRevision: number },
    { modRevision: number },
    { value: utf8(String(random.integer(0, 9))) },
    { lease: random.pick([0n, ...LEASES]) },
  ][target];
  return {
    key: key(random),
    ...(random.chance(0.3) ? { rangeEnd: utf8(random.pick(ENDS)) } : {}),
    result: random.integer(0, 4),
    target,
    ...union,
  };
}

// ─── control ───────────────────────────────────────────────────────────────────────────────────

/** An engine that counts versions wrongly: one too many for every key that is not new. */
function forgetful(engine: Engine): Engine {
  const bend = (result: OperationResult): OperationResult =>
    result.type === 'put' && result.prevKv
      ? { ...result, prevKv: { ...result.prevKv, version: result.prevKv.version + 1 } }
      : result;
  return {
    ...engine,
    txn: async (request, call) => {
      const answered = await engine.txn(request, call);
      return { ...answered, results: answered.results.map(bend) };
    },
  };
}
