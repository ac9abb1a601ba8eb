/** The operator's side: status, alarms, checksums, snapshots. */
import { createHash } from 'node:crypto';
import type { Operator } from '../../engine/contract.ts';
import { HoldfastError } from '../../model/errors.ts';
import {
  AlarmAction,
  type AlarmMemberInit,
  type AlarmRequest,
  AlarmType,
  type SnapshotResponseInit,
} from '../../wire/messages/gen/rpc.ts';
import { MaintenanceService } from '../../wire/messages/services.ts';
import { rpcError } from '../../wire/messages/status.ts';
import type { Backend, Call } from '../backend.ts';
import { type Handler, stream, unary } from './service.ts';

type AlarmName = 'no-space' | 'corrupt';
const ALARMS: Readonly<Record<AlarmName, number>> = {
  'no-space': AlarmType.NOSPACE,
  corrupt: AlarmType.CORRUPT,
};

export function maintenanceService(backend: Backend): Handler[] {
  const operator = (): Operator => {
    const found = backend.engine.operator;
    if (found) return found;
    throw new HoldfastError(
      'unsupported',
      'use the tools of the store behind this server for that',
    );
  };
  const header = async (): Promise<ReturnType<Backend['header']>> =>
    backend.header((await backend.engine.status()).header);
  return [
    unary(MaintenanceService.Status, (_request, call) => status(backend, call)),
    unary(MaintenanceService.Alarm, async (request, call) => {
      if (request.action === AlarmAction.GET) backend.gate.authenticated(call.identity);
      else backend.admin(call);
      const alarms = await alarm(backend, request, operator);
      return { header: await header(), alarms };
    }),
    unary(MaintenanceService.Defragment, async (_request, call) => {
      // Freed pages are used again by themselves; there is nothing to move.
      backend.admin(call);
      return {};
    }),
    unary(MaintenanceService.Hash, async (_request, call) => {
      backend.admin(call);
      const { hash } = await operator().hash();
      return { header: await header(), hash };
    }),
    unary(MaintenanceService.HashKV, async (request, call) => {
      backend.admin(call);
      const { hash, revision, compactRevision } = await operator().hash(request.revision);
      const own = backend.header({ ...(await backend.engine.status()).header, revision });
      return { header: own, hash, compactRevision, hashRevision: revision };
    }),
    unary(MaintenanceService.MoveLeader, async (_request, call) => {
      backend.admin(call);
      throw rpcError('badTransferee');
    }),
    unary(MaintenanceService.Downgrade, async (_request, call) => {
      backend.admin(call);
      throw rpcError('invalidDowngradeTarget');
    }),
    stream(MaintenanceService.Snapshot, (_requests, call) => snapshot(backend, call, operator)),
  ];
}

async function status(backend: Backend, call: Call): Promise<object> {
  backend.gate.authenticated(call.identity);
  const found = await backend.engine.status({ signal: call.signal });
  const index = found.header.revision;
  return {
    header: backend.header(found.header),
    // Clients choose features by the release of etcd that this server stands for.
    version: EMULATED_VERSION,
    dbSize: found.sizeBytes,
    dbSizeInUse: found.sizeInUseBytes,
    leader: found.leader,
    raftIndex: index,
    raftAppliedIndex: index,
    raftTerm: backend.header(found.header).raftTerm,
    errors: found.alarms.map((name) =>
      alarmText({ memberID: backend.wire.memberId, alarm: ALARMS[name] }),
    ),
  };
}

/** The release of etcd whose behaviour towards clients this server has. */
export const EMULATED_VERSION = '3.5.33';

function alarmText({ memberID, alarm: type }: { memberID: bigint; alarm: number }): string {
  const name = Object.entries(AlarmType).find(([, number]) => number === type)?.[0] ?? 'UNKNOWN';
  return `memberID:${memberID} alarm:${name} `;
}

async function alarm(
  backend: Backend,
  request: AlarmRequest,
  operator: () => Operator,
): Promise<AlarmMemberInit[]> {
  const { memberId } = backend.wire;
  const names = (Object.keys(ALARMS) as AlarmName[]).filter(
    (name) => request.alarm === AlarmType.NONE || request.alarm === ALARMS[name],
  );
  const { alarms } = await backend.engine.status();
  const raised = names.filter((name) => alarms.includes(name));
  const members = (list: readonly AlarmName[]): AlarmMemberInit[] =>
    list.map((name) => ({ memberID: memberId, alarm: ALARMS[name] }));
  switch (request.action) {
    case AlarmAction.ACTIVATE:
      if (request.alarm === AlarmType.NONE) return [];
      for (const name of names) await operator().arm(name);
      return members(names);
    case AlarmAction.DEACTIVATE:
      for (const name of raised) await operator().disarm(name);
      return members(raised);
    default:
      return members(raised);
  }
}

/**
 * The backup, and at its end a message with the digest of all of it, which is what etcd's tools put
 * behind a snapshot they save. The size is not known before the end: until then more is to come.
 */
async function* snapshot(
  backend: Backend,
  call: Call,
  operator: () => Operator,
): AsyncGenerator<SnapshotResponseInit> {
  backend.admin(call);
  const digest = createHash('sha256');
  for await (const blob of operator().backup()) {
    call.signal.throwIfAborted();
    digest.update(blob);
    yield { blob, remainingBytes: 1, version: EMULATED_VERSION };
  }
  yield { blob: new Uint8Array(digest.digest()), remainingBytes: 0, version: EMULATED_VERSION };
}
