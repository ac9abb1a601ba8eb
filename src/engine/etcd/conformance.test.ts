/** The conformance suite on real etcd: all of it on one member, what several could break on three. */
import { afterAll, beforeAll, describe, it } from 'vitest';
import { installed } from '../../../test/servers/daemon.ts';
import {
  type Etcd,
  type EtcdCluster,
  startEtcd,
  startEtcdCluster,
} from '../../../test/servers/etcd.ts';
import { utf8 } from '../../base/bytes.ts';
import type { TxnRequest, TxnResult } from '../../model/transaction.ts';
import { conformanceCases } from '../../testing/conformance/cases.ts';
import { runCase, runConformance, skipReason } from '../../testing/conformance/run.ts';
import type { ConformanceCase, Fixture, Open } from '../../testing/conformance/suite.ts';
import { EngineWrapper } from '../../testing/engine-wrapper.ts';
import type { Engine, TxnOptions } from '../contract.ts';
import { open } from './open.ts';
import { CONFORMANCE_SKIPS } from './skips.ts';

let cases = 0;

/** All cases share one cluster with all that came before, as clients share one in use. */
function openOn(url: () => string): Open {
  return async (): Promise<Fixture> => {
    let engine: Engine = await open(url());
    return {
      engine,
      prefix: utf8(`case-${++cases}/`),
      patienceMs: 10_000,
      reopen: async () => {
        await engine.close();
        engine = await open(url());
        return engine;
      },
      dispose: () => engine.close(),
    };
  };
}

/** Every transaction may share its revision, whoever it is from. */
class Sharing extends EngineWrapper {
  override txn(request: TxnRequest, options: TxnOptions = {}): Promise<TxnResult> {
    return this.inner.txn(request, { ...options, shareRevision: true });
  }
}

function sharing(openFixture: Open): Open {
  return async (options): Promise<Fixture> => {
    const fixture = await openFixture(options);
    return { ...fixture, engine: new Sharing(fixture.engine) };
  };
}

const GROUPS_SHARING: ReadonlySet<string> = new Set([
  ...['put', 'delete', 'compare', 'transaction', 'transaction: nested', 'limits'],
  ...['lease: keys', 'watch: events', 'abort', 'close'],
]);
/** What sharing gives up; the reason why each caller must ask for it. */
const GIVEN_UP = 'puts under way at once take different revisions';

function urlOf(servers: readonly { readonly url: string }[]): string {
  return `etcd://${servers.map(({ url }) => new URL(url).host).join(',')}`;
}

const GROUPS_ON_THREE: ReadonlySet<string> = new Set([
  ...['transaction', 'transaction: nested', 'lease: keys', 'lease: life'],
  ...['watch: start', 'watch: events', 'watch: end', 'abort', 'era and status', 'close'],
]);

/** Not those that compact, which that compact disturb the history of all, and take long on three. */
function onThree({ group, needs = [] }: ConformanceCase): boolean {
  return GROUPS_ON_THREE.has(group) && !needs.includes('compaction');
}

describe.skipIf(!installed('etcd'))('with a real etcd', () => {
  let single: Etcd;
  let cluster: EtcdCluster;

  beforeAll(async () => {
    [single, cluster] = await Promise.all([startEtcd(), startEtcdCluster()]);
  });

  afterAll(async () => {
    await Promise.all([single?.stop(), cluster?.stop()]);
  });

  const onCluster = openOn(() => urlOf(cluster.members));
  runConformance(
    { describe, it },
    { name: 'etcd', open: openOn(() => urlOf([single])), skip: CONFORMANCE_SKIPS },
  );
  describe('etcd, transactions that may share a revision, keep the engine contract', () => {
    for (const one of conformanceCases()) {
      const left = skipReason(one, CONFORMANCE_SKIPS) !== undefined || one.name === GIVEN_UP;
      if (left || !GROUPS_SHARING.has(one.group)) continue;
      it(`${one.group}: ${one.name}`, () => runCase(one, sharing(openOn(() => urlOf([single])))));
    }
  });
  describe('etcd, three members, keeps the engine contract', () => {
    for (const one of conformanceCases()) {
      const left = skipReason(one, CONFORMANCE_SKIPS) !== undefined || !onThree(one);
      if (!left) it(`${one.group}: ${one.name}`, () => runCase(one, onCluster));
    }
  });
});
