/** A `LocalEngine` as the contract's `Engine`: what an embedded engine adds is only its store. */
import { LocalEngine, type LocalEngineOptions } from '../mvcc/local-engine.ts';
import type { AtOnce, Capabilities, Engine, Operator } from './contract.ts';

export interface EmbeddedEngine extends Engine {
  readonly operator: Operator;
  readonly atOnce: AtOnce;
}

export async function embeddedEngine(
  options: LocalEngineOptions,
  kind: Pick<Capabilities, 'name' | 'durable' | 'shared'>,
): Promise<EmbeddedEngine> {
  const local = await LocalEngine.open(options);
  const close = (): Promise<void> => local.close();
  return {
    capabilities: {
      ...kind,
      ...options.limits,
      leaseTtlMsMin: options.leaseTtlMsMin,
      leaseTtlMsStep: 1,
    },
    range: (request, call) => local.range(request, call),
    txn: (request, call) => local.txn(request, call),
    watch: (request, call) => local.watch(request, call),
    grantLease: (request, call) => local.grantLease(request, call),
    keepAlive: (id, call) => local.keepAlive(id, call),
    revokeLease: (id, call) => local.revokeLease(id, call),
    leaseInfo: (id, call) => local.leaseInfo(id, call),
    compact: (revision, call) => local.compact(revision, call),
    liftEra: (era, call) => local.liftEra(era, call),
    status: (call) => local.status(call),
    atOnce: {
      range: (request) => local.rangeAtOnce(request),
      keepAlive: (id) => local.keepAliveAtOnce(id),
    },
    figures: {
      read: () => local.figures(),
      onCommit: (listener) => local.onCommit(listener),
    },
    close,
    [Symbol.asyncDispose]: close,
    operator: {
      leases: () => local.leases(),
      arm: (alarm) => local.setAlarm(alarm, true),
      disarm: (alarm) => local.setAlarm(alarm, false),
      hash: (revision) => local.hash(revision),
      backup: () => local.backup(),
    },
  };
}
