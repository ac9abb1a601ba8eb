/**
 * Members: one process, one member. Its list tells the addresses that are really served. What would
 * need a second member is refused in words clients know.
 */
import { HoldfastError } from '../../model/errors.ts';
import type { MemberInit } from '../../wire/messages/gen/rpc.ts';
import { ClusterService } from '../../wire/messages/services.ts';
import { rpcError } from '../../wire/messages/status.ts';
import type { Backend } from '../backend.ts';
import { type Handler, unary } from './service.ts';

export function clusterService(backend: Backend): Handler[] {
  // etcd's answers about members carry no revision.
  const header = { ...backend.header({ revision: 0, era: 0 }) };
  const self = (): MemberInit => ({
    ID: backend.wire.memberId,
    name: backend.options.name,
    peerURLs: [],
    clientURLs: [...backend.options.clientUrls()],
  });
  const known = (ID: bigint): void => {
    if (ID !== backend.wire.memberId) throw rpcError('memberNotFound');
  };
  return [
    unary(ClusterService.MemberList, async (_request, call) => {
      backend.gate.authenticated(call.identity);
      return { header, members: [self()] };
    }),
    unary(ClusterService.MemberAdd, async (_request, call) => {
      backend.admin(call);
      throw alone();
    }),
    unary(ClusterService.MemberRemove, async ({ ID }, call) => {
      backend.admin(call);
      known(ID);
      throw rpcError('notEnoughStarted');
    }),
    unary(ClusterService.MemberUpdate, async ({ ID }, call) => {
      backend.admin(call);
      known(ID);
      throw alone();
    }),
    unary(ClusterService.MemberPromote, async ({ ID }, call) => {
      backend.admin(call);
      known(ID);
      throw rpcError('memberNotLearner');
    }),
  ];
}

function alone(): HoldfastError {
  return new HoldfastError(
    'unsupported',
    'this server is one process; for several members use an etcd or PostgreSQL engine behind it',
  );
}
