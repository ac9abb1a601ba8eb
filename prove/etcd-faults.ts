/**
 * A cluster of three as authority while its members are killed, stopped and cut off.
 *
 * Eight client processes take one lock and write a register that keeps the highest token, and each
 * turn a key into the cluster; holders are stopped past their lease. What must hold: no stale write
 * accepted, no update lost, every acknowledged key there and applied once, each watch told every
 * change exactly once, in order, and writes acknowledged again within three seconds of an election.
 * The control is a second register on the same schedule that believes whoever writes.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Experiment, Report } from '../scripts/experiment.ts';
import { text, utf8 } from '../src/base/bytes.ts';
import { openEngine } from '../src/client.ts';
import type { Engine } from '../src/engine/contract.ts';
import { prefixRange } from '../src/model/range.ts';
import { type Etcd, startEtcdCluster } from '../test/servers/etcd.ts';
import { Members } from './etcd/members.ts';
import { Network } from './etcd/network.ts';
import { Probe } from './etcd/probe.ts';
import { history } from './etcd/truth.ts';
import { Consumer } from './postgres/consumer.ts';
import { Crowd } from './postgres/crowd.ts';

const CLIENTS = 8;
const TTL_MS = 2_000;
/** Of a holder: past its lease. */
const PAUSE_MS = 4_000;
const BACK_MS_MAX = 3_000;
const LONG_ROUNDS = 30;
const KEYS = ['acked/', 'probe/'];

export const experiment: Experiment = {
  about: 'three etcd members killed, stopped and cut off while 8 processes lock and write',
  needs: {
    ...{ etcd: 'etcd-server', etcdctl: 'etcd-client' },
    // Only root can make namespaces.
    ...(process.getuid?.() === 0 && { ip: 'iproute2' }),
  },
  async run(context) {
    const stage = await prepare(context);
    const rounds = Number(context.options.rounds ?? (context.long ? LONG_ROUNDS : 1));
    await busy(stage.crowd);
    for (let i = 0; i < rounds; i++) {
      await pauseHolder(stage);
      await fault(stage, 'leader killed', killLeader);
      await fault(stage, 'leader stopped', stopLeader);
      if (stage.network) {
        await fault(stage, `${PARTITIONS[i % 4]!.name} cut off`, PARTITIONS[i % 4]!.run);
      }
    }
    await stage.crowd.stop();
    await stage.probe.stop();
    stage.crowd.end();
    return await judge(stage, rounds);
  },
};

interface Stage {
  readonly context: Context;
  readonly network: Network | undefined;
  /** The members as they run now. */
  readonly servers: Etcd[];
  readonly members: Members;
  readonly crowd: Crowd;
  readonly engine: Engine;
  readonly probe: Probe;
  readonly consumers: readonly Consumer[];
  readonly from: number;
  readonly backMs: { readonly writes: number[]; readonly locks: number[] };
}

async function prepare(context: Context): Promise<Stage> {
  const network = Network.create(3);
  context.cleanup(() => network?.remove());
  if (!network) context.log('no network namespaces here (they need root): nobody is cut off');
  const cluster = await startEtcdCluster(3, network ? { homes: network.homes } : {});
  const servers = [...cluster.members];
  context.cleanup(() => Promise.all(servers.map((server) => server.stop())));
  const url = `etcd://${cluster.urls.map((one) => new URL(one).host).join(',')}`;
  const members = new Members(cluster.urls);
  context.cleanup(() => members.close());
  const opened = async (): Promise<Engine> => {
    const engine = await openEngine(url);
    context.cleanup(() => engine.close());
    return engine;
  };
  const engine = await opened();
  const from = (await engine.status()).header.revision + 1;
  const consumers = [new Consumer(engine, from), new Consumer(await opened(), from)];
  const crowd = new Crowd();
  context.cleanup(() => crowd.end());
  await crowd.start('etcd', CLIENTS);
  await crowd.phase(url, true, TTL_MS);
  const probe = new Probe(await opened());
  context.cleanup(() => probe.stop());
  const backMs = { writes: [], locks: [] };
  return { context, network, servers, members, crowd, engine, probe, consumers, from, backMs };
}

/** Makes the fault, and undoes it. */
type Fault = (stage: Stage) => Promise<{ readonly faultAt: number; readonly undo: () => unknown }>;

async function fault(stage: Stage, name: string, make: Fault): Promise<void> {
  const { members, probe, crowd, backMs, context } = stage;
  await members.whole();
  await busy(crowd);
  const before = await members.leader();
  const { faultAt, undo } = await make(stage);
  const had = crowd.tally.acknowledged.length;
  // Without an election, when a follower was hit, the time counts from the fault.
  const electing = members
    .leader(before.term, 6_000)
    .then(() => performance.now())
    .catch(() => faultAt);
  const [electedAt, served, locked] = await Promise.all([
    electing,
    probe.servedAfter(faultAt),
    lockedAfter(crowd, had),
  ]);
  await pause(Math.max(0, faultAt + TTL_MS + 1_000 - performance.now()));
  await undo();
  await members.whole();
  backMs.writes.push(Math.max(0, served - electedAt));
  backMs.locks.push(Math.max(0, locked - electedAt));
  const since = (at: number): string => `${Math.round(at - faultAt)} ms`;
  context.log(
    `${name}: elected after ${since(electedAt)}, first write ${since(served)}, first lock ${since(locked)}; ` +
      `${crowd.tally.acknowledged.length} turns so far`,
  );
}

const killLeader: Fault = async ({ members, servers }) => {
  const { member } = await members.leader();
  const faultAt = performance.now();
  await servers[member]!.kill();
  return {
    faultAt,
    undo: async () => {
      servers[member] = await servers[member]!.restart();
    },
  };
};

const stopLeader: Fault = async ({ members, servers }) => {
  const { member } = await members.leader();
  servers[member]!.signal('SIGSTOP');
  return { faultAt: performance.now(), undo: () => servers[member]!.signal('SIGCONT') };
};

/** From everybody, or from the other members only, so that clients still believe in it. */
const PARTITIONS: readonly { readonly name: string; readonly run: Fault }[] = [
  { name: 'leader', run: cut(true, 'cutWire') },
  { name: 'follower', run: cut(false, 'cutPeers') },
  { name: 'leader from the others', run: cut(true, 'cutPeers') },
  { name: 'follower', run: cut(false, 'cutWire') },
];

function cut(leading: boolean, how: 'cutWire' | 'cutPeers'): Fault {
  return async ({ members, network, servers }) => {
    const { member: leader } = await members.leader();
    const member = leading ? leader : (leader + 1) % servers.length;
    network?.[how](member);
    return { faultAt: performance.now(), undo: () => network?.heal(member) };
  };
}

/** Apart from the faults, so that a holder who stands still is not taken for a slow election. */
async function pauseHolder({ crowd }: Stage): Promise<void> {
  crowd.pauseHolder(PAUSE_MS);
  await pause(PAUSE_MS);
  await busy(crowd);
}

/** Waits until the clients are at work, so that every fault meets them in the middle of it. */
async function busy(crowd: Crowd): Promise<void> {
  const wanted = crowd.tally.acknowledged.length + 10;
  for (let i = 0; i < 400 && crowd.tally.acknowledged.length < wanted; i++) await pause(25);
}

async function lockedAfter(crowd: Crowd, had: number): Promise<number> {
  for (let i = 0; i < 2_000 && crowd.tally.acknowledged.length <= had; i++) await pause(10);
  return performance.now();
}

/** Compares what was promised and told with what the cluster holds, as `etcdctl` tells it. */
async function judge(stage: Stage, rounds: number): Promise<Report> {
  const { crowd, engine, probe, servers, consumers, from, backMs } = stage;
  const { tally, lost } = crowd;
  const found = new Map<string, number>();
  let revision = 0;
  for (const prefix of KEYS) {
    const { kvs, header } = await engine.range(prefixRange(utf8(prefix)));
    for (const kv of kvs) found.set(text(kv.key), kv.version);
    revision = Math.max(revision, header.revision);
  }
  const promised = [...tally.acknowledged, ...probe.acknowledged];
  const missing = promised.filter((key) => !found.has(key)).length;
  const twice = [...found.values()].filter((version) => version !== 1).length;
  const last = Math.max(...(await lastRevisions(engine)));
  const truth = await history(servers[0]!.url, from, last);
  let disturbed = 0;
  for (const consumer of consumers) {
    for (let i = 0; i < 200 && consumer.revision < last; i++) await pause(50);
    const told = consumer.told.filter((line) => Number(line.split(' ')[0]) <= last);
    const upTo = truth.filter((line) => Number(line.split(' ')[0]) <= last);
    if (told.join('\n') !== upTo.join('\n')) disturbed++;
    await consumer.stop();
  }
  const slowest = Math.round(Math.max(...backMs.writes));
  const trouble = [...tally.trouble, ...probe.trouble];
  const zeros = [tally.staleAccepted, lost.guarded, missing, twice, disturbed, trouble.length];
  const ok =
    zeros.every((count) => count === 0) &&
    slowest <= BACK_MS_MAX &&
    tally.refused > 0 &&
    lost.open > 0;
  return {
    ok,
    figures: {
      'leaders killed': rounds,
      'leaders stopped past the TTL': rounds,
      'members cut off': stage.network ? rounds : 'skipped: needs root for network namespaces',
      'holders stopped past their lease': tally.pauses,
      'writes accepted': tally.accepted,
      'stale writes refused': tally.refused,
      'stale writes accepted': tally.staleAccepted,
      'updates lost': lost.guarded,
      'writes acknowledged': promised.length,
      'acknowledged writes lost': missing,
      'writes applied twice': twice,
      'outcomes left unknown': tally.unknown,
      'events per watch': truth.length,
      'watches with a gap, a double or a disorder': disturbed,
      'ms from election to the first write, at most': slowest,
      'ms from election to the first lock, at most': Math.round(Math.max(...backMs.locks)),
      'unexpected errors': trouble.slice(0, 3).join(' | ') || 0,
    },
    control: { broke: lost.open > 0, 'updates lost without the token': lost.open },
  };
}

/** The last change below each of the prefixes; a watch is told about nothing later than these. */
async function lastRevisions(engine: Engine): Promise<number[]> {
  const found = await Promise.all(
    KEYS.map((prefix) =>
      engine.range({
        ...prefixRange(utf8(prefix)),
        sortTarget: 'mod',
        sortOrder: 'descend',
        limit: 1,
      }),
    ),
  );
  return found.map(({ kvs }) => kvs[0]?.modRevision ?? 0);
}
